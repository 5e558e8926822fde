"""VM-UNet: VMamba's blocks in encoder and decoder, skips added instead of concatenated.

Source: Ruan et al., "VM-UNet", arXiv 2402.02491, in the published settings (27.43 M parameters).  The defaults of the
authors' class (depths 2,2,9,2 and 2,9,2,2; 44.27 M), which some later papers quote as VM-UNet, are another network:
`VMUNet(..., depths=(2, 2, 9, 2), depths_decoder=(2, 9, 2, 2))`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_umamba_nnunet.blocks import PatchExpand, VSSBlock
from swin_umamba_nnunet.networks._base import Recomputing, SegmentationNetwork, segment
from swin_umamba_nnunet.networks.vssm import VSSMEncoder, drop_path_schedule, init_linear

RGB = 3  # channels of the images that VMamba was trained on


class VMUNetEncoder(VSSMEncoder):
    """The VSSM encoder with the inputs of its stages as skips; a grey image is repeated to three channels."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W), multiples of the last stride -> what the decoder takes, finest first.

        Returns:
            The inputs of all stages but the first, whose skip VM-UNet does not use, and the output of the last one
            (which is as coarse as its input): (B, widths[i], H/strides[i], W/strides[i]) for i = 1, 2, .., n-1, n-1.
        """
        x = x.expand(-1, self.patch_embed.proj.in_channels, -1, -1)
        inputs, outputs = zip(*self.stage_maps(x.permute(0, 2, 3, 1)))
        return [y.permute(0, 3, 1, 2) for y in (*inputs[1:], outputs[-1])]


class VMUNetDecoderStage(Recomputing):
    """VSSBlocks at one resolution and what leads there (`expand`, None in the first stage)."""

    expand: PatchExpand | None

    def __init__(
        self,
        channels: int,
        drop_paths: Sequence[float],
        first: bool,
        d_state: int,
        gradient_checkpointing: bool,
        backend: str | None,
    ) -> None:
        super().__init__(gradient_checkpointing)
        self.expand = None if first else PatchExpand(2 * channels, channels)
        self.blocks = nn.ModuleList(
            VSSBlock(channels, d_state=d_state, drop_path=rate, backend=backend) for rate in drop_paths
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, 2C) -> (B, 2H, 2W, C); in the first stage (B, H, W, C) -> (B, H, W, C)."""
        if self.expand is not None:
            x = self.expand(x)
        for block in self.blocks:
            x = self.run(block, x)
        return x


class VMUNetDecoder(nn.Module):
    """Skips -> logits: add the skip, expand and VSSBlocks per stage, back to pixels by a last expansion, one head.

    Args:
        encoder: whose maps are the skips.
        num_classes: channels of the logits.
        deep_supervision: return a list, of the one head's logits.
        depths: VSSBlocks per stage, coarsest first; as many stages as the encoder's.
        d_state: states of the scans.
        drop_path_rate: DropPath of the first block; it falls linearly to 0 at the last one.
        gradient_checkpointing: recompute each block in backward.
        backend: backend of the scans; None chooses.
    """

    def __init__(
        self,
        encoder: VSSMEncoder,
        num_classes: int,
        deep_supervision: bool,
        *,
        depths: Sequence[int],
        d_state: int,
        drop_path_rate: float,
        gradient_checkpointing: bool,
        backend: str | None,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.stages = nn.ModuleList(
            VMUNetDecoderStage(channels, rates, i == 0, d_state, gradient_checkpointing, backend)
            for i, (channels, rates) in enumerate(
                zip(reversed(encoder.widths), drop_path_schedule(drop_path_rate, 0, depths))
            )
        )
        finest, scale = encoder.widths[0], encoder.strides[0]
        self.final_expand = PatchExpand(finest, finest // scale, scale)
        self.seg_layers = nn.ModuleList([nn.Conv2d(finest // scale, num_classes, 1)])
        self.apply(init_linear)

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Skips (B, C, H, W), finest first and the bottleneck last -> logits."""
        x, *skips = (skip.permute(0, 2, 3, 1) for skip in reversed(skips))
        x = self.stages[0](x)
        for stage, skip in zip(self.stages[1:], skips):
            x = stage(x + skip)
        return segment(self.seg_layers, [self.final_expand(x).permute(0, 3, 1, 2)], self.deep_supervision)


class VMUNet(SegmentationNetwork):
    """VM-UNet for (B, C, H, W) images of any size.  27.43 M parameters with the default settings.

    A one-channel image is repeated to three, as the authors do: the network is then that of an RGB image, and ImageNet
    weights and the authors' segmentation checkpoints fit as they are.  For any other number of channels the patch
    embedding takes the image's channels.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return a list, as nnU-Net expects with deep supervision.  VM-UNet has no coarser heads, so
            there is one entry in it and nothing else changes.
        depths: VSSBlocks per encoder stage.
        depths_decoder: VSSBlocks per decoder stage, coarsest first.
        width: channels of the first stage, a multiple of 4; the head has a quarter of it.
        d_state: states of the scans.
        drop_path_rate: DropPath of the encoder's last and the decoder's first block.
        gradient_checkpointing: recompute blocks in backward: less memory, the same gradients, more time.
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.

    Attributes:
        imagenet_weights: name under which `pretrained.registry` lists the ImageNet checkpoints it starts from.

    Raises:
        ValueError: encoder and decoder of different numbers of stages, or a width that is no multiple of 4.
    """

    encoder: VMUNetEncoder
    decoder: VMUNetDecoder
    imagenet_weights = "vm_unet"

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        depths: Sequence[int] = (2, 2, 2, 2),
        depths_decoder: Sequence[int] = (2, 2, 2, 1),
        width: int = 96,
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        gradient_checkpointing: bool = False,
        backend: str | None = None,
    ) -> None:
        if len(depths) != len(depths_decoder):
            raise ValueError(
                f"depths {tuple(depths)} has {len(depths)} stages and depths_decoder {tuple(depths_decoder)} has "
                f"{len(depths_decoder)}; VM-UNet needs as many in the decoder as in the encoder"
            )
        if width % 4:
            raise ValueError(f"width is {width}; VM-UNet's last expansion needs a multiple of 4")
        super().__init__(input_channels, num_classes, stride=2 ** (len(depths) + 1))
        self.encoder = VMUNetEncoder(
            RGB if input_channels == 1 else input_channels,
            depths=depths,
            width=width,
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            backend=backend,
        )
        self.decoder = VMUNetDecoder(
            self.encoder,
            num_classes,
            deep_supervision,
            depths=depths_decoder,
            d_state=d_state,
            drop_path_rate=drop_path_rate,
            gradient_checkpointing=gradient_checkpointing,
            backend=backend,
        )
        self.head_strides = (1,)

    def imagenet_copies(self) -> dict[str, str]:
        """The decoder's tensors that start from ImageNet weights too: own key -> VMamba's key of what goes there.

        The authors fill decoder stage i with the blocks of VMamba's stage n-1-i, which has the same width.  What leads
        from stage to stage has no counterpart: VMamba's merges patches where the decoder expands them.
        """
        last = len(self.decoder.stages) - 1
        return {
            f"decoder.stages.{i}.blocks.{name}": f"layers.{last - i}.blocks.{name}"
            for i, stage in enumerate(self.decoder.stages)
            for name in stage.get_submodule("blocks").state_dict()
        }
