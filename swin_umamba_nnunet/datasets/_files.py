"""Finding files in what people download.

Hidden files and folders (.DS_Store, ._image.png, __MACOSX) are never looked at; endings match in upper and lower case.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.datasets._model import ConversionError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr", "input")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "segmentations", "segmentation", "annotations", "groundtruth", "gt", "labelstr",
)  # fmt: skip
PART_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
EVERYTHING = "**/*"
_WILDCARDS = "*?["


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
