"""Changes of resolution between state-space stages, channels last: embed, merge and expand patches.

Sources: Liu et al., "Swin Transformer", arXiv 2103.14030 (embedding and merging); Cao et al., "Swin-Unet",
arXiv 2105.05537 (expanding).
"""

import torch
from torch import Tensor, nn

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
