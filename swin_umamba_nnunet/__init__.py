"""Mamba networks for medical image segmentation inside stock nnU-Net v2.

Importing this package imports nothing heavy (a start-up line runs it in every Python process of the environment);
take what you need from the rooms below it:

    from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
    from swin_umamba_nnunet.ops import selective_scan, selective_scan_2d

`swin_umamba_nnunet.predict(model_folder, images, output)` runs a trained model (see `models.predicting.predict`).
"""

import importlib

__version__ = "0.1.0"


def __getattr__(name: str):
    if name != "predict":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.models").predict
