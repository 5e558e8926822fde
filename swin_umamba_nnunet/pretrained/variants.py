"""Which VMamba a set of keys and shapes belongs to, how its keys are spelled, and whether it is complete.  Pure.

VMamba's first release spells its keys as the first-generation encoders of this package do (`patch_embed.proj`,
`blocks.b.ln_1`, `blocks.b.self_attention`, `downsample.norm`, `norm`, `head`).  VMamba's later code saves the same
network under other names (`blocks.b.norm`, `blocks.b.op`, `classifier.norm`, ..), and the second generation has only
ever been published under those, which are also the names in our second-generation encoder.  Whoever re-saved a
checkpoint may have the other spelling.

Second-generation files may also hold the linear layers of a block as 1x1 convolutions, which is what they were in the
code of that time; VMamba's own loader reshapes them.

A mapping of keys to tensors or to tuples of sizes serves alike.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.networks import VSSMEncoder, VSSMEncoderV2
from swin_umamba_nnunet.pretrained.registry import CheckpointError, Variant, WeightsRecord

Shapes = dict[str, tuple[int, ...]]

_BLOCK = r"^(layers\.\d+\.blocks\.\d+)"
# by generation: the other spelling -> that of the published files, as far as both networks have the part
_SPELLING = {
    1: {
        r"^patch_embed\.0\.": "patch_embed.proj.",
        r"^patch_embed\.2\.": "patch_embed.norm.",
        rf"{_BLOCK}\.norm\.": r"\1.ln_1.",
        rf"{_BLOCK}\.op\.": r"\1.self_attention.",
        r"^(layers\.\d+\.downsample)\.1\.": r"\1.norm.",
        r"^(layers\.\d+\.downsample)\.2\.": r"\1.reduction.",
        r"^classifier\.": "",
    },
    2: {
        rf"{_BLOCK}\.ln_1\.": r"\1.norm.",
        rf"{_BLOCK}\.self_attention\.": r"\1.op.",
        r"^(norm|head)\.": r"classifier.\1.",
    },
}
_LINEAR = re.compile(rf"{_BLOCK}\.(op\.in_proj|op\.out_proj|mlp\.fc1|mlp\.fc2)\.weight$")
_A_LOGS = re.compile(r"^(.*?)layers\.(\d{1,4})\.blocks\.\d+\.(self_attention|op)\.A_logs$")
_LISTED = 4  # keys named in a message


def identify(state_dict: Mapping) -> Variant:
    """Recognise a VMamba backbone by its keys (either spelling) and shapes alone.

    Raises:
        CheckpointError: there is no VMamba backbone at the top level of these keys.
    """
    scans = [match for match in map(_A_LOGS.match, state_dict) if match]
    if not scans:
        raise CheckpointError(f"holds no VMamba backbone: its keys are {listed(state_dict, _LISTED) or 'none'}")
    if prefix := scans[0].group(1):
        raise CheckpointError(
            f"is the checkpoint of a whole network around a VMamba backbone (keys start with {prefix!r}), expected an "
            "ImageNet classifier"
        )
    blocks = Counter(int(match.group(2)) for match in scans)
    first = f"layers.0.blocks.0.{scans[0].group(3)}"
    try:
        width, inner = _as_linear(_shape_of(state_dict[f"{first}.out_proj.weight"]))
        _, d_state = _shape_of(state_dict[f"{first}.A_logs"])
        if width < 1:
            raise ValueError("its width is 0")
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"has a first VMamba block that is incomplete or of odd shape ({error})") from error
    depths = tuple(blocks[stage] for stage in sorted(blocks))
    return Variant(depths, width, inner // width, d_state, _generation_of(state_dict))


def remap_vmamba_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the key names of the published files; keys that are spelled so already stay.

    Args:
        state_dict: of a VMamba classifier of either generation, in either spelling.

    Raises:
        CheckpointError: two keys are two spellings of one name.
    """
    generation = _generation_of(state_dict)
    renamed: dict[str, Any] = {}
    for key, value in state_dict.items():
        name = key
        for pattern, replacement in _SPELLING[generation].items():
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise CheckpointError(
                f"the checkpoint holds {name!r} twice, in two spellings; it is not a VMamba checkpoint"
            )
        renamed[name] = _as_linear(value) if generation == 2 and _LINEAR.match(name) else value
    return renamed


def _generation_of(keys: Mapping) -> int:
    """2 where there is an MLP or a second convolution in the stem, else 1."""
    return 2 if any(".mlp." in key or key.startswith("patch_embed.5.") for key in keys) else 1


def _shape_of(value: Any) -> tuple[int, ...]:
    """Sizes of a tensor, or of what is a sequence of sizes already."""
    return tuple(getattr(value, "shape", value))


def _as_linear(value: Any) -> Any:
    """(out, in, 1, 1), the weight of a 1x1 convolution or its sizes, as (out, in); anything else as it is."""
    shape = _shape_of(value)
    if len(shape) != 4 or shape[2:] != (1, 1):
        return value
    return value[:, :, 0, 0] if hasattr(value, "shape") else shape[:2]


def classifier_keys(generation: int) -> tuple[str, ...]:
    """Keys of norm and head, as the published files of a generation spell them."""
    prefix = "" if generation == 1 else "classifier."
    return tuple(f"{prefix}{part}.{leaf}" for part in ("norm", "head") for leaf in ("weight", "bias"))


@functools.cache
def shapes_of(network: Callable[..., nn.Module], *args: Any, **settings: Any) -> Mapping[str, tuple[int, ...]]:
    """Keys and shapes of a network of these settings, which takes no memory for them."""
    with torch.device("meta"):
        return shapes_in(network(*args, **settings).state_dict())


def shapes_in(state_dict: Mapping) -> Shapes:
    """Keys and shapes; in place of tensors there may be shapes already."""
    return {key: _shape_of(value) for key, value in state_dict.items()}


def differences(found: Shapes, expected: Shapes) -> dict[str, list[str]]:
    """What is wrong -> with which keys, in words; empty lists where two inventories are the same."""
    return {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [
            f"{key} {found[key]} instead of {shape}"
            for key, shape in expected.items()
            if found.get(key, shape) != shape
        ],
    }


def inventory(record: WeightsRecord) -> Shapes:
    """Keys and shapes of a checkpoint, spelled as in the published files of its generation: those of our encoder,
    whose names are VMamba's, and the classifier's."""
    variant, image = record.variant, record.image_channels
    settings = {"depths": variant.depths, "width": variant.width, "d_state": variant.d_state}
    if variant.generation == 1:
        encoder = shapes_of(VSSMEncoder, image, **settings)
    else:
        encoder = shapes_of(VSSMEncoderV2, image, expand=variant.expand, **settings)
    channels, classes = variant.width * 2 ** (len(variant.depths) - 1), record.classes
    classifier = (channels,), (channels,), (classes, channels), (classes,)
    return {**encoder, **dict(zip(classifier_keys(variant.generation), classifier))}


def check_inventory(state_dict: Mapping, record: WeightsRecord, *, classifier: bool = True) -> None:
    """Compare the keys (as `remap_vmamba_state_dict` spells them) and shapes of a checkpoint with those of `record`.

    Args:
        state_dict: keys to tensors or shapes.
        record: what it should be.
        classifier: whether norm and head belong to it; without, they may be there or not, and of any shape.

    Raises:
        CheckpointError: something is missing, of another shape, or should not be there.
    """
    left_out = () if classifier else classifier_keys(record.variant.generation)
    found, expected = (
        {key: shape for key, shape in shapes.items() if key not in left_out}
        for shapes in (shapes_in(state_dict), inventory(record))
    )
    faults = differences(found, expected).items()
    if told := "; ".join(f"{len(keys)} {fault}: {listed(keys, _LISTED)}" for fault, keys in faults if keys):
        raise CheckpointError(f"does not hold the {len(expected)} tensors of {record.title} ({told})")
