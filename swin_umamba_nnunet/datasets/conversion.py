"""Conversion of what people download to nnU-Net raw datasets, as a library.

Every layout has a function that lists the cases of a source (`plan_...`); `inspect` reads them all and judges them,
`format_report` says what was found, and `write_dataset` writes a dataset that nnU-Net's own check accepts.
"""

from swin_umamba_nnunet.datasets._checks import Inspection, inspect
from swin_umamba_nnunet.datasets._integrity import Verdict, check_integrity
from swin_umamba_nnunet.datasets._labels import LabelEntry, LabelError, LabelRule, parse_label
from swin_umamba_nnunet.datasets._matching import Match
from swin_umamba_nnunet.datasets._model import ConversionError, Finding, Plan
from swin_umamba_nnunet.datasets._report import format_report
from swin_umamba_nnunet.datasets._write import check_target, has_folds, install_splits, write_dataset
from swin_umamba_nnunet.datasets.images import ImageSettings, plan_images
from swin_umamba_nnunet.datasets.isic import plan_isic
from swin_umamba_nnunet.datasets.synapse import plan_synapse
from swin_umamba_nnunet.datasets.umamba import PUBLISHED, identify_published, plan_umamba
from swin_umamba_nnunet.datasets.volumes import VolumeSettings, plan_volumes

__all__ = [
    "PUBLISHED",
    "ConversionError",
    "Finding",
    "ImageSettings",
    "Inspection",
    "LabelEntry",
    "LabelError",
    "LabelRule",
    "Match",
    "Plan",
    "Verdict",
    "VolumeSettings",
    "check_integrity",
    "check_target",
    "format_report",
    "has_folds",
    "identify_published",
    "inspect",
    "install_splits",
    "parse_label",
    "plan_images",
    "plan_isic",
    "plan_synapse",
    "plan_umamba",
    "plan_volumes",
    "write_dataset",
]
