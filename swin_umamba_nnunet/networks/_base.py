"""What the segmentation networks share: checks, padding to the stride, heads, recomputation in backward, unwrapping."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint


class SegmentationNetwork(nn.Module):
    """An encoder (image -> skips, finest first) and a decoder (skips -> one map of logits per head, finest first).

    A subclass sets `encoder`, `decoder`, `head_strides`, and `imagenet_encoder` where that is a part of the encoder.
    nnU-Net finds its own names in it: `decoder.deep_supervision`, which may be switched at any time, and
    `decoder.seg_layers`, coarsest head first as in nnU-Net's decoders, all of them present with and without deep
    supervision.

    Attributes:
        input_channels: channels of the image.
        num_classes: channels of the logits.
        stride: the network's coarsest resolution in pixels; images are padded to a multiple of it.
        head_strides: pixels per step of each head's map, finest head first.
    """

    encoder: nn.Module
    decoder: nn.Module
    head_strides: tuple[int, ...]

    def __init__(self, input_channels: int, num_classes: int, stride: int) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.stride = stride

    @property
    def imagenet_encoder(self) -> nn.Module:
        """The VSSM encoder that ImageNet weights belong to; its keys are VMamba's."""
        return self.encoder

    @property
    def deep_supervision_scales(self) -> tuple[float, ...]:
        """Size of each head's map relative to the image, finest first.

        A head at stride s returns ceil(H/s) x ceil(W/s).  nnU-Net makes deep-supervision targets of round(size *
        scale), which is another size where s does not divide the image: a trainer sizes its targets to the logits.
        """
        return tuple(1 / stride for stride in self.head_strides)

    def freezable_parameters(self) -> list[nn.Parameter]:
        """What the recipes freeze in the first epochs: the ImageNet encoder without its patch embedding."""
        named = self.imagenet_encoder.named_parameters()
        return [parameter for name, parameter in named if not name.startswith("patch_embed.")]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits of an image, or of every head with deep supervision.

        Args:
            x: (B, input_channels, H, W), any H and W from 1.

        Returns:
            (B, num_classes, H, W); with `decoder.deep_supervision` a list of (B, num_classes, ceil(H/s), ceil(W/s))
            for s in `head_strides`.

        Raises:
            ValueError: an image that is not four-dimensional, has an empty axis or another number of channels.
        """
        check_image(x, self.input_channels)
        height, width = x.shape[2:]
        outputs = self.decoder(self.encoder(pad_to_multiple(x, self.stride)))
        if isinstance(outputs, Tensor):
            return outputs[:, :, :height, :width]
        return [y[:, :, : -(-height // s), : -(-width // s)] for y, s in zip(outputs, self.head_strides)]


class Recomputing(nn.Module):
    """A part that can drop the activations inside its blocks and compute them again in backward.

    Attributes:
        gradient_checkpointing: whether it does; may be switched at any time.
    """

    def __init__(self, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing

    def run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        """`block(*inputs)`.  Recomputing replays the random numbers, so the gradients are the same."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def check_image(x: Tensor, channels: int, dims: int = 2) -> None:
    """Accept (B, channels, H, W), or (B, channels, D, H, W) of a network of three `dims`.

    Raises:
        ValueError: other axes, an empty one, or another number of channels.
    """
    shape = tuple(x.shape)
    expected = f"expected (B, {channels}, {'D, ' if dims == 3 else ''}H, W) with every axis at least 1"
    if len(shape) != dims + 2:
        raise ValueError(f"the image has {len(shape)} axes, shape {shape}; {expected}: this is a {dims}D network")
    if 0 in shape:
        raise ValueError(f"the image has an empty axis, shape {shape}; {expected}")
    if shape[1] != channels:
        raise ValueError(f"the image has {shape[1]} channels, shape {shape}; {expected}")


_PARALLEL = (DistributedDataParallel, nn.DataParallel)


def unwrap(network: Any) -> Any:
    """The network itself, out of whatever torch.compile and data parallelism have put around it."""
    while (compiled := hasattr(network, "_orig_mod")) or isinstance(network, _PARALLEL):
        network = network._orig_mod if compiled else network.module
    return network


def set_backend(network: nn.Module, backend: str | None) -> None:
    """Have every scan of a network run on `backend` (`swin_umamba_nnunet.ops.BACKENDS`, None chooses), in place."""
    for part in network.modules():
        if hasattr(part, "backend"):
            part.backend = backend  # type: ignore[assignment]


def segment(heads: Iterable[nn.Module], maps: Iterable[Tensor], deep_supervision: bool) -> Tensor | list[Tensor]:
    """Logits of each head on its map (both coarsest first), finest first; the finest alone without deep supervision."""
    pairs = list(zip(heads, maps))[::-1]
    return [head(x) for head, x in pairs] if deep_supervision else pairs[0][0](pairs[0][1])


def pad_to_multiple(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) with zeros at the bottom and right up to the next multiples of `stride`."""
    return pad(x, (0, -x.shape[3] % stride, 0, -x.shape[2] % stride))  # always: a traced graph holds no branch
