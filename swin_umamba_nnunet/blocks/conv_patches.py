"""Changes of resolution by overlapping convolutions, channels last: stem and downsampling of the second VMamba.

Source: Liu et al., "VMamba", arXiv 2401.10166 (version 3).  The numbers that name the parts are those of the released
files, in which the places between are taken by changes of layout and by GELU.
"""

from torch import Tensor, nn
from torch.nn.functional import gelu

from swin_umamba_nnunet.blocks.norm import LayerNorm


class ConvStem(nn.ModuleDict):
    """Two halvings of the resolution, (B, H, W, C) -> (B, H/4, W/4, D); H and W are multiples of 4."""

    def __init__(self, in_channels: int, channels: int) -> None:
        half = channels // 2
        super().__init__(
            {
                "0": _halving(in_channels, half),
                "2": LayerNorm(half),
                "5": _halving(half, channels),
                "7": LayerNorm(channels),
            }
        )

    def first_half(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H/2, W/2, D/2): the first convolution with its norm and GELU."""
        return gelu(self["2"](_channels_last(self["0"], x)))

    def second_half(self, x: Tensor) -> Tensor:
        """The second half, (B, H/2, W/2, D/2) -> (B, H/4, W/4, D)."""
        return self["7"](_channels_last(self["5"], x))

    def forward(self, x: Tensor) -> Tensor:
        return self.second_half(self.first_half(x))


class ConvDownsample(nn.ModuleDict):
    """Halves the resolution and doubles the width, (B, H, W, C) -> (B, H/2, W/2, 2C).  H and W are even."""

    def __init__(self, channels: int) -> None:
        super().__init__({"1": _halving(channels, 2 * channels), "3": LayerNorm(2 * channels)})

    def forward(self, x: Tensor) -> Tensor:
        return self["3"](_channels_last(self["1"], x))


def _halving(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)


def _channels_last(convolution: nn.Module, x: Tensor) -> Tensor:
    """A convolution on (B, H, W, C)."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
