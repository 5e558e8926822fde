"""A trained model after its training: import of released checkpoints, other channel counts, prediction, export.

A model folder is what nnU-Net's `nnUNetv2_predict_from_modelfolder -m` takes: plans.json, dataset.json and fold_*/.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_umamba_nnunet.models.adapting import adapt_checkpoint
    from swin_umamba_nnunet.models.checkpoints import ModelError
    from swin_umamba_nnunet.models.exporting import export_model
    from swin_umamba_nnunet.models.importing import import_model
    from swin_umamba_nnunet.models.predicting import predict

_HOMES = {
    "ModelError": "checkpoints",
    "adapt_checkpoint": "adapting",
    "export_model": "exporting",
    "import_model": "importing",
    "predict": "predicting",
}

__all__ = ["ModelError", "adapt_checkpoint", "export_model", "import_model", "predict"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
