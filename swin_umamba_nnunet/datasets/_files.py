"""Finding files in what people download, and what tells which of them belong together.

Hidden files and folders (.DS_Store, ._image.png, __MACOSX) are never looked at; endings match in upper and lower case.
"""

import os
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from swin_umamba_nnunet.datasets._model import ConversionError, Findings, Part

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr", "input")
OBSERVER = ("1st_manual",)  # DRIVE's masks; its folders "mask" hold the fields of view, which are no labels
MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "segmentations",
    "segmentation",
    "annotations",
    "groundtruth",
    "gt",
    "labelstr",
)
PART_FOLDERS: Mapping[Part, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
EVERYTHING = "**/*"
MASK_SUFFIX = re.compile(r"[ _.-](mask|masks|seg|segmentation|label|labels|gt|annotation|groundtruth)$", re.IGNORECASE)
IMAGE_SUFFIX = re.compile(r"[ _.-](image|img|0000)$", re.IGNORECASE)
_HIDDEN = re.compile(r"\.|__MACOSX$")
_WILDCARD = re.compile(r"[*?\[]")

# What may name a case in a path, tried in this order: BIDS's entities, all but the last part of the name, its first
# part, its first number, the folder.
_PATTERNS = (
    r"sub-[^_/]+",
    r"sub-[^_/]+_ses-[^_/]+",
    r"([^/]+)_[^_/]*$",
    r"([^_/]+)_[^/]*$",
    r"(\d+)[^/]*$",
    r"([^/]+)/[^/]+$",
)


def ending_of(path: Path, endings: Iterable[str]) -> str:
    """The ending (as it is in `endings`) of a file's name, upper or lower case; "" where it has none of them."""
    return max((ending for ending in endings if path.name.lower().endswith(ending)), key=len, default="")


def stem_of(path: Path, endings: Iterable[str]) -> str:
    """The file's name without its ending."""
    return path.name[: len(path.name) - len(ending_of(path, endings))]


def entries(base: Path, pattern: str) -> list[Path]:
    """What below `base` the pattern stands for, sorted, nothing that is or lies in something hidden.

    A pattern of whatever depth ("**/...") goes into folders that are links too, but not twice into one place.

    Raises:
        ConversionError: it is no pattern.
    """
    folders, places = [base], {base.resolve()}
    for folder in folders if pattern.startswith("**/") else ():
        below = (Path(parent, name) for parent, names, _ in os.walk(folder) for name in names)
        links = [(link.resolve(), link) for link in below if link.is_symlink() and not _is_hidden(link, base)]
        for place, link in sorted(links):  # of two places, one in the other, the outer one first
            if places.isdisjoint((place, *place.parents)) and not base.resolve().is_relative_to(place):
                folders.append(link)
                places.add(place)
    try:
        found = sorted({path for folder in folders for path in folder.glob(pattern)})
    except (ValueError, NotImplementedError) as error:
        raise ConversionError(
            f'the pattern "{pattern}" is not understood ({error}); write for example "*/image.png"'
        ) from error
    return [path for path in found if not _is_hidden(path, base)]


def _is_hidden(path: Path, base: Path) -> bool:
    return any(map(_HIDDEN.match, path.relative_to(base).parts))


def list_files(base: Path, endings: tuple[str, ...], pattern: str = EVERYTHING) -> list[Path]:
    """Files below `base` with one of the endings, sorted, nothing hidden; links that lead nowhere too, to be told."""
    return [path for path in entries(base, pattern) if ending_of(path, endings) and not path.is_dir()]


def subfolder(folder: Path, names: Iterable[str]) -> Path | None:
    """The subfolder with one of these names, upper or lower case; the first name counts most."""
    if not folder.is_dir():
        return None
    present = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


def inner(folder: Path, name: str) -> Path:
    """The folder of that name in `folder`, into which unpacking often puts it once more; else `folder`."""
    return folder / name if (folder / name).is_dir() else folder


class PartFolders(NamedTuple):
    """Where one part's images and masks lie; `masks` is None where there are none."""

    images: Path
    masks: Path | None


def find_parts(source: Path) -> dict[Part, PartFolders]:
    """Folders of each part, for `train/images`, for `images/train` and for `images` alone.

    Empty where the source has no such folders.
    """
    parts: dict[Part, PartFolders] = {}
    masks = OBSERVER if list(source.glob(f"*/{OBSERVER[0]}")) else MASK_FOLDERS
    for part, names in PART_FOLDERS.items():
        inside = subfolder(source, names)
        if inside and (images := subfolder(inside, IMAGE_FOLDERS)):
            parts[part] = PartFolders(images, subfolder(inside, masks))
    all_images, all_masks = subfolder(source, IMAGE_FOLDERS), subfolder(source, MASK_FOLDERS)
    if parts or all_images is None:
        return parts
    for part, names in PART_FOLDERS.items():
        if images := subfolder(all_images, names):
            parts[part] = PartFolders(images, subfolder(all_masks, names) if all_masks else None)
    return parts or {"train": PartFolders(all_images, all_masks)}


class Selection(NamedTuple):
    """Files of one kind.

    Attributes:
        source: the folder that patterns are relative to.
        base: the folder that keys made of paths are relative to.
        files: sorted.
        endings: what does not belong to a file's name.
        one_name: the user gave one name for all, as in "*/image.nii.gz".
    """

    source: Path
    base: Path
    files: Collection[Path]
    endings: tuple[str, ...]
    one_name: bool = False


Lister = Callable[[Path, tuple[str, ...], str], list[Path]]


def everything(source: Path, folder: Path, endings: tuple[str, ...], lister: Lister = list_files) -> Selection:
    """All files below a folder of the source."""
    return Selection(source, folder, lister(folder, endings, EVERYTHING), endings)


def select(source: Path, what: str, endings: tuple[str, ...], option: str, lister: Lister = list_files) -> Selection:
    """The files a folder name or a glob pattern (relative to `source`) stands for.

    Raises:
        ConversionError: there are none.
    """
    path = Path(what)
    base = source.joinpath(*takewhile(lambda part: not _WILDCARD.search(part), path.parts))
    wild = _WILDCARD.search(what)
    if wild and (path.is_absolute() or ".." in path.parts):
        raise ConversionError(f'{option}: the pattern "{what}" must be relative to {source} and stay inside it')
    if not wild and not base.is_dir():
        raise ConversionError(
            f"{option}: the folder {base} does not exist; give a folder or a pattern such as '*/img.png'"
        )
    files = lister(source, endings, what) if wild else lister(base, endings, EVERYTHING)
    if not files:
        raise ConversionError(
            f"{option}: no files ending in {', '.join(endings)} found for {source / what}; "
            "the folder may be wrong, or the files may be of a kind this layout does not take"
        )
    return Selection(source, base, files, endings, bool(wild) and not _WILDCARD.search(path.name))


def compile_pattern(pattern: str | None, option: str) -> re.Pattern[str] | None:
    """The user's regular expression.  Raises ConversionError where it is none."""
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ConversionError(f'{option}: "{pattern}" is no regular expression ({error})') from error


def apply_pattern(pattern: str | re.Pattern[str], path: Path, source: Path) -> str | None:
    """What the pattern finds in the path below the source ("/" between folders): its groups, or all of it."""
    match = re.search(pattern, (path.relative_to(source) if path.is_relative_to(source) else path).as_posix())
    return match and ("_".join(filter(None, match.groups())) or match.group(0))


def keys_of(selection: Selection, pattern: re.Pattern[str] | None, kind: str, findings: Findings) -> dict[str, Path]:
    """Key -> file.  The key is what images and masks are matched by: the pattern's find, else the path without ending.

    Where every file has the same name (case1/image.nii.gz, case2/image.nii.gz), the folder is the key.  "_image" and
    nnU-Net's "_0000" at the end of all images' names do not count.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    stems = {stem_of(path, selection.endings) for path in selection.files}
    by_folder = len(stems) == 1 and (len(selection.files) > 1 or selection.one_name)
    for path in selection.files:
        folder = path.relative_to(selection.base).parent
        key: str | None = (folder if by_folder else folder / stem_of(path, selection.endings)).as_posix()
        if pattern is not None:
            key = apply_pattern(pattern, path, selection.source)
        if key is None:
            findings.error(f"{kind} file does not match the pattern for its key", case=str(path))
        else:
            found[unicodedata.normalize("NFC", key)].append(path)  # macOS parts letters and accents
    for key, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(str(path.relative_to(selection.base)) for path in paths[:3])
            findings.error(f"several {kind} files for one case (same name but for the ending?)", names, key)
    keys = {key: paths[0] for key, paths in found.items()}
    if kind == "image" and pattern is None and all(IMAGE_SUFFIX.search(key) for key in keys):
        short = {IMAGE_SUFFIX.sub("", key): path for key, path in keys.items()}
        keys = short if len(short) == len(keys) else keys
    return keys


def find_masks(
    images: Mapping[str, Path],
    masks: Selection | None,
    pattern: re.Pattern[str] | None,
    findings: Findings,
    advise: bool = False,
) -> dict[str, Path]:
    """Image key -> mask; masks that no image was found for are reported, and with `advise` what would find them."""
    if masks is None:
        return {}
    keys = keys_of(masks, pattern, "mask", findings)
    matched, spare = match_masks(images, keys)
    for key in spare:
        findings.warning("mask without an image was left out", str(keys[key]))
    alone = [path for key, path in images.items() if key not in matched]
    if alone and spare and advise:
        advise_keys(alone, [keys[key] for key in spare], masks.source, findings)
    return matched


def match_masks(images: Mapping[str, Path], masks: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Image key -> mask, and the masks that no image was found for.

    A mask belongs to the image of the same key; else to the one whose key it has but for "_mask", "_seg" and the like;
    else to the one of that file name in another folder, where that is unambiguous.
    """
    matched: dict[str, str] = {}

    def bare(key: str) -> str:
        return MASK_SUFFIX.sub("", key)

    def last(key: str) -> str:
        return key.rpartition("/")[2]

    for of_image, of_mask in ((str, str), (str, bare), (last, lambda key: last(bare(key)))):
        names = {key: of_image(key) for key in images.keys() - matched.keys()}
        free = masks.keys() - set(matched.values())
        by_name = {of_mask(key): key for key in free}
        of_images, of_masks = Counter(names.values()), Counter(map(of_mask, free))
        matched |= {key: by_name[name] for key, name in names.items() if of_images[name] == of_masks[name] == 1}
    taken = set(matched.values())
    return {key: masks[mask] for key, mask in matched.items()}, [key for key in masks if key not in taken]


def advise_keys(images: Sequence[Path], masks: Sequence[Path], source: Path, findings: Findings) -> None:
    """Say how to tell which mask belongs to which image, where names such as sub-01_T1w and sub-01_dseg did not.

    Args:
        images: without a mask.
        masks: without an image.
        source: the folder that patterns are relative to.
        findings: where to say it.
    """
    advice = "say what in a path names the case with --image-key REGEX (and --mask-key REGEX, if masks need another)"
    for pattern in _PATTERNS:
        of_images, of_masks = ([apply_pattern(pattern, path, source) for path in paths] for paths in (images, masks))
        if None not in of_images and Counter(of_images) == Counter(of_masks) == Counter(set(of_images)):
            advice = f"this matches them:   --image-key {shlex.quote(pattern)}"
            break
    topic = f"images and masks are not matched by their names; {advice}"
    findings.warning(topic, f"for example {images[0].name} and {masks[0].name}")


def case_name(key: str) -> str:
    """A key as nnU-Net's case identifier: letters (of any script), digits, "-" and "_"."""
    return re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", key)).strip("_") or "case"


def name_cases(keys: Iterable[tuple[Part, str]], findings: Findings) -> dict[tuple[Part, str], str]:
    """(part, key) -> case name; findings for names that were changed and for those that would collide.

    Names that differ in upper and lower case only collide too: on macOS and Windows they are one file.
    """
    names = {key: case_name(key[1]) for key in keys}
    twice = defaultdict(list)
    for key, name in names.items():
        twice[name.casefold()].append(key)
    for group in twice.values():
        if len({part for part, _ in group}) == len(group) > 1:  # in train and in test: told apart by part
            names |= {(part, key): f"{part}_{case_name(key)}" for part, key in group}
        elif len(group) > 1:
            shown = " and ".join(key for _, key in group[:5])
            findings.error("several files would become one case; rename them", shown, case_name(group[0][1]))
    changed = [f"{key} -> {names[part, key]}" for part, key in names if names[part, key] != key]
    if changed:
        topic = f"{len(changed)} case names differ from the file names (conversion.json lists all)"
        findings.note(topic, f"for example {changed[0]}")
    return names
