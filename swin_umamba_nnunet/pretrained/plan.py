"""Which tensor of an ImageNet checkpoint goes where in a network.  Pure: copies nothing, changes nothing.

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

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.pretrained.remap import CLASSIFIER_KEYS
from swin_umamba_nnunet.pretrained.variants import Variant, variant_of

_CONVOLUTIONS = ("patch_embed.proj.weight", "patch_embed.0.weight")  # the first one of each generation
# Without the convolution these have nothing to follow; patch_embed.norm.bias is loaded (see the module's docstring).
_GO_WITH_CONVOLUTION = (_CONVOLUTIONS[0], "patch_embed.proj.bias", "patch_embed.norm.weight")
_BLOCK = re.compile(r"^layers\.(\d+)\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class Plan:
    """Where tensors go.

    Attributes:
        sources: the network's tensor -> the file's key it is filled from; the encoder's tensors under VMamba's names.
        adapted: values that replace the file's, by the network's tensor.
        left_out: keys of the file that fill nothing, by design.
        kept: the network's tensors that keep their initial values, by design.
    """

    sources: dict[str, str]
    adapted: dict[str, Tensor]
    left_out: tuple[str, ...]
    kept: tuple[str, ...]


def is_classifiers(key: str) -> bool:
    """Whether a key of a checkpoint belongs to the classifier behind the backbone."""
    return key in CLASSIFIER_KEYS or key.startswith("classifier.")


def fits(encoder: Variant, record: WeightsRecord) -> bool:
    """Whether a checkpoint fills an encoder that may be shallower: the first blocks of each stage do."""
    of_record = variant_of(record)
    return (
        of_record == Variant(of_record.depths, encoder.width, encoder.expand, encoder.d_state, encoder.generation)
        and len(encoder.depths) == len(of_record.depths)
        and all(own <= depth for own, depth in zip(encoder.depths, of_record.depths))
    )


def make_plan(
    encoder: Mapping[str, Tensor],
    file: Mapping[str, Tensor],
    copies: Mapping[str, str] | None = None,
    others: Iterable[str] = (),
) -> Plan:
    """The plan for an encoder, and for what else in the network is filled from the same file.

    Args:
        encoder: VMamba's names -> the encoder's tensors.
        file: the checkpoint, under the same names.
        copies: further tensors of the network -> the key of the file that belongs there, if the file has it.
        others: all tensors of the part of the network that `copies` are in.
    """
    left_out = {key for key in file if is_classifiers(key) or _is_cut(key, encoder)}
    convolution = next(key for key in _CONVOLUTIONS if key in encoder)
    image_channels, *patch = encoder[convolution].shape[1:]
    adapted: dict[str, Tensor] = {}
    blind: tuple[str, ...] = ()
    if patch != list(file[convolution].shape[2:]):  # the embedding does not see the image
        blind = _GO_WITH_CONVOLUTION
        left_out.update(blind)
    elif image_channels != file[convolution].shape[1]:
        adapted[convolution] = adapt_input_convolution(file[convolution], image_channels)
    sources = {key: key for key in file if key not in left_out}
    sources |= {name: key for name, key in (copies or {}).items() if key in file}
    used = set(sources.values())
    return Plan(
        sources=sources,
        adapted=adapted,
        left_out=tuple(key for key in file if key in left_out and key not in used),
        kept=(*blind, *(name for name in others if name not in sources)),
    )


def _is_cut(key: str, encoder: Mapping[str, Tensor]) -> bool:
    """Whether a key belongs to a block beyond the last one of the encoder's stage."""
    match = _BLOCK.match(key)
    return match is not None and not any(name.startswith(match[0]) for name in encoder)
