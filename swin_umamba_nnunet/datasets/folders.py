"""Any folder of images and masks: 2D pictures, or volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._files import Lister, Selection
from swin_umamba_nnunet.datasets._model import (
    DEFAULT_FOLDS,
    INSTANCE_LABELS,
    VOLUME_ENDING,
    Conversion,
    ConversionError,
    Findings,
    LabelError,
    LabelRule,
    Layout,
    Part,
    SourceCase,
    check_entries,
    option,
    parse_label,
)

_Parts = dict[Part, tuple[list[Selection], Selection | None]]
_FILES = "which files (folders and patterns are relative to SOURCE; quote patterns)"


def validation_option(group: str = "") -> Literal["fold0", "test"]:
    """The option of layouts with a validation folder of their own."""
    text = "validation images become the validation set of fold 0 (default), or the test set (imagesTs, labelsTs)"
    return option(text, "fold0", group, choices=("fold0", "test"))


@dataclass(frozen=True)
class Folders(Layout):
    """What `Images` and `Volumes` share: which files are images and masks, and which belong together."""

    endings: ClassVar[tuple[str, ...]]

    images: Sequence[str] = option(
        "the images; for volumes of several channels once each, as NAME=PATTERN", (), _FILES, metavar="FOLDER|PATTERN"
    )
    masks: str = option("their masks", "", _FILES, metavar="FOLDER|PATTERN")
    test_images: Sequence[str] = option("images to hold out", (), _FILES, metavar="FOLDER|PATTERN")
    test_masks: str = option("their masks, if there are any", "", _FILES, metavar="FOLDER|PATTERN")
    image_key: str | None = option(
        "what in an image's path names the case: the expression's groups, or all it matches (default: the path without "
        "ending)",
        None,
        _FILES,
        metavar="REGEX",
    )
    mask_key: str | None = option("the same for masks (default: as --image-key)", None, _FILES, metavar="REGEX")
    label: Sequence[str] = option(
        "what a mask value stands for, once per label: NAME=255, NAME='#ff0000' or NAME=255,0,0; the name background "
        "becomes 0, ignore is left out of training",
        (),
        "labels",
        metavar="NAME=VALUE",
    )
    others_are_background: bool = option(
        "mask values without a --label become background instead of being an error",
        False,
        "labels",
        action="store_true",
    )
    group_pattern: str | None = option(
        "what in an image's path names the patient, for example '(P\\d+)_' (the expression's groups, all of them): one "
        "patient's images never come apart, neither in folds nor in the test set; five folds are written",
        None,
        "splits",
        metavar="REGEX",
    )
    test_fraction: float = option(
        "hold out this share of the groups (or cases) as imagesTs and labelsTs, for example 0.2",
        0.0,
        "splits",
        type=float,
        metavar="F",
    )
    folds: int = option("write so many folds (nnU-Net draws 5 itself)", 0, "splits", type=int, metavar="K")
    seed: int = option("of the random splits (default: %(default)s)", 12345, "splits", type=int)
    val_as: Literal["fold0", "test"] = validation_option("splits")

    def _found(self, source: Path, lister: Lister, threshold: int | None = None, **how: Any) -> Conversion:
        """The conversion of what the options stand for; `how` has the rest of its attributes."""
        from swin_umamba_nnunet.datasets._splits import hold_out, judge_groups

        entries = tuple(parse_label(text) for text in self.label)
        check_entries(entries)
        if self.others_are_background and not entries:
            raise LabelError("--others-are-background needs at least one --label NAME=VALUE")
        if threshold is not None and len([entry for entry in entries if entry.name != "background"]) > 1:
            raise LabelError(
                "--threshold makes two labels, background and one more; leave out the other --label options"
            )
        if threshold is not None and threshold < 0:
            raise LabelError(
                f"--threshold {threshold}: give the highest mask value that is background, for example 127"
            )
        if not 0 <= self.seed < 1 << 32:
            raise ConversionError(f"--seed {self.seed}: give a whole number from 0 to {(1 << 32) - 1}")
        findings = Findings()
        cases = self._cases(source, lister, findings)
        if self.folds and any(case.part == "val" for case in cases):
            raise ConversionError(
                f"--folds {self.folds}: the source has validation images, which make fold 0 and no other; leave "
                "--folds out, or hold them out with --val-as test"
            )
        judge_groups(cases, findings)
        if self.group_pattern and len({case.group for case in cases}) == len(cases):
            findings.note("every group is a single case: does --group-pattern name the patient?")
        if self.test_fraction:
            cases = hold_out(cases, self.test_fraction, self.seed)
        folds, groups = self.folds, {case.group for case in cases if case.part != "test"} - {None}
        if not folds and groups:  # of a single group none can be made, which is said when it is tried
            folds = min(DEFAULT_FOLDS, len(groups)) if len(groups) > 1 else DEFAULT_FOLDS
        rule = LabelRule(entries, threshold, merge_into_background=self.others_are_background)
        return Conversion(self.name, source, cases, labels=rule, findings=findings, folds=folds, seed=self.seed, **how)

    def _named(self, values: Sequence[str], given: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of channels, where there are any, and a pattern for each."""
        if len(values) > 1:
            raise ConversionError(f"{given} is given several times: 2D images have their channels in one file")
        return (), tuple(values)

    def _parts(self, source: Path, lister: Lister, images: Sequence[str], test_images: Sequence[str]) -> _Parts:
        """The images of each part, a selection per channel, and the masks."""
        parts: _Parts = {}
        if self.masks and not self.images:
            raise ConversionError(
                "--masks is given without --images; give both, or none to have the folders looked for"
            )
        if self.test_masks and not self.test_images:
            raise ConversionError("--test-masks is given without --test-images")
        if not self.images:
            for part, folders in _files.find_parts(source).items():
                masks = _files.everything(source, folders.masks, self.endings, lister) if folders.masks else None
                parts[part] = [_files.everything(source, folders.images, self.endings, lister)], masks
            if not any(masks for _, masks in parts.values()):
                raise ConversionError(
                    f"{source} has no folders images and masks (nor train/images, train/masks and so on); "
                    "say where they are with --images and --masks"
                )
        asked: tuple[tuple[Part, str, Sequence[str], str], ...]
        asked = ("train", "--", images, self.masks), ("test", "--test-", test_images, self.test_masks)
        for part, dashes, patterns, mask_pattern in asked:
            chosen = [_files.select(source, each, self.endings, f"{dashes}images", lister) for each in patterns]
            masks = None
            if mask_pattern:
                masks = _files.select(source, mask_pattern, self.endings, f"{dashes}masks", lister)
                both = set(masks.files)
                if any(both.issuperset(each.files) for each in chosen):
                    raise ConversionError(
                        f"{dashes}images and {dashes}masks stand for the same files; give patterns that tell them apart"
                    )
                # "--images '*' --masks '*_mask.png'": what is a mask is no image
                chosen = [each._replace(files=[path for path in each.files if path not in both]) for each in chosen]
            if chosen:
                parts[part] = chosen, masks
        return parts

    def _cases(self, source: Path, lister: Lister, findings: Findings) -> list[SourceCase]:
        """The cases.

        Raises:
            ConversionError: nothing is found, or an option does not fit.
        """
        names, images = self._named(self.images, "--images")
        test_names, test_images = self._named(self.test_images, "--test-images")
        if self.test_images and test_names != names:
            raise ConversionError(
                f"--test-images names the channels {test_names or 'not'}, and --images {names or 'not'}; name the same"
            )
        parts = self._parts(source, lister, images, test_images)
        image_key = _files.compile_pattern(self.image_key, "--image-key")
        mask_key = _files.compile_pattern(self.mask_key, "--mask-key") or image_key
        group_key = _files.compile_pattern(self.group_pattern, "--group-pattern")
        found: dict[tuple[Part, str], tuple[tuple[Path, ...], Path | None]] = {}
        for part, (channels, masks) in parts.items():
            by_channel = [_files.keys_of(each, image_key, "image", findings) for each in channels]
            labels = _files.find_masks(by_channel[0], masks, mask_key, findings, not image_key)
            for key in dict.fromkeys(key for keys in by_channel for key in keys):
                paths = tuple(keys[key] for keys in by_channel if key in keys)
                missing = ", ".join(name for name, keys in zip(names, by_channel) if key not in keys)
                if missing:
                    findings.error(f"a channel is missing: {missing}", str(paths[0]), key)
                found[part, key] = paths, labels.get(key)
        if not found:
            raise ConversionError(f"no images were found in {source}")
        case_names = _files.name_cases(found, findings)
        cases = []
        for (part, key), (paths, label) in found.items():
            group = _files.apply_pattern(group_key, paths[0], source) if group_key else None
            if group_key and group is None:
                findings.error("image does not match --group-pattern", str(paths[0]), case_names[part, key])
            part_of_case: Part = "test" if part == "val" and self.val_as == "test" else part
            cases.append(SourceCase(case_names[part, key], paths, label, part_of_case, group))
        return cases


@dataclass(frozen=True)
class Images(Folders):
    """Any folder of 2D images and masks."""

    name = "images"
    summary = "any folder of 2D images and masks"
    text = """\
2D images and masks: PNG, JPEG, BMP, GIF, TIFF; grey, colour, 16 bit, with alpha or palette.  SOURCE holds folders named

    images and masks     or     train/images, train/masks, val/..., test/...     or     images/train, masks/train, ...

and an image's mask has its name, or its name with _mask, _seg, _label, ... at the end.  Otherwise say where they are:

    --images 'photos/*.jpg' --masks 'annotations/*_lesion.png' --mask-key 'annotations/(.*)_lesion'

Mask values 0/255, 0/1 and 0, 1, 2, ... are understood; name others, once per label and in the order you want:

    --label background='#000000' --label tumour='#ff0000' --label stroma='#00ff00' --label ignore='#ffffff'
"""
    endings = _files.PICTURE_ENDINGS

    channels: Literal["rgb", "grey"] | None = option(
        "make all images three-channel or one-channel", choices=("rgb", "grey")
    )
    exif: Literal["apply", "ignore"] | None = option(
        "images that a camera marked as turned: turn them (the masks were drawn on what a viewer shows), or take them "
        "as stored; asked for only where there are such marks",
        choices=("apply", "ignore"),
    )
    threshold: int | None = option(
        "two labels: mask values above VALUE are foreground; for JPEG masks, say 127", type=int, metavar="VALUE"
    )

    instances: bool = option(
        "every value or colour of a mask but 0 is one object (a nucleus, a cell): makes the labels interior and "
        "boundary (one pixel wide), and keeps the masks in instancesTr and instancesTs for `swin-umamba evaluate`",
        False,
        "labels",
        action="store_true",
    )

    def _conversion(self, source: Path) -> Conversion:
        from swin_umamba_nnunet.datasets._pictures import read_pictures

        if self.instances and (self.label or self.others_are_background or self.threshold is not None):
            raise ConversionError(
                "--instances makes labels of its own, interior and boundary; leave --label, --others-are-background "
                "and --threshold out"
            )
        conversion = self._found(
            source,
            _files.list_files,
            self.threshold,
            read=partial(read_pictures, channels=self.channels, exif=self.exif, instances=self.instances),
            description=f"2D images and masks of {source.name}.",
        )
        return replace(conversion, labels=LabelRule.of(INSTANCE_LABELS)) if self.instances else conversion


@dataclass(frozen=True)
class Volumes(Folders):
    """Volumes with segmentations: DICOM series folders, NIfTI, NRRD, MetaImage."""

    name = "volumes"
    summary = "DICOM series, NIfTI, NRRD, MetaImage with segmentations"
    text = """\
Volumes and segmentations: NIfTI, NRRD, MetaImage, and folders that each hold one DICOM series.  SOURCE holds folders
named images and masks (or labels, ...), as for `convert images`; or say where they are:

    --images '*/image.nii.gz' --masks '*/seg.nii.gz'                             one folder per patient
    --images T1='*/t1.nii.gz' --images T2='*/t2.nii.gz' --masks '*/seg.nii.gz'    several channels
    --images dicom --masks segmentations --modality CT                            dicom/PATIENT/*.dcm

Image and mask must lie at the same place in space; the report says by how many millimetres they do not.
"""
    endings = _files.VOLUME_ENDINGS

    modality: str | None = option(
        "the channel's name, for example MR; CT makes nnU-Net normalise by Hounsfield units", metavar="NAME"
    )
    trust_image_geometry: bool = option(
        "masks of the image's size but at another place in space: take the image's place", False, action="store_true"
    )

    def _conversion(self, source: Path) -> Conversion:
        from swin_umamba_nnunet.datasets._volumes import list_volumes, read_volumes

        channels, _ = self._named(self.images, "--images")
        if channels and self.modality:
            raise ConversionError(
                "--modality names the only channel; with --images NAME=... the names are already given"
            )
        if len(set(channels)) < len(channels):
            raise ConversionError(f"two channels have the same name: {', '.join(channels)}")
        unnamed = not channels and self.modality is None
        moved = "mask was moved to the image's place (--trust-image-geometry)" if self.trust_image_geometry else ""
        return self._found(
            source,
            list_volumes,
            read=partial(read_volumes, moved=moved, guess_ct=unnamed),
            description=f"Volumes and segmentations of {source.name}.",
            channels=channels or (self.modality or "image",),
            ending=VOLUME_ENDING,
            threads=2,  # volumes are large
        )

    def _named(self, values: Sequence[str], given: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        pairs = [value.partition("=") if "=" in value else ("", "", value) for value in values]
        names = tuple(name.strip() for name, _, _ in pairs)
        if not all(names) and (any(names) or len(pairs) > 1):
            raise ConversionError(
                f"{given} is given several times: name every channel, for example {given} T1='*/t1.nii.gz'"
            )
        return tuple(filter(None, names)), tuple(pattern for _, _, pattern in pairs)
