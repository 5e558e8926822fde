"""Swin-UMamba and Swin-UMamba-dagger around the second generation of VMamba.

These two are no paper's.  They are Swin-UMamba's decoders and skips (Liu et al., arXiv 2402.03302) with VMamba's later
encoder (Liu et al., arXiv 2401.10166, version 3), at the same strides and widths:

- Swin-UMamba's own 7x7 stem is gone.  The later VMamba has a stem of convolutions itself, whose first half gives the
  map of stride 2 and half the width that Swin-UMamba needs for a skip; so every tensor of the ImageNet encoder is used.
- Dagger's decoder is built of the encoder's blocks, as in the original: here those of the second generation.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from swin_umamba_nnunet.blocks import Mixing, VSSBlockV2
from swin_umamba_nnunet.networks._base import SegmentationNetwork
from swin_umamba_nnunet.networks.swin_umamba import ResidualDecoder, SkipEncoder
from swin_umamba_nnunet.networks.swin_umamba_d import VSSDecoder, init_convolutions
from swin_umamba_nnunet.networks.vssm import VSSMEncoderV2


class SwinUMambaEncoderV2(SkipEncoder):
    """A second-generation VSSM encoder on the image, its stem's first half being the map at stride 2."""

    vssm: VSSMEncoderV2

    def __init__(self, input_channels: int, vssm: VSSMEncoderV2, gradient_checkpointing: bool = False) -> None:
        super().__init__(gradient_checkpointing)
        self.vssm = vssm
        self.add_skips(input_channels, vssm.widths[0] // 2)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        return self.vssm.with_stem(x)


class SwinUMambaV2(SegmentationNetwork):
    """Swin-UMamba with a second-generation encoder, for (B, C, H, W) images of any size.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return the logits of every head (strides 1, 2, 4, 8), not only the finest.
        depths: blocks per encoder stage.
        width: channels of the first stage, even; the stem has half of it at stride 2.
        d_state: states of the scans.
        expand: inner width of SS2D over its outer one.
        drop_path_rate: DropPath of the encoder's last block.
        gradient_checkpointing: recompute blocks in backward: less memory, the same gradients, more time.
        mixing: "scan", or "skip" for the control without scans (see `SS2D`).
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
    """

    encoder: SwinUMambaEncoderV2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
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
        super().__init__(input_channels, num_classes, stride=2 ** (len(depths) + 1))
        vssm = VSSMEncoderV2(
            input_channels,
            depths=depths,
            width=width,
            d_state=d_state,
            expand=expand,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            mixing=mixing,
            backend=backend,
        )
        self.encoder = SwinUMambaEncoderV2(input_channels, vssm, gradient_checkpointing)
        self.decoder = ResidualDecoder(self.encoder.widths, num_classes, deep_supervision, gradient_checkpointing)
        self.head_strides = tuple(2**i for i in range(len(depths)))

    @property
    def imagenet_encoder(self) -> VSSMEncoderV2:
        return self.encoder.vssm


class SwinUMambaDV2(SegmentationNetwork):
    """Swin-UMamba-dagger with second-generation blocks throughout, for (B, C, H, W) images of any size.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return the logits of every head (strides 1, 4, 8, 16), not only the finest.
        depths: blocks per encoder stage.
        decoder_depth: blocks per decoder step.
        width: channels of the first stage, even.
        d_state: states of the scans.
        expand: inner width of SS2D over its outer one.
        drop_path_rate: DropPath of the encoder's last block.
        decoder_drop_path_rate: DropPath of the decoder's first block; None for the same.
        gradient_checkpointing: recompute blocks in backward: less memory, the same gradients, more time.
        mixing: "scan", or "skip" for the control without scans, in encoder and decoder (see `SS2D`).
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
    """

    encoder: VSSMEncoderV2

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        depths: Sequence[int] = (2, 2, 8, 2),
        decoder_depth: int = 2,
        width: int = 96,
        d_state: int = 1,
        expand: int = 1,
        drop_path_rate: float = 0.2,
        decoder_drop_path_rate: float | None = None,
        gradient_checkpointing: bool = False,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__(input_channels, num_classes, stride=2 ** (len(depths) + 1))
        self.encoder = VSSMEncoderV2(
            input_channels,
            depths=depths,
            width=width,
            d_state=d_state,
            expand=expand,
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
            block=partial(VSSBlockV2, d_state=d_state, expand=expand, mixing=mixing, backend=backend),
            drop_path_rate=drop_path_rate if decoder_drop_path_rate is None else decoder_drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.head_strides = (1, *self.encoder.strides[:-1])
        init_convolutions(self, self.encoder.patch_embed["0"])
