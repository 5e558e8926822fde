"""U-Mamba: an nnU-Net-shaped residual U-Net with Mamba layers in its encoder, built from nnU-Net's plans, 2D and 3D.

Source: Ma et al., "U-Mamba", arXiv 2401.04722, in the two forms the authors published.

    release     first block of a stage   blocks per stage   upsampling      finest skip   Mamba layers of Enc
    "2024-03"   bare 1x1 shortcut        1 in one half *    nearest + 1x1   3D only       3D: all; 2D: every second
    "2024-01"   nnU-Net's                as planned         transposed      yes           all

    * the coarser half of the encoder, the finer half of the decoder; the other halves as planned

"2024-03" is what the authors' repository has had since then, "2024-01" what every published table measured.
"""

from collections.abc import Sequence

from dynamic_network_architectures.initialization.weight_init import InitWeights_He, init_last_bn_before_add_to_0
from torch import Tensor, nn
from torch.nn.functional import pad

from swin_umamba_nnunet.blocks import MambaLayer
from swin_umamba_nnunet.networks._base import check_image
from swin_umamba_nnunet.networks._umamba_parts import UMambaDecoder, UMambaEncoder
from swin_umamba_nnunet.networks._umamba_plan import StagePlan, padded_size

HE_SLOPE = 1e-2  # of nnU-Net's initialisation


class UMamba(nn.Module):
    """U-Mamba for (B, C, H, W) or (B, C, D, H, W) images of any size; a subclass says where Mamba layers are.

    The arguments from `patch_size` to `n_conv_per_stage_decoder` have nnU-Net's names for what its plans hold.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits, background included.
        deep_supervision: return the logits of every head (one per stage but the last), not only the finest.
        patch_size: (H, W) or (D, H, W) in pixels; says whether the network is 2D or 3D.
        n_stages: resolutions of the encoder.
        features_per_stage: channels of each stage, finest first.
        kernel_sizes: per stage and axis, odd.
        strides: per stage and axis, relative to the stage before.
        n_conv_per_stage: blocks of each stage (release "2024-03" has its own number in half of them).
        n_conv_per_stage_decoder: blocks of each decoder step, coarsest first (likewise).
        release: "2024-03" for the authors' code as it is today, "2024-01" for what published tables measured.
        mamba: False leaves the Mamba layers out, for a control network; nothing else changes.
        gradient_checkpointing: recompute stages in backward: less memory, the same gradients, more time.
        backend: backend of the scans (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.

    Attributes:
        stride: the coarsest resolution in pixels, per axis; images are padded to multiples of it.
        head_strides: pixels per step of each head's map, per axis, finest head first.
        tied_to_patch: whether images must not be larger than a patch (see `UMambaEnc`).

    Raises:
        ValueError: settings that do not fit together.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        patch_size: Sequence[int],
        n_stages: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
        release: str = "2024-03",
        mamba: bool = True,
        gradient_checkpointing: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        plan = StagePlan.from_settings(
            release,
            patch_size,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage,
            n_conv_per_stage_decoder,
        )
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.patch_size, self.padded_patch = plan.patch_size, plan.padded_patch
        self.head_strides, self.stride = plan.map_strides[:-1], plan.map_strides[-1]
        with_mamba = self.mamba_stages(plan) if mamba else ()
        mamba_layers = [
            self.mamba_layer(plan, stage, backend) if stage in with_mamba else nn.Identity()
            for stage in range(n_stages)
        ]
        self.tied_to_patch = any(isinstance(layer, MambaLayer) and layer.channel_tokens for layer in mamba_layers)
        self.encoder = UMambaEncoder(plan, input_channels, mamba_layers, gradient_checkpointing)
        self.decoder = UMambaDecoder(plan, num_classes, deep_supervision, gradient_checkpointing)
        self.init_weights(plan)

    def init_weights(self, plan: StagePlan) -> None:
        """nnU-Net's He initialisation.  It touches 2D and 3D convolutions only: Mamba's own initial values stay."""
        self.apply(InitWeights_He(HE_SLOPE))

    @staticmethod
    def mamba_stages(plan: StagePlan) -> Sequence[int]:
        """Stages that have a Mamba layer behind them."""
        raise NotImplementedError

    @staticmethod
    def mamba_layer(plan: StagePlan, stage: int, backend: str | None) -> MambaLayer:
        """The layer behind a stage, over positions."""
        return MambaLayer(plan.widths[stage], backend=backend)

    @property
    def deep_supervision_scales(self) -> tuple[tuple[float, ...], ...]:
        """Size of each head's map relative to the image, per axis, finest first.

        A head of stride s returns ceil(H / s) positions on an axis of H.  nnU-Net makes deep-supervision targets of
        round(H * scale), which is another size where s does not divide H: a trainer sizes its targets to the logits.
        """
        return tuple(tuple(1 / step for step in stride) for stride in self.head_strides)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image, or of every head with deep supervision.

        Args:
            x: (B, input_channels, *S), any S from 1 (but see `UMambaEnc`); zeros are added at the end of each axis.

        Returns:
            (B, num_classes, *S); with `decoder.deep_supervision` a list of (B, num_classes, *ceil(S / s)) for s in
            `head_strides`.

        Raises:
            ValueError: an image of other axes or channels, with an empty axis, or of a size the weights do not fit.
        """
        check_image(x, self.input_channels, len(self.patch_size))
        size = x.shape[2:]
        if self.tied_to_patch and any(side > most for side, most in zip(size, self.padded_patch)):
            raise ValueError(
                f"the image has {tuple(size)} pixels, more than the patch of {self.patch_size} to which the weights of "
                "this U-Mamba_Enc are tied; cut it into patches (as nnU-Net's prediction does), or use a network for "
                "any size: UMambaBot, or UMambaEnc of release '2024-01'"
            )
        padded = self.padded_patch if self.tied_to_patch else padded_size(size, self.stride)
        x = pad(x, [n for side, more in zip(reversed(size), reversed(padded)) for n in (0, more - side)])
        outputs = self.decoder(self.encoder(x))
        if isinstance(outputs, Tensor):
            return crop(outputs, size, self.head_strides[0])
        return [crop(y, size, stride) for y, stride in zip(outputs, self.head_strides)]


class UMambaBot(UMamba):
    """U-Mamba with one Mamba layer, after the last stage.  47.5 M parameters (2024-01: 63.3 M) on AbdomenMR's plans."""

    @staticmethod
    def mamba_stages(plan: StagePlan) -> Sequence[int]:
        return (len(plan.widths) - 1,)


class UMambaEnc(UMamba):
    """U-Mamba with Mamba layers through the encoder.  47.0 M parameters (2024-01: 67.3 M) on AbdomenMR's plans.

    Of release "2024-03", a stage whose map has no more positions than channels takes its channels as tokens, so the
    shapes of its weights follow from `patch_size`.  A checkpoint then fits the patch size it was trained with, and no
    image may be larger than a patch; smaller ones are padded to it.  nnU-Net trains and predicts in patches of one
    size, so its commands never meet this.  Release "2024-01" has no such stage.
    """

    def init_weights(self, plan: StagePlan) -> None:
        super().init_weights(plan)
        if plan.release == "2024-01":
            self.apply(init_last_bn_before_add_to_0)  # the authors did so in Enc, and not in Bot

    @staticmethod
    def mamba_stages(plan: StagePlan) -> Sequence[int]:
        last = len(plan.widths) - 1
        every_second = plan.release == "2024-03" and plan.dims == 2
        return range(last % 2, last + 1, 2) if every_second else range(last + 1)

    @staticmethod
    def mamba_layer(plan: StagePlan, stage: int, backend: str | None) -> MambaLayer:
        """The layer behind a stage: over positions, or over channels where these are as many or more."""
        width, positions = plan.widths[stage], plan.positions(stage)
        channel_tokens = plan.release == "2024-03" and positions <= width
        return MambaLayer(positions if channel_tokens else width, channel_tokens=channel_tokens, backend=backend)


def crop(x: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """What belongs to an unpadded image of `size` in a padded map of that stride."""
    for axis, (side, step) in enumerate(zip(size, stride)):  # torch 2.4's compiler knows no enumerate(start=2)
        x = x.narrow(2 + axis, 0, -(-side // step))
    return x
