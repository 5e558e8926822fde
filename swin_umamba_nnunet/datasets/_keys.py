"""Keys: what tells which mask belongs to which image, and which channels belong together."""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from swin_umamba_nnunet.datasets._files import Selection, stem_of
from swin_umamba_nnunet.datasets._model import ConversionError, Finding

MASK_SUFFIX = re.compile(r"[ _.-](mask|masks|seg|segmentation|label|labels|gt|annotation|groundtruth)$", re.IGNORECASE)
IMAGE_SUFFIX = re.compile(r"[ _.-](image|img|0000)$", re.IGNORECASE)

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
_UNMATCHED = "images and masks are not matched by their names"


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


def advise_keys(images: Sequence[Path], masks: Sequence[Path], source: Path) -> Finding:
    """How to tell which mask belongs to which image, where names such as sub-01_T1w and sub-01_dseg did not.

    Args:
        images: without a mask.
        masks: without an image.
        source: the folder that patterns are relative to.
    """
    detail = f"for example {images[0].name} and {masks[0].name}"
    for pattern in _PATTERNS:
        keys = [[apply_pattern(re.compile(pattern), path, source) for path in paths] for paths in (images, masks)]
        if None not in keys[0] and len(set(keys[0])) == len(images) and sorted(map(str, keys[0])) == sorted(
            map(str, keys[1])
        ):
            return Finding("warning", f"{_UNMATCHED}; this matches them:   --image-key {shlex.quote(pattern)}", detail)
    return Finding(
        "warning",
        f"{_UNMATCHED}; say what in a path names the case with --image-key REGEX (and --mask-key REGEX, if masks need "
        "another)",
        detail,
    )


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _without_suffix(key: str) -> str:
    return MASK_SUFFIX.sub("", key)


def _group(keys: Iterable[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[name_of(key)].append(key)
    return groups
