"""Swin-UMamba-dagger (trainer suffix D): state-space blocks in the decoder too, half the parameters.

Source: Liu et al., "Swin-UMamba", arXiv 2402.03302, section on Swin-UMamba-dagger.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from swin_umamba_nnunet.blocks import Mixing, PatchExpand, VSSBlock
from swin_umamba_nnunet.networks._base import Recomputing, SegmentationNetwork, segment
from swin_umamba_nnunet.networks.vssm import BlockFactory, HierarchicalEncoder, VSSMEncoder, drop_path_schedule

NEGATIVE_SLOPE = 1e-2  # of the He initialisation, nnU-Net's value


class VSSDecoderStage(Recomputing):
    """One decoder step: (B, H, W, 2C) and the skip (B, 2H, 2W, C) -> (B, 2H, 2W, C)."""

    def __init__(
        self, channels: int, drop_paths: Sequence[float], block: BlockFactory, gradient_checkpointing: bool
    ) -> None:
        super().__init__(gradient_checkpointing)
        self.expand = PatchExpand(2 * channels, channels)
        self.reduce = nn.Linear(2 * channels, channels)
        self.blocks = nn.ModuleList(block(channels, drop_path=rate) for rate in drop_paths)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.reduce(torch.cat((self.expand(x), skip), dim=-1))
        for block in self.blocks:
            x = self.run(block, x)
        return x


class VSSDecoder(nn.Module):
    """Skips -> logits: expand, concatenate and blocks per step, back to pixels by a last expansion, a head on each.

    Args:
        encoder: whose maps are the skips.
        num_classes: channels of the logits.
        deep_supervision: return every head's logits.
        block: makes a block.
        depth: blocks per step.
        drop_path_rate: DropPath of the first block; it falls linearly to 0 at the last one.
        gradient_checkpointing: recompute each block in backward.
    """

    def __init__(
        self,
        encoder: HierarchicalEncoder,
        num_classes: int,
        deep_supervision: bool,
        *,
        block: BlockFactory,
        depth: int,
        drop_path_rate: float,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        coarse_first = tuple(reversed(encoder.widths[:-1]))
        self.stages = nn.ModuleList(
            VSSDecoderStage(channels, rates, block, gradient_checkpointing)
            for channels, rates in zip(coarse_first, drop_path_schedule(drop_path_rate, 0, [depth] * len(coarse_first)))
        )
        finest = encoder.widths[0]
        self.final_expand = PatchExpand(finest, finest, encoder.strides[0])
        self.seg_layers = nn.ModuleList(nn.Conv2d(channels, num_classes, 1) for channels in (*coarse_first, finest))

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Skips (B, C, H, W), finest first and the bottleneck last -> logits, finest first."""
        x, *skips = (skip.permute(0, 2, 3, 1) for skip in reversed(skips))
        maps = []
        for stage, skip in zip(self.stages, skips):
            x = stage(x, skip)
            maps.append(x)
        maps.append(self.final_expand(x))
        return segment(self.seg_layers, [y.permute(0, 3, 1, 2) for y in maps], self.deep_supervision)


class SwinUMambaD(SegmentationNetwork):
    """Swin-UMamba-dagger for (B, C, H, W) images of any size.  27.5 M parameters with the default settings.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return the logits of every head (strides 1, 4, 8, 16), not only the finest.
        depths: VSSBlocks per encoder stage.
        decoder_depth: VSSBlocks per decoder step.
        width: channels of the first stage.
        d_state: states of the scans.
        drop_path_rate: DropPath of the encoder's last block.
        decoder_drop_path_rate: DropPath of the decoder's first block; None for the same.
        gradient_checkpointing: recompute blocks in backward: less memory, the same gradients, more time.
        mixing: "scan", or "skip" for the control without scans, in encoder and decoder (see `SS2D`).
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
    """

    encoder: VSSMEncoder

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        depths: Sequence[int] = (2, 2, 9, 2),
        decoder_depth: int = 2,
        width: int = 96,
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        decoder_drop_path_rate: float | None = None,
        gradient_checkpointing: bool = False,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__(input_channels, num_classes, stride=2 ** (len(depths) + 1))
        self.encoder = VSSMEncoder(
            input_channels,
            depths=depths,
            width=width,
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            mixing=mixing,
            backend=backend,
        )
        self.decoder = VSSDecoder(
            self.encoder,
            num_classes,
            deep_supervision,
            depth=decoder_depth,
            block=partial(VSSBlock, d_state=d_state, mixing=mixing, backend=backend),
            drop_path_rate=drop_path_rate if decoder_drop_path_rate is None else decoder_drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.head_strides = (1, *self.encoder.strides[:-1])
        init_convolutions(self, self.encoder.patch_embed.proj)


def init_convolutions(network: nn.Module, first: nn.Module) -> None:
    """He's initialisation with zero biases, as the authors; only the bias of the `first` one stays at torch's.

    Were it zero, a patch of zeros (padding, masked background) would meet one LayerNorm after another without any
    variance, each of which multiplies the gradient by eps^-1/2 = 316: at initialisation it overflows float32.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None and module is not first:
                nn.init.zeros_(module.bias)
