"""Metrics on prediction folders: the plain convention, and the conventions of the papers' evaluation scripts.

`evaluate_folders("labelsTs", "predictions", protocol=Plain(labels=["liver=1", "tumour=1,2"]), output="scores")`
"""

from swin_umamba_nnunet.evaluation.cases import CasePair, find_images, find_label_files, pair_cases
from swin_umamba_nnunet.evaluation.evaluate import evaluate_folders
from swin_umamba_nnunet.evaluation.labels import LabelSet, find_labels, labels_in, parse_labels, read_dataset_json
from swin_umamba_nnunet.evaluation.output import EvaluationResult
from swin_umamba_nnunet.evaluation.protocols import (
    PROTOCOLS,
    Abdomen,
    Cells,
    Endoscopy,
    Isic,
    Plain,
    Synapse,
    from_options,
)
from swin_umamba_nnunet.evaluation.readers import Image, Segmentation, read_image, read_pair, read_segmentation
from swin_umamba_nnunet.evaluation.records import (
    ALL_CLASSES,
    WHOLE_IMAGE,
    Convention,
    EvaluationError,
    Measurement,
    Statistic,
)

__all__ = [
    "ALL_CLASSES",
    "PROTOCOLS",
    "WHOLE_IMAGE",
    "Abdomen",
    "CasePair",
    "Cells",
    "Convention",
    "Endoscopy",
    "EvaluationError",
    "EvaluationResult",
    "Image",
    "Isic",
    "LabelSet",
    "Measurement",
    "Plain",
    "Segmentation",
    "Statistic",
    "Synapse",
    "evaluate_folders",
    "find_images",
    "find_label_files",
    "find_labels",
    "from_options",
    "labels_in",
    "pair_cases",
    "parse_labels",
    "read_dataset_json",
    "read_image",
    "read_pair",
    "read_segmentation",
]
