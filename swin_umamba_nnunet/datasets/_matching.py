"""Cases from files that only a user can explain: which are images, which masks, which belong together."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._files import Lister, Selection
from swin_umamba_nnunet.datasets._keys import advise_keys, apply_pattern, compile_pattern, keys_of, match_masks
from swin_umamba_nnunet.datasets._model import Case, ConversionError, Finding, Part
from swin_umamba_nnunet.datasets._names import name_cases
from swin_umamba_nnunet.datasets._splits import hold_out, judge_groups

DEFAULT_FOLDS = 5  # nnU-Net's own number


@dataclass(frozen=True)
class Match:
    """Which files, and what belongs together.  Folders and patterns are relative to the source.

    Attributes:
        images: folder or glob pattern of images, one per channel; empty: look for folders of the usual names.
        channels: names of the channels; empty: one channel (or R, G, B).
        masks: folder or pattern of masks; "": the usual names.
        test_images: as `images`, for cases to hold out; empty: what the source's own `test` folder has, if any.
        test_masks: their masks.
        image_key: regular expression whose groups (or match) in an image's path are the case's name.
        mask_key: the same for masks; "": `image_key`.
        group: regular expression whose groups (or match) in an image's path name the patient.
        val_as: what becomes of a source's own validation folder.
    """

    images: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    masks: str = ""
    test_images: tuple[str, ...] = ()
    test_masks: str = ""
    image_key: str | None = None
    mask_key: str | None = None
    group: str | None = None
    val_as: Literal["fold0", "test"] = "fold0"


def build_cases(
    source: Path, match: Match, endings: tuple[str, ...], lister: Lister = _files.list_files
) -> tuple[tuple[Case, ...], list[Finding]]:
    """The cases that a match finds below `source`, and what was noticed.

    Args:
        source: the folder.
        match: what to look for.
        endings: of the files that count.
        lister: (folder, endings, pattern) -> the files, or folders that stand for a file.

    Raises:
        ConversionError: nothing is found, or a setting does not fit.
    """
    if match.masks and not match.images:
        raise ConversionError("--masks is given without --images; give both, or none to have the folders looked for")
    if match.test_masks and not match.test_images:
        raise ConversionError("--test-masks is given without --test-images")
    parts = _asked(source, match, endings, lister) if match.images else _looked_for(source, endings, lister)
    image_key = compile_pattern(match.image_key, "--image-key")
    mask_key = compile_pattern(match.mask_key, "--mask-key") or image_key
    found: dict[tuple[str, str], tuple[tuple[Path, ...], Path | None, Part]] = {}
    findings: list[Finding] = []
    for part, (channels, masks) in parts.items():
        by_channel = []
        for selection in channels:
            keys, noticed = keys_of(selection, endings, image_key, source, "image")
            by_channel.append(keys)
            findings += noticed
        mask_files, noticed = keys_of(masks, endings, mask_key, source, "mask") if masks else ({}, [])
        findings += noticed
        labels, spare = match_masks(by_channel[0], mask_files)
        findings += [Finding("warning", "mask without an image was left out", str(mask_files[key])) for key in spare]
        alone = [path for key, path in by_channel[0].items() if key not in labels]
        if alone and spare and image_key is None:
            findings.append(advise_keys(alone, [mask_files[key] for key in spare], source))
        for key in dict.fromkeys(key for keys in by_channel for key in keys):
            paths = tuple(keys[key] for keys in by_channel if key in keys)
            if len(paths) < len(by_channel):
                missing = [name for name, keys in zip(match.channels, by_channel) if key not in keys]
                findings.append(Finding("error", f"a channel is missing: {', '.join(missing)}", str(paths[0]), key))
            found[part, key] = (paths, labels.get(key), part)
    names, noticed = name_cases(found)
    findings += noticed
    cases = [Case(names[key], *value) for key, value in found.items()]
    if not cases:
        raise ConversionError(f"no images were found in {source}")
    if match.val_as == "test":
        cases = [replace(case, part="test") if case.part == "val" else case for case in cases]
    cases, noticed = _grouped(cases, match.group, source)
    return tuple(sorted(cases, key=lambda case: case.name)), [*findings, *noticed]


Parts = dict[Part, tuple[tuple[Selection, ...], Selection | None]]


def _asked(source: Path, match: Match, endings: tuple[str, ...], lister: Lister) -> Parts:
    images = tuple(_files.select(source, each, endings, "--images", lister) for each in match.images)
    masks = _files.select(source, match.masks, endings, "--masks", lister) if match.masks else None
    if masks is not None:
        both = set(masks.files)
        if any(both.issuperset(selection.files) for selection in images):
            raise ConversionError("--images and --masks stand for the same files; give patterns that tell them apart")
        # "--images '*' --masks '*_mask.png'": what is a mask is no image
        images = tuple(replace(each, files=tuple(p for p in each.files if p not in both)) for each in images)
    parts: Parts = {"train": (images, masks)}
    if match.test_images:
        if len(match.test_images) != len(match.images):
            raise ConversionError(
                f"--test-images is given {len(match.test_images)} times and --images {len(match.images)} times"
            )
        test_images = tuple(_files.select(source, each, endings, "--test-images", lister) for each in match.test_images)
        test_masks = (
            _files.select(source, match.test_masks, endings, "--test-masks", lister) if match.test_masks else None
        )
        parts["test"] = (test_images, test_masks)
    return parts


def _looked_for(source: Path, endings: tuple[str, ...], lister: Lister) -> Parts:
    found = _files.find_parts(source)
    if not found or not any(folders.masks for folders in found.values()):
        raise ConversionError(
            f"{source} has no folders images and masks (nor train/images, train/masks and so on); "
            "say where they are with --images and --masks"
        )
    parts: Parts = {}
    for part, folders in found.items():
        images = Selection(folders.images, tuple(lister(folders.images, endings, _files.EVERYTHING)))
        masks = (
            Selection(folders.masks, tuple(lister(folders.masks, endings, _files.EVERYTHING)))
            if folders.masks
            else None
        )
        parts[part] = ((images,), masks)  # type: ignore[index]
    return parts


def _grouped(cases: list[Case], pattern: str | None, source: Path) -> tuple[list[Case], list[Finding]]:
    compiled = compile_pattern(pattern, "--group-pattern")
    if compiled is None:
        return cases, []
    grouped, findings = [], []
    for case in cases:
        group = apply_pattern(compiled, case.images[0], source)
        if group is None:
            findings.append(Finding("error", "image does not match --group-pattern", str(case.images[0]), case.name))
        grouped.append(replace(case, group=group))
    return grouped, findings + judge_groups(grouped)


def cases_from_parts(
    cases: tuple[Case, ...], test_fraction: float, folds: int, seed: int
) -> tuple[tuple[Case, ...], int]:
    """Hold out a share for testing if asked, and say how many folds to write: five where there are groups."""
    if test_fraction:
        cases = hold_out(cases, test_fraction, seed)
    if not folds and any(case.group is not None for case in cases):
        groups = {case.group for case in cases if case.part != "test"}
        folds = min(DEFAULT_FOLDS, len(groups)) if len(groups) > 1 else DEFAULT_FOLDS
    return cases, folds
