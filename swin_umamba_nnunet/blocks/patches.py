"""Changes of resolution between state-space stages, channels last: embed, merge and expand patches.

Sources: Liu et al., "Swin Transformer", arXiv 2103.14030 (embedding and merging); Cao et al., "Swin-Unet",
arXiv 2105.05537 (expanding); Liu et al., "VMamba", arXiv 2401.10166, version 3 (overlapping convolutions, the stem and
downsampling of its second generation).  The numbers that name the parts of these last are those of the released files,
in which the places between are taken by changes of layout and by GELU.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from swin_umamba_nnunet.blocks.norm import LayerNorm


class PatchEmbed(nn.Module):
    """Non-overlapping p x p patches through a linear map and a norm, (B, H, W, C) -> (B, H/p, W/p, D).

    H and W are multiples of p.
    """

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halves the resolution and doubles the width, (B, H, W, C) -> (B, H/2, W/2, 2C).  H and W are even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = [x[:, h::2, w::2] for w in (0, 1) for h in (0, 1)]  # (h, w) offsets: (0,0), (1,0), (0,1), (1,1)
        return self.reduction(self.norm(torch.cat(cells, dim=-1)))


class PatchExpand(nn.Module):
    """Raises the resolution by `scale`, (B, H, W, C) -> (B, scale*H, scale*W, D): linear map, shuffle, norm.

    The usual step has D = C/2 and scale 2; the last one of a decoder goes back to pixels with scale 4.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(in_channels, out_channels * scale**2, bias=False)
        self.norm = LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(space_from_channels(self.expand(x), self.scale))


def space_from_channels(x: Tensor, scale: int) -> Tensor:
    """(B, H, W, scale*scale*C) -> (B, scale*H, scale*W, C); channels are ordered (p_h, p_w, c).

    `nn.PixelShuffle` orders them (c, p_h, p_w) and is a different map.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, scale, scale, channels // scale**2).transpose(2, 3)
    return x.reshape(batch, scale * height, scale * width, channels // scale**2)


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
