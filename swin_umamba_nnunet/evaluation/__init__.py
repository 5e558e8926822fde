"""Metrics on prediction folders: the plain convention, and the conventions of the papers' evaluation scripts."""

from swin_umamba_nnunet.evaluation.build import PROTOCOLS
from swin_umamba_nnunet.evaluation.cases import CasePair, Segmentation, pair_cases, read_pair, read_segmentation
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.evaluate import EvaluationResult, evaluate_folders
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, WHOLE_IMAGE, Convention, Measurement, Statistic

__all__ = [
    "ALL_CLASSES",
    "PROTOCOLS",
    "WHOLE_IMAGE",
    "CasePair",
    "Convention",
    "EvaluationError",
    "EvaluationResult",
    "LabelSet",
    "Measurement",
    "Segmentation",
    "Statistic",
    "evaluate_folders",
    "pair_cases",
    "read_pair",
    "read_segmentation",
]
