"""The encoder of VMamba's second generation: one state per channel, no gate, an MLP per block, convolutions between.

Source: Liu et al., "VMamba", arXiv 2401.10166 (version 3).  Parameter names are those of the released files.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from swin_umamba_nnunet.blocks import ConvDownsample, ConvStem, Mixing, VSSBlockV2
from swin_umamba_nnunet.networks.vssm import HierarchicalEncoder


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
