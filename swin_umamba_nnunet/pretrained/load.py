"""ImageNet weights into the encoder of a network: strict, all or nothing, and reported.

What is loaded is what the authors of Swin-UMamba load, with one deviation:

- Swin-UMamba: its patch embedding is a 2x2 convolution on the stem's 48 channels, which the checkpoint's 4x4
  convolution on RGB cannot fill.  It keeps its initial values, and so does the scale of the LayerNorm behind it.  The
  authors mean to leave out that LayerNorm's bias too, but a slip in their list lets it through; the code behind the
  published results loads it, and so does ours: 205 of 208 encoder tensors.
- Swin-UMamba-dagger on three channels: all 208.
- The deviation: dagger on any other number of channels.  The authors drop the whole patch embedding (204 tensors); here
  its convolution is adapted (see `adapt`) and all 208 are loaded, so that training on a grey image starts from the
  network that sees the same image as R = G = B.

The classifier's own norm and head are never loaded.
"""

import logging
import os
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
from swin_umamba_nnunet.pretrained.ensure import obtain_checkpoint
from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.remap import CLASSIFIER_KEYS
from swin_umamba_nnunet.pretrained.variants import identify, shape_of

logger = logging.getLogger(__name__)

_CONVOLUTION = "patch_embed.proj.weight"
# Without the convolution these have nothing to follow; patch_embed.norm.bias is loaded (see the module's docstring).
_GO_WITH_CONVOLUTION = (_CONVOLUTION, "patch_embed.proj.bias", "patch_embed.norm.weight")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of the checkpoint and of the encoder.

    Attributes:
        source: path of the file.
        sha256: its digest.
        variant: name of the checkpoint in the registry.
        loaded: encoder tensors copied as they are.
        adapted: encoder tensors copied after a change (the input convolution, to the image's channels).
        left_out_by_design: tensors of the file that are not used; encoder tensors of the same name keep their values.
        missing: encoder tensors the file should have and does not.
        unexpected: tensors of the file nobody accounts for.
    """

    source: str
    sha256: str
    variant: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    left_out_by_design: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def summary(self) -> str:
        """One line for a log."""
        encoder = len(self.loaded) + len(self.adapted) + len(self.missing)
        encoder += sum(key not in CLASSIFIER_KEYS for key in self.left_out_by_design)
        adapted = f", of them adapted to the image's channels: {', '.join(self.adapted)}" if self.adapted else ""
        faults = f", {len(self.missing)} missing, {len(self.unexpected)} unexpected" if self.has_faults else ""
        return (
            f"ImageNet weights {self.variant} from {self.source} (sha256 {self.sha256[:16]}): "
            f"{len(self.loaded) + len(self.adapted)} of {encoder} encoder tensors loaded{adapted}{faults}; "
            f"left out by design: {', '.join(self.left_out_by_design)}"
        )

    @property
    def has_faults(self) -> bool:
        """Whether anything is unexplained; no network is ever loaded from such a file."""
        return bool(self.missing or self.unexpected)

    def to_dict(self) -> dict[str, Any]:
        """As strings and lists, for JSON and for checkpoints read with weights_only."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def load_imagenet_weights(
    network: nn.Module, weights: str | os.PathLike | None = None, *, scratch_trainer: str | None = None
) -> LoadReport:
    """Copy ImageNet weights into `network.imagenet_encoder`, in place.

    Args:
        network: one of this package's, bare or wrapped by torch.compile or DistributedDataParallel.
        weights: file or folder, instead of SWIN_UMAMBA_WEIGHTS (see `locate` for the order); downloaded if nowhere.
        scratch_trainer: trainer to recommend in the message when the weights cannot be had.

    Returns:
        The report, which is also logged.

    Raises:
        TypeError: the network has no encoder that ImageNet weights are published for.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: the file does not fit; nothing in the network has been changed.
    """
    encoder = _encoder_of(network)
    own = encoder.state_dict()
    variant = identify(own)
    if variant.record is None or variant.generation != 1:
        raise TypeError(f"the encoder of {type(network).__name__} is {variant}: there are no ImageNet weights to load")
    checkpoint = obtain_checkpoint(variant.record, weights, scratch_trainer=scratch_trainer)
    values, adapted, left_out = _plan(own, checkpoint.state_dict)
    report = LoadReport(
        source=str(checkpoint.path),
        sha256=checkpoint.sha256,
        variant=variant.record.name,
        loaded=tuple(key for key in values if key not in adapted),
        adapted=adapted,
        left_out_by_design=left_out,
        missing=tuple(key for key in own if key not in values and key not in left_out),
        unexpected=tuple(key for key in checkpoint.state_dict if key not in values and key not in left_out),
    )
    misshapen = [key for key, value in values.items() if key not in own or own[key].shape != value.shape]
    if report.has_faults or misshapen:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the encoder of {type(network).__name__}, nothing was loaded: missing "
            f"{list(report.missing)}, unexpected {list(report.unexpected)}, of another shape {misshapen}"
        )
    with torch.no_grad():
        for key, value in values.items():
            own[key].copy_(value)
    logger.info(report.summary())
    return report


def _encoder_of(network: nn.Module) -> nn.Module:
    while True:
        for wrapped in ("module", "_orig_mod"):  # DistributedDataParallel, torch.compile
            if isinstance(inner := getattr(network, wrapped, None), nn.Module):
                network = inner
                break
        else:
            break
    encoder = getattr(network, "imagenet_encoder", None)
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"{type(network).__name__} has no encoder that takes ImageNet weights (imagenet_encoder)")
    return encoder


def _plan(
    own: dict[str, Tensor], file: dict[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """What to copy under which name, which of it was adapted, and what stays out."""
    image_channels, *patch = shape_of(own[_CONVOLUTION])[1:]
    left_out = {key for key in CLASSIFIER_KEYS if key in file}
    values = {key: value for key, value in file.items() if key not in left_out}
    adapted: tuple[str, ...] = ()
    convolution = file[_CONVOLUTION]
    if tuple(patch) != tuple(convolution.shape[2:]):  # the embedding does not see the image
        left_out.update(_GO_WITH_CONVOLUTION)
        for key in _GO_WITH_CONVOLUTION:
            del values[key]
    elif image_channels != convolution.shape[1]:
        values[_CONVOLUTION] = adapt_input_convolution(convolution, image_channels)
        adapted = (_CONVOLUTION,)
    return values, adapted, tuple(key for key in file if key in left_out)
