"""Network parts without topology.

State-space blocks take and return (B, H, W, C).  The convolution blocks of `residual.py` keep PyTorch's (B, C, H, W):
InstanceNorm has no channels-last form, so both layouts meet once, in the networks, and not in every block.

Every part trains under float16 and bfloat16 autocast as it is: norms, scans and the residual stream stay float32.
"""

from swin_umamba_nnunet.blocks.mamba import Mamba, MambaLayer
from swin_umamba_nnunet.blocks.norm import LayerNorm, widen
from swin_umamba_nnunet.blocks.patches import (
    ConvDownsample,
    ConvStem,
    PatchEmbed,
    PatchExpand,
    PatchMerging,
    space_from_channels,
)
from swin_umamba_nnunet.blocks.residual import ResidualBlock, ResidualUpBlock
from swin_umamba_nnunet.blocks.ss2d import SS2D, Mixing
from swin_umamba_nnunet.blocks.vss import MLP, DropPath, VSSBlock, VSSBlockV2

__all__ = [
    "MLP",
    "SS2D",
    "ConvDownsample",
    "ConvStem",
    "DropPath",
    "LayerNorm",
    "Mamba",
    "MambaLayer",
    "Mixing",
    "PatchEmbed",
    "PatchExpand",
    "PatchMerging",
    "ResidualBlock",
    "ResidualUpBlock",
    "VSSBlock",
    "VSSBlockV2",
    "space_from_channels",
    "widen",
]
