"""Segmentation networks on (B, C, H, W) images of any size; no nnU-Net needed.

    network = SwinUMambaD(input_channels=1, num_classes=14)
    logits = network(images)  # (B, 14, H, W)

`network.decoder.deep_supervision = True` turns the result into a list, finest head first.
"""

from swin_umamba_nnunet.networks.swin_umamba import SwinUMamba
from swin_umamba_nnunet.networks.swin_umamba_d import SwinUMambaD
from swin_umamba_nnunet.networks.vssm import VSSMEncoder

__all__ = ["SwinUMamba", "SwinUMambaD", "VSSMEncoder"]
