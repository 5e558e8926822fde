"""Segmentation networks on (B, C, H, W) images of any size; no nnU-Net needed.

    network = SwinUMambaD(input_channels=1, num_classes=14)
    logits = network(images)  # (B, 14, H, W)

`network.decoder.deep_supervision = True` turns the result into a list, finest head first.
"""

from swin_umamba_nnunet.networks._base import set_backend
from swin_umamba_nnunet.networks.swin_umamba import SwinUMamba
from swin_umamba_nnunet.networks.swin_umamba_d import SwinUMambaD
from swin_umamba_nnunet.networks.swin_umamba_v2 import SwinUMambaDV2, SwinUMambaV2
from swin_umamba_nnunet.networks.umamba import UMambaBot, UMambaEnc
from swin_umamba_nnunet.networks.vm_unet import VMUNet
from swin_umamba_nnunet.networks.vssm import VSSMEncoder
from swin_umamba_nnunet.networks.vssm_v2 import VSSMEncoderV2

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
