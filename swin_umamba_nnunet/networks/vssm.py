"""VSSM encoders (VMamba's backbone), shared by all VMamba-based segmentation networks.

Source: Liu et al., "VMamba", arXiv 2401.10166: its first release, and version 3 for the second generation (one state
per channel, no gate, an MLP per block, convolutions between).  Parameter names are those of the released files.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import Tensor, nn

from swin_umamba_nnunet.blocks import ConvDownsample, ConvStem, Mixing, PatchEmbed, PatchMerging, VSSBlock, VSSBlockV2
from swin_umamba_nnunet.networks._base import Recomputing

BlockFactory = Callable[..., nn.Module]  # (channels, drop_path=rate) -> a block, (B, H, W, C) -> (B, H, W, C)


class VSSMStage(Recomputing):
    """Blocks at one resolution and what leads to the next one (`downsample`, None after the last stage)."""

    downsample: nn.Module | None

    def __init__(
        self, blocks: Iterable[nn.Module], downsample: nn.Module | None, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__(gradient_checkpointing)
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) -> this stage's map (B, H, W, C) and the next one's input (B, H/2, W/2, 2C)."""
        for block in self.blocks:
            x = self.run(block, x)
        return x, x if self.downsample is None else self.downsample(x)


class HierarchicalEncoder(nn.Module):
    """Patch embedding and stages of blocks, an image -> one map per stage.

    Args:
        patch_embed: (B, H, W, in_channels) -> (B, H/stride, W/stride, width).
        stride: of `patch_embed`.
        block: makes a block.
        downsample: makes what halves the resolution and doubles the width, given the width.
        depths: blocks per stage.
        width: channels of the first stage.
        drop_path_rate: DropPath of the last block; it rises linearly from 0 at the first one.
        gradient_checkpointing: recompute each block in backward instead of storing its activations.

    Attributes:
        widths: channels of each stage's map.
        strides: pixels per step of each stage's map, relative to the encoder's input.
    """

    def __init__(
        self,
        patch_embed: nn.Module,
        stride: int,
        *,
        block: BlockFactory,
        downsample: Callable[[int], nn.Module],
        depths: Sequence[int],
        width: int,
        drop_path_rate: float,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        stages = range(len(depths))
        self.widths = tuple(width * 2**stage for stage in stages)
        self.strides = tuple(stride * 2**stage for stage in stages)
        self.patch_embed = patch_embed
        self.layers = nn.ModuleList()
        for channels, rates in zip(self.widths, drop_path_schedule(0, drop_path_rate, depths)):
            blocks = [block(channels, drop_path=rate) for rate in rates]
            below = None if channels == self.widths[-1] else downsample(channels)
            self.layers.append(VSSMStage(blocks, below, gradient_checkpointing))
        self.apply(init_linear)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the stages, finest first.

        Args:
            x: (B, C, H, W), H and W multiples of the last stride.

        Returns:
            (B, widths[i], H/strides[i], W/strides[i]), each a view of channels-last memory.
        """
        return [y.permute(0, 3, 1, 2) for _, y in self.stage_maps(x.permute(0, 2, 3, 1))]

    def stage_maps(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(input, output) of every stage, (B, H, W, C) each: Swin-UMamba's skips are outputs, VM-UNet's inputs."""
        return self.run_stages(self.patch_embed(x))

    def run_stages(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As `stage_maps`, of what is embedded already."""
        maps = []
        for stage in self.layers:
            y, below = stage(x)
            maps.append((x, y))
            x = below
        return maps


class VSSMEncoder(HierarchicalEncoder):
    """VMamba of the first release: p x p patches, stages of VSSBlocks, 2x2 cells merged between them.

    Args:
        in_channels: channels of the image (or of the stem before it).
        patch_size: stride of the first stage.
        depths: blocks per stage; each further stage halves the resolution and doubles the width.
        width: channels of the first stage.
        d_state: states of the scans.
        drop_path_rate: DropPath of the last block; it rises linearly from 0 at the first one.
        gradient_checkpointing: recompute each block in backward instead of storing its activations.
        mixing: "scan", or "skip" for the control without scans (see `SS2D`).
        backend: backend of the scans; None chooses.

    Attributes:
        widths: channels of each stage's map.
        strides: pixels per step of each stage's map, relative to the encoder's input.
    """

    patch_embed: PatchEmbed

    def __init__(
        self,
        in_channels: int,
        *,
        patch_size: int = 4,
        depths: Sequence[int] = (2, 2, 9, 2),
        width: int = 96,
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        gradient_checkpointing: bool = False,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__(
            PatchEmbed(in_channels, width, patch_size),
            patch_size,
            block=partial(VSSBlock, d_state=d_state, mixing=mixing, backend=backend),
            downsample=PatchMerging,
            depths=depths,
            width=width,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )


class VSSMEncoderV2(HierarchicalEncoder):
    """VMamba of the second generation, an image -> one map per stage, at strides 4, 8, 16, 32.

    Args:
        in_channels: channels of the image.
        depths: blocks per stage; each further stage halves the resolution and doubles the width.
        width: channels of the first stage, even; the stem has half of it at stride 2.
        d_state: states of the scans.
        expand: inner width of SS2D over its outer one: 1 in VMamba-Tiny, 2 in Small and Base.
        drop_path_rate: DropPath of the last block; it rises linearly from 0 at the first one.
        gradient_checkpointing: recompute each block in backward instead of storing its activations.
        mixing: "scan", or "skip" for the control without scans (see `SS2D`).
        backend: backend of the scans; None chooses.

    Attributes:
        widths: channels of each stage's map.
        strides: pixels per step of each stage's map.
    """

    patch_embed: ConvStem

    def __init__(
        self,
        in_channels: int,
        *,
        depths: Sequence[int] = (2, 2, 8, 2),
        width: int = 96,
        d_state: int = 1,
        expand: int = 1,
        drop_path_rate: float = 0.2,
        gradient_checkpointing: bool = False,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__(
            ConvStem(in_channels, width),
            4,
            block=partial(VSSBlockV2, d_state=d_state, expand=expand, mixing=mixing, backend=backend),
            downsample=ConvDownsample,
            depths=depths,
            width=width,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )

    def with_stem(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the stem's map (B, width/2, H/2, W/2), then those of the stages."""
        half = self.patch_embed.first_half(x.permute(0, 2, 3, 1))
        maps = [half, *(y for _, y in self.run_stages(self.patch_embed.second_half(half)))]
        return [y.permute(0, 3, 1, 2) for y in maps]


def drop_path_schedule(first: float, last: float, depths: Sequence[int]) -> list[list[float]]:
    """DropPath rates that change linearly from the first block to the last, grouped by stage."""
    steps = max(sum(depths) - 1, 1)
    rates = (first + (last - first) * (step / steps) for step in itertools.count())
    return [list(itertools.islice(rates, depth)) for depth in depths]


def init_linear(module: nn.Module) -> None:
    """VMamba's initial values of a Linear (weights truncated normal of deviation 0.02, bias 0); for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
