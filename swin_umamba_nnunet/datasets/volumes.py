"""Volumes with segmentations: DICOM series folders, NIfTI, NRRD, MetaImage."""

from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._labels import LabelRule, check_entries
from swin_umamba_nnunet.datasets._matching import Match, build_cases, cases_from_parts
from swin_umamba_nnunet.datasets._model import ConversionError, Plan
from swin_umamba_nnunet.datasets._volumes import UNNAMED, VOLUME_ENDINGS, VolumeCases, list_volumes


@dataclass(frozen=True)
class VolumeSettings:
    """What the user says about the volumes; see `swin-umamba convert volumes --help`.

    Attributes:
        match: which files are images and masks, how they are matched and grouped.
        labels: how mask values become labels.
        modality: the channel's name where `match.channels` names none; "CT" changes nnU-Net's normalisation.
        trust_image: see `VolumeCases`.
        test_fraction: hold out this share of the groups (or cases) as imagesTs and labelsTs; 0 for none.
        folds: of a written splits_final.json; 0 for none, unless there are groups (then 5).
        seed: of the random splits.
    """

    match: Match = Match()
    labels: LabelRule = LabelRule()
    modality: str | None = None
    trust_image: bool = False
    test_fraction: float = 0.0
    folds: int = 0
    seed: int = 12345


def plan_volumes(source: Path, settings: VolumeSettings = VolumeSettings()) -> Plan:
    """List the cases of a folder of volumes and segmentations.

    Raises:
        ConversionError: no volumes are found, or a setting does not fit.
    """
    source = _files.check_source(source)
    check_entries(settings.labels.entries)
    channels = settings.match.channels
    if channels and settings.modality:
        raise ConversionError("--modality names the only channel; with --images NAME=... the names are already given")
    if len(set(channels)) < len(channels):
        raise ConversionError(f"two channels have the same name: {', '.join(channels)}")
    cases, findings = build_cases(source, settings.match, VOLUME_ENDINGS, list_volumes)
    cases, folds = cases_from_parts(cases, settings.test_fraction, settings.folds, settings.seed)
    return Plan(
        layout="volumes",
        source=source,
        cases=cases,
        handler=VolumeCases(channels or (settings.modality or UNNAMED,), settings.trust_image),
        labels=settings.labels,
        description=f"Volumes and segmentations of {source.name}.",
        findings=tuple(findings),
        folds=folds,
        seed=settings.seed,
    )
