"""A trained model after its training: import of released checkpoints, other channel counts, prediction, export.

A model folder is what nnU-Net's `nnUNetv2_predict_from_modelfolder -m` takes: plans.json, dataset.json and fold_*/.
"""

from swin_umamba_nnunet.models.adapting import adapt_checkpoint
from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.models.exporting import export_model
from swin_umamba_nnunet.models.importing import import_model
from swin_umamba_nnunet.models.predicting import predict

__all__ = ["ModelError", "adapt_checkpoint", "export_model", "import_model", "predict"]
