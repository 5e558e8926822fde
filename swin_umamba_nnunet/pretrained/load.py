"""ImageNet weights into a network: strict, all or nothing, and reported.

What is loaded is what the authors load, with one deviation:

- Swin-UMamba: its patch embedding is a 2x2 convolution on the stem's 48 channels, which the checkpoint's 4x4
  convolution on RGB cannot fill.  It keeps its initial values, and so does the scale of the LayerNorm behind it.  The
  authors mean to leave out that LayerNorm's bias too, but a slip in their list lets it through; the code behind the
  published results loads it, and so does ours: 205 of 208 encoder tensors.
- Swin-UMamba-dagger on three channels: all 208.
- VM-UNet: all 117 encoder tensors, where a stage that is deeper in the checkpoint gives its first blocks; and the same
  blocks once more for the decoder, stage i from VMamba's stage n-1-i: 91 of its 105 tensors.  The other 14 (expansions
  and head) have no counterpart.
- Networks on the second generation: every encoder tensor; its stem sees the image.
- The deviation: a patch embedding on the image, of another number of channels than the checkpoint's.  The authors of
  dagger drop the whole patch embedding then; here its convolution is adapted (see `adapt`) and everything is loaded, so
  that training on a grey image starts from the network that sees the same image as R = G = B.

The classifier's own norm and head are never loaded.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
from swin_umamba_nnunet.pretrained.checkpoint import Checkpoint, require
from swin_umamba_nnunet.pretrained.locate import ensure_weights
from swin_umamba_nnunet.pretrained.registry import CheckpointError, WeightsRecord, accepted_records
from swin_umamba_nnunet.pretrained.variants import classifier_keys, identify

_CONVOLUTIONS = ("patch_embed.proj.weight", "patch_embed.0.weight")  # the first one of each generation
# Without the convolution these have nothing to follow; patch_embed.norm.bias is loaded (see the module's docstring).
_GO_WITH_CONVOLUTION = (_CONVOLUTIONS[0], "patch_embed.proj.bias", "patch_embed.norm.weight")
_DECODER = "decoder."  # how the names of the tensors outside the encoder start
_BLOCK = re.compile(r"^(.*\bblocks)\.(\d+)\.")

State = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of the checkpoint and of the part of the network that is loaded.

    Tensors of the encoder have VMamba's names, those of the decoder (VM-UNet's) the network's own: `decoder.` first.

    Attributes:
        source: path of the file.
        sha256: its digest.
        variant: name of the checkpoint in the registry.
        loaded: tensors copied as they are.
        adapted: tensors copied after a change (the input convolution, to the image's channels).
        left_out_by_design: tensors of the file that are not used: the classifier's, blocks that the network is too
            shallow for, a patch embedding that would not see the image.
        missing: tensors the file should have and does not.
        unexpected: tensors of the file nobody accounts for.
        kept: tensors of the network that keep their initial values, by design.
    """

    source: str
    sha256: str
    variant: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    left_out_by_design: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for a log; blocks that were cut off are named as ranges."""
        filled, empty = (*self.loaded, *self.adapted), self.kept
        counts = []
        for part, is_decoder in (("encoder", False), ("decoder", True)):
            done, left = (sum(key.startswith(_DECODER) is is_decoder for key in keys) for keys in (filled, empty))
            if done + left:
                counts.append(f"{done} of {done + left} {part} tensors")
        adapted = f", of them adapted to the image's channels: {', '.join(self.adapted)}" if self.adapted else ""
        return (
            f"ImageNet weights {self.variant} from {self.source} (sha256 {self.sha256[:16]}): "
            f"{' and '.join(counts)} loaded{adapted}; "
            f"left out by design: {', '.join(_in_ranges(self.left_out_by_design))}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As strings and lists, for JSON and for checkpoints read with weights_only."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def _in_ranges(keys: Iterable[str]) -> list[str]:
    """Keys of a stage's blocks as one entry, "layers.2.blocks.2 to 26"; other keys as they are."""
    numbers: dict[str, set[int]] = {}  # of blocks, by what comes before them
    for key in keys:
        match = _BLOCK.match(key)
        numbers.setdefault(match[1] if match else key, set()).update({int(match[2])} if match else ())
    return [
        entry + (f".{min(of)}" if of else "") + (f" to {max(of)}" if len(of) > 1 else "")
        for entry, of in numbers.items()
    ]


def load_imagenet_weights(network: nn.Module, weights: Checkpoint | str | os.PathLike | None = None) -> LoadReport:
    """Copy ImageNet weights into `network.imagenet_encoder`, and into what `network.imagenet_copies()` names, in place.

    Args:
        network: one of this package's, bare or wrapped by torch.compile or DistributedDataParallel.
        weights: what `ensure_weights` has read; or a file or folder, instead of SWIN_UMAMBA_WEIGHTS (see `locate` for
            the order); downloaded if nowhere.
    Returns:
        The report, which is also logged.

    Raises:
        TypeError: the network has no encoder that ImageNet weights are published for.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: the file does not fit; nothing in the network has been changed.
    """
    bare = unwrap(network)
    what = type(bare).__name__
    encoder = getattr(bare, "imagenet_encoder", None)
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"{what} has no encoder that takes ImageNet weights (imagenet_encoder)")
    of_encoder = encoder.state_dict()
    accepted = _records_for(bare, of_encoder)
    if isinstance(weights, Checkpoint):
        checkpoint = weights
        require(checkpoint, accepted)
    else:
        checkpoint = ensure_weights(accepted, weights)
    file, record = dict(checkpoint.state_dict), checkpoint.record
    assert record is not None  # of a checkpoint that was accepted

    # What goes where: the network's tensor -> the file's key; the encoder's tensors under VMamba's names.
    convolution = next(key for key in _CONVOLUTIONS if key in of_encoder)
    image_channels, *patch = of_encoder[convolution].shape[1:]
    blind = _GO_WITH_CONVOLUTION if patch != list(file[convolution].shape[2:]) else ()  # it does not see the image
    if not blind:
        file[convolution] = adapt_input_convolution(file[convolution], image_channels)
    blocks = {match[0] for match in map(_BLOCK.match, of_encoder) if match}
    cut = {key for key in file if (match := _BLOCK.match(key)) and match[0] not in blocks}  # beyond the stage's last
    left_out = {*classifier_keys(record.variant.generation), *blind, *cut}
    sources = {key: key for key in file if key not in left_out}
    own, kept = dict(of_encoder), [*blind]
    if hasattr(bare, "imagenet_copies"):
        sources |= {name: key for name, key in bare.imagenet_copies().items() if key in file}
        of_decoder = {key: tensor for key, tensor in bare.state_dict().items() if key.startswith(_DECODER)}
        own |= of_decoder
        kept += [name for name in of_decoder if name not in sources]
    values = {name: file[key] for name, key in sources.items()}
    adapted = tuple(name for name, key in sources.items() if file[key] is not checkpoint.state_dict[key])
    used = set(sources.values())

    report = LoadReport(
        source=str(checkpoint.path),
        sha256=checkpoint.sha256,
        variant=record.name,
        loaded=tuple(name for name in values if name not in adapted),
        adapted=adapted,
        left_out_by_design=tuple(key for key in file if key in left_out and key not in used),
        missing=tuple(name for name in own if name not in values and name not in kept),
        unexpected=tuple(key for key in file if key not in used | left_out),
        kept=tuple(kept),
    )
    misshapen = [name for name, value in values.items() if name not in own or own[name].shape != value.shape]
    if report.missing or report.unexpected or misshapen:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the encoder of {what}, nothing was loaded: missing "
            f"{list(report.missing)}, unexpected {list(report.unexpected)}, of another shape {misshapen}"
        )
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    logger.info(report.summary())
    return report


def _records_for(network: nn.Module, encoder: State) -> list[WeightsRecord]:
    """The checkpoints a network starts from, the preferred one first.

    They are those that the registry lists under the network's `imagenet_weights`, as far as they fill the encoder,
    which may be shallower.  A network without that attribute takes the checkpoint of exactly its encoder.
    """
    variant = identify(encoder)
    if (name := getattr(network, "imagenet_weights", None)) is None:
        records = [variant.record] if variant.record else []
    else:
        records = [
            record
            for record in accepted_records(name)
            if dataclasses.replace(variant, depths=(depths := record.variant.depths)) == record.variant
            and len(variant.depths) == len(depths)
            and all(own <= depth for own, depth in zip(variant.depths, depths))
        ]
    if not records:
        what = type(network).__name__
        raise TypeError(f"the encoder of {what} is {variant}: there are no ImageNet weights to load")
    return records
