"""Segmentation networks on (B, C, H, W) images of any size; no nnU-Net needed.

    network = SwinUMambaD(input_channels=1, num_classes=14)
    logits = network(images)  # (B, 14, H, W)

`network.decoder.deep_supervision = True` turns the result into a list, finest head first.
"""

from typing import TYPE_CHECKING, Any

from swin_umamba_nnunet.networks._base import set_backend
from swin_umamba_nnunet.networks.swin_umamba import SwinUMamba
from swin_umamba_nnunet.networks.swin_umamba_d import SwinUMambaD
from swin_umamba_nnunet.networks.swin_umamba_v2 import SwinUMambaDV2, SwinUMambaV2
from swin_umamba_nnunet.networks.vm_unet import VMUNet
from swin_umamba_nnunet.networks.vssm import VSSMEncoder, VSSMEncoderV2

if TYPE_CHECKING:
    from swin_umamba_nnunet.networks.umamba import UMambaBot, UMambaEnc

__all__ = [
    "SwinUMamba",
    "SwinUMambaD",
    "SwinUMambaDV2",
    "SwinUMambaV2",
    "UMambaBot",
    "UMambaEnc",
    "VMUNet",
    "VSSMEncoder",
    "VSSMEncoderV2",
    "set_backend",
]


def __getattr__(name: str) -> Any:
    """U-Mamba when it is asked for: it alone needs nnU-Net's building blocks (dynamic_network_architectures)."""
    if name in ("UMambaBot", "UMambaEnc"):
        from swin_umamba_nnunet.networks import umamba

        return getattr(umamba, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
