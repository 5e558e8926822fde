"""Swin-UMamba: a VSSM encoder behind a convolution stem, residual convolution blocks in skips and decoder.

Source: Liu et al., "Swin-UMamba", arXiv 2402.03302, version 2 (the 60 M network of the published tables).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_umamba_nnunet.blocks import Mixing, ResidualBlock, ResidualUpBlock
from swin_umamba_nnunet.networks._base import Recomputing, SegmentationNetwork, segment
from swin_umamba_nnunet.networks.vssm import HierarchicalEncoder, VSSMEncoder


class SkipEncoder(Recomputing):
    """Image -> skips at strides 1, 2, 4, 8, 16 and the bottleneck at 32 (for four stages).

    Attributes:
        vssm: what the ImageNet weights belong to.
        widths: channels of what `forward` returns.
    """

    vssm: HierarchicalEncoder

    def add_skips(self, input_channels: int, stem_width: int) -> None:
        """A residual block on the image and on each map of `pyramid` but the coarsest, as wide as the map below."""
        widths = (input_channels, stem_width, *self.vssm.widths)
        self.skip_blocks = nn.ModuleList(ResidualBlock(here, below) for here, below in zip(widths, widths[1:]))
        self.widths = (*widths[1:], widths[-1])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the maps at stride 2 (the stem's), 4, 8, ..."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W), multiples of the stride -> skips, finest first, the bottleneck last."""
        maps = [x, *self.pyramid(x)]
        return [*(self.run(block, y) for block, y in zip(self.skip_blocks, maps)), maps[-1]]


class SwinUMambaEncoder(SkipEncoder):
    """A 7x7 convolution of stride 2, and a VSSM encoder of 2x2 patches on its map."""

    vssm: VSSMEncoder

    def __init__(self, input_channels: int, vssm: VSSMEncoder, gradient_checkpointing: bool = False) -> None:
        super().__init__(gradient_checkpointing)
        stem_width = vssm.patch_embed.proj.in_channels
        self.stem = nn.Sequential(
            nn.Conv2d(input_channels, stem_width, 7, stride=2, padding=3), nn.InstanceNorm2d(stem_width, affine=True)
        )
        self.vssm = vssm
        self.add_skips(input_channels, stem_width)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        stem = self.stem(x)
        return [stem, *self.vssm(stem)]


class ResidualDecoder(Recomputing):
    """Skips -> logits: up-convolution, concatenation and a residual block per step, heads on all but the coarsest."""

    def __init__(
        self, widths: Sequence[int], num_classes: int, deep_supervision: bool, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__(gradient_checkpointing)
        self.deep_supervision = deep_supervision
        coarse_first = tuple(reversed(widths))
        self.stages = nn.ModuleList(ResidualUpBlock(below, skip) for below, skip in zip(coarse_first, coarse_first[1:]))
        self.final_block = ResidualBlock(widths[0], widths[0])
        self.seg_layers = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in coarse_first[2:])

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Skips (B, C, H, W), finest first and the bottleneck last -> logits, finest first."""
        x, maps = skips[-1], []
        for stage, skip in zip(self.stages, reversed(skips[:-1])):
            x = self.run(stage, x, skip)
            maps.append(x)
        maps[-1] = self.run(self.final_block, x)
        return segment(self.seg_layers, maps[1:], self.deep_supervision)


class SwinUMamba(SegmentationNetwork):
    """Swin-UMamba for (B, C, H, W) images of any size.  59.9 M parameters with the default settings.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return the logits of every head (strides 1, 2, 4, 8), not only the finest.
        depths: VSSBlocks per encoder stage.
        width: channels of the first stage, even; the stem has half of it.
        d_state: states of the scans.
        drop_path_rate: DropPath of the encoder's last block.
        gradient_checkpointing: recompute blocks in backward: less memory, the same gradients, more time.
        mixing: "scan", or "skip" for the control without scans (see `SS2D`).
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
    """

    encoder: SwinUMambaEncoder

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        depths: Sequence[int] = (2, 2, 9, 2),
        width: int = 96,
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        gradient_checkpointing: bool = False,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__(input_channels, num_classes, stride=2 ** (len(depths) + 1))
        vssm = VSSMEncoder(
            width // 2,
            patch_size=2,
            depths=depths,
            width=width,
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            mixing=mixing,
            backend=backend,
        )
        self.encoder = SwinUMambaEncoder(input_channels, vssm, gradient_checkpointing)
        self.decoder = ResidualDecoder(self.encoder.widths, num_classes, deep_supervision, gradient_checkpointing)
        self.head_strides = tuple(2**i for i in range(len(depths)))

    @property
    def imagenet_encoder(self) -> VSSMEncoder:
        return self.encoder.vssm
