"""The conventions an evaluation can follow: the plain one, and one per evaluation script of the papers."""

from swin_umamba_nnunet.evaluation.protocols.abdomen import Abdomen
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, EvaluationProtocol
from swin_umamba_nnunet.evaluation.protocols.cells import Cells
from swin_umamba_nnunet.evaluation.protocols.endoscopy import Endoscopy
from swin_umamba_nnunet.evaluation.protocols.isic import Isic
from swin_umamba_nnunet.evaluation.protocols.plain import Plain
from swin_umamba_nnunet.evaluation.protocols.synapse import Synapse

__all__ = ["Abdomen", "CaseFacts", "Cells", "Endoscopy", "EvaluationProtocol", "Isic", "Plain", "Synapse"]
