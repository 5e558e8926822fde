"""Residual convolution blocks of Swin-UMamba, (B, C, H, W), as in UNETR-style networks.

Source: Hatamizadeh et al., "UNETR", arXiv 2103.10504.  Convolutions have no bias, InstanceNorm no parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

NEGATIVE_SLOPE = 0.01


class ResidualBlock(nn.Module):
    """conv3x3-IN-LeakyReLU-conv3x3-IN plus a shortcut, LeakyReLU; (B, C, H, W) -> (B, D, H, W).

    The shortcut is the identity, or conv1x1-IN where the width changes.  Needs at least two pixels per image in
    training (InstanceNorm has no variance over one).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(out_channels)  # holds nothing, so one serves all three places
        self.shortcut = None if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = leaky_relu(self.norm(self.conv1(x)), NEGATIVE_SLOPE)
        y = self.norm(self.conv2(y))
        return leaky_relu(y + (x if self.shortcut is None else self.norm(self.shortcut(x))), NEGATIVE_SLOPE)


class ResidualUpBlock(nn.Module):
    """One decoder step: (B, C, H, W) and the skip (B, D, 2H, 2W) -> (B, D, 2H, 2W)."""

    def __init__(self, in_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, skip_channels, 2, stride=2, bias=False)
        self.block = ResidualBlock(2 * skip_channels, skip_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat((self.up(x), skip), dim=1))
