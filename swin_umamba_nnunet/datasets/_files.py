"""Finding files in what people download, matching images with masks, and naming cases.

Hidden files and folders (.DS_Store, ._image.png, __MACOSX) are never looked at; endings match in upper and lower case.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.datasets._model import ConversionError, Finding

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr", "input")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "segmentations", "segmentation", "annotations", "groundtruth", "gt", "labelstr",
)  # fmt: skip
PART_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
MASK_SUFFIX = re.compile(r"[ _.-](mask|masks|seg|segmentation|label|labels|gt|annotation|groundtruth)$", re.IGNORECASE)
IMAGE_SUFFIX = re.compile(r"[ _.-](image|img|0000)$", re.IGNORECASE)
EVERYTHING = "**/*"
_WILDCARDS = "*?["
_SHOWN = 5


def check_source(source: Path) -> Path:
    """The source folder, absolute.  Raises ConversionError where it is none."""
    source = source.expanduser().absolute()
    if source.is_file():
        hint = "; unpack it first" if source.suffix.lower() in (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar") else ""
        raise ConversionError(f"{source} is a file, and a folder is expected{hint}")
    if not source.is_dir():
        raise ConversionError(f"the folder {source} does not exist; give the folder the data were unpacked to")
    return source


def is_hidden(path: Path, base: Path) -> bool:
    """Whether the path lies in, or is, something hidden below `base`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(base).parts)


def ending_of(path: Path, endings: tuple[str, ...]) -> str | None:
    """The ending (as it is in `endings`) of a file's name, upper or lower case; None where it has none of them."""
    name = path.name.lower()
    return next((ending for ending in sorted(endings, key=len, reverse=True) if name.endswith(ending)), None)


def stem_of(path: Path, endings: tuple[str, ...]) -> str:
    """The file's name without its ending."""
    ending = ending_of(path, endings)
    return path.name[: -len(ending)] if ending else path.name


def list_files(base: Path, endings: tuple[str, ...], pattern: str = EVERYTHING) -> list[Path]:
    """Files below `base` with one of the endings, sorted, nothing hidden."""
    try:
        found = sorted(base.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise ConversionError(
            f'the pattern "{pattern}" is not understood ({error}); write for example "*/image.png"'
        ) from error
    return [path for path in found if ending_of(path, endings) and not is_hidden(path, base) and path.is_file()]


def subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    """The subfolder with one of these names, upper or lower case; the first name counts most."""
    if not folder.is_dir():
        return None
    present = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


@dataclass(frozen=True)
class PartFolders:
    """Where one part's images and masks lie; `masks` is None where there are none."""

    images: Path
    masks: Path | None


def find_parts(source: Path) -> dict[str, PartFolders]:
    """Part ("train", "val", "test") -> folders, for `train/images`, for `images/train` and for `images` alone.

    Empty where the source has no such folders.
    """
    parts = {}
    for part, names in PART_FOLDERS.items():
        inside = subfolder(source, names)
        images = subfolder(inside, IMAGE_FOLDERS) if inside else None
        if inside and images:
            parts[part] = PartFolders(images, subfolder(inside, MASK_FOLDERS))
    if parts:
        return parts
    images, masks = subfolder(source, IMAGE_FOLDERS), subfolder(source, MASK_FOLDERS)
    if images is None:
        return {}
    for part, names in PART_FOLDERS.items():
        inside = subfolder(images, names)
        if inside:
            parts[part] = PartFolders(inside, subfolder(masks, names) if masks else None)
    return parts or {"train": PartFolders(images, masks)}


@dataclass(frozen=True)
class Selection:
    """Files of one kind.

    Attributes:
        base: the folder their keys are relative to.
        files: sorted.
        one_name: the user gave one name for all, as in "*/image.nii.gz".
    """

    base: Path
    files: tuple[Path, ...]
    one_name: bool = False


Lister = Callable[[Path, tuple[str, ...], str], list[Path]]


def select(source: Path, what: str, endings: tuple[str, ...], option: str, lister: Lister = list_files) -> Selection:
    """The files a folder name or a glob pattern (relative to `source`) stands for.

    Raises:
        ConversionError: there are none.
    """
    if not any(sign in what for sign in _WILDCARDS):
        base = source / what
        if not base.is_dir():
            raise ConversionError(
                f"{option}: the folder {base} does not exist; give a folder or a pattern such as '*/img.png'"
            )
        files = lister(base, endings, EVERYTHING)
    else:
        if Path(what).is_absolute() or ".." in Path(what).parts:
            raise ConversionError(f'{option}: the pattern "{what}" must be relative to {source} and stay inside it')
        fixed = []
        for part in Path(what).parts:
            if any(sign in part for sign in _WILDCARDS):
                break
            fixed.append(part)
        base = source.joinpath(*fixed)
        files = lister(source, endings, what)
    if not files:
        raise ConversionError(
            f"{option}: no files ending in {', '.join(endings)} found for {source / what}; "
            "the folder may be wrong, or the files may be of a kind this layout does not take"
        )
    has_wildcards = any(sign in what for sign in _WILDCARDS)
    return Selection(base, tuple(files), has_wildcards and not any(sign in Path(what).name for sign in _WILDCARDS))


def compile_pattern(pattern: str | None, option: str) -> re.Pattern[str] | None:
    """The user's regular expression.  Raises ConversionError where it is none."""
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConversionError(f'{option}: "{pattern}" is no regular expression ({error})') from error


def apply_pattern(pattern: re.Pattern[str], path: Path, source: Path) -> str | None:
    """What the pattern finds in the path below the source ("/" between folders): its groups, or all of it."""
    match = pattern.search(path.relative_to(source).as_posix() if path.is_relative_to(source) else path.as_posix())
    if match is None:
        return None
    return "_".join(group for group in match.groups() if group) or match.group(0)


def keys_of(
    selection: Selection, endings: tuple[str, ...], pattern: re.Pattern[str] | None, source: Path, kind: str
) -> tuple[dict[str, Path], list[Finding]]:
    """Key -> file.  The key is what images and masks are matched by: the pattern's find, else the path without ending.

    Where every file has the same name (case1/image.nii.gz, case2/image.nii.gz), the folder is the key.  "_image" and
    nnU-Net's "_0000" at the end of all images' names do not count.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    findings = []
    stems = {stem_of(path, endings) for path in selection.files}
    by_folder = len(stems) == 1 and (len(selection.files) > 1 or selection.one_name)
    for path in selection.files:
        if pattern is not None:
            key = apply_pattern(pattern, path, source)
            if key is None:
                findings.append(Finding("error", f"{kind} file does not match the pattern for its key", case=str(path)))
                continue
        else:
            folder = path.relative_to(selection.base).parent
            key = folder.as_posix() if by_folder else (folder / stem_of(path, endings)).as_posix()
        found[key].append(path)
    for key, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(str(path.relative_to(selection.base)) for path in paths[:3])
            findings.append(
                Finding("error", f"several {kind} files for one case (same name but for the ending?)", names, key)
            )
    keys = {key: paths[0] for key, paths in found.items()}
    if kind == "image" and pattern is None and all(IMAGE_SUFFIX.search(key) for key in keys):
        short = {IMAGE_SUFFIX.sub("", key): path for key, path in keys.items()}
        keys = short if len(short) == len(keys) else keys
    return keys, findings


def match_masks(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Image key -> mask, and the masks that no image was found for.

    A mask belongs to the image of the same key; else to the one whose key it has but for "_mask", "_seg" and the like;
    else to the one of that file name in another folder, where that is unambiguous.
    """
    ways: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
        (str, str),
        (str, _without_suffix),
        (_last, lambda key: _last(_without_suffix(key))),
    )
    matched: dict[str, str] = {}
    for of_image, of_mask in ways:
        taken = set(matched.values())
        by_image = _group((key for key in images if key not in matched), of_image)
        by_mask = _group((key for key in masks if key not in taken), of_mask)
        for name, keys in by_image.items():
            if len(keys) == 1 and len(by_mask.get(name, ())) == 1:
                matched[keys[0]] = by_mask[name][0]
    taken = set(matched.values())
    return {key: masks[mask] for key, mask in matched.items()}, [key for key in masks if key not in taken]


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _without_suffix(key: str) -> str:
    return MASK_SUFFIX.sub("", key)


def _group(keys: Iterable[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[name_of(key)].append(key)
    return groups


def case_name(key: str) -> str:
    """A key as nnU-Net's case identifier: letters (of any script), digits, "-" and "_"."""
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", key)).strip("_")
    return name or "case"


def name_cases(keys: Iterable[tuple[str, str]]) -> tuple[dict[tuple[str, str], str], list[Finding]]:
    """(part, key) -> case name; findings for names that were changed and for those that would collide.

    Names that differ in upper and lower case only collide too: on macOS and Windows they are one file.
    """
    names = {key: case_name(key[1]) for key in keys}
    findings = []
    twice: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, name in names.items():
        twice[name.casefold()].append(key)
    for group in twice.values():
        if len(group) < 2:
            continue
        if len({part for part, _ in group}) == len(group):  # the same names in train and in test: told apart by part
            for pair in group:
                names[pair] = f"{pair[0]}_{case_name(pair[1])}"
        else:
            shown = " and ".join(key for _, key in group[:_SHOWN])
            findings.append(
                Finding("error", "several files would become one case; rename them", shown, case_name(group[0][1]))
            )
    changed = [f"{key} -> {names[part, key]}" for part, key in names if names[part, key] != key]
    if changed:
        topic = f"{len(changed)} case names differ from the file names (conversion.json lists all)"
        findings.append(Finding("note", topic, f"for example {changed[0]}"))
    return names, findings
