"""Any folder of 2D images and masks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._labels import LabelRule, check_entries
from swin_umamba_nnunet.datasets._matching import Match, build_cases, cases_from_parts
from swin_umamba_nnunet.datasets._model import Plan
from swin_umamba_nnunet.datasets._picture_cases import PictureCases
from swin_umamba_nnunet.datasets._pictures import PICTURE_ENDINGS


@dataclass(frozen=True)
class ImageSettings:
    """What the user says about the images; see `swin-umamba convert images --help`.

    Attributes:
        match: which files are images and masks, how they are matched and grouped.
        labels: how mask values become labels.
        channels: make all images alike.
        exif: see `PictureCases`.
        test_fraction: hold out this share of the groups (or cases) as imagesTs and labelsTs; 0 for none.
        folds: of a written splits_final.json; 0 for none, unless there are groups (then 5).
        seed: of the random splits.
    """

    match: Match = Match()
    labels: LabelRule = LabelRule()
    channels: Literal["rgb", "grey"] | None = None
    exif: Literal["apply", "ignore"] | None = None
    test_fraction: float = 0.0
    folds: int = 0
    seed: int = 12345


def plan_images(source: Path, settings: ImageSettings = ImageSettings()) -> Plan:
    """List the cases of a folder of images and masks.

    Raises:
        ConversionError: no images are found, or a setting does not fit.
    """
    source = _files.check_source(source)
    check_entries(settings.labels.entries)
    cases, findings = build_cases(source, settings.match, PICTURE_ENDINGS)
    cases, folds = cases_from_parts(cases, settings.test_fraction, settings.folds, settings.seed)
    return Plan(
        layout="images",
        source=source,
        cases=cases,
        handler=PictureCases(channels=settings.channels, exif=settings.exif),
        labels=settings.labels,
        description=f"2D images and masks of {source.name}.",
        findings=tuple(findings),
        folds=folds,
        seed=settings.seed,
    )
