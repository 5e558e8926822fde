"""Key names of VMamba's ImageNet checkpoints: two spellings in, one out.  Pure; knows names only, no sizes.

VMamba's first release spells its keys as the first-generation encoders of this package do (`patch_embed.proj`,
`blocks.b.ln_1`, `blocks.b.self_attention`, `downsample.norm`, `norm`, `head`).  VMamba's later code saves the same
network under other names (`blocks.b.norm`, `blocks.b.op`, `classifier.norm`, ..), and the second generation has only
ever been published under those, which are also the names in our second-generation encoder.  Whoever re-saved a
checkpoint may have the other spelling.

Second-generation files may also hold the linear layers of a block as 1x1 convolutions, which is what they were in the
code of that time; VMamba's own loader reshapes them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from swin_umamba_nnunet.pretrained.errors import CheckpointError

T = TypeVar("T")
_Renames = tuple[tuple[re.Pattern[str], str], ...]


def _renames(*pairs: tuple[str, str]) -> _Renames:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


# later spelling -> first release
_TO_FIRST = _renames(
    (r"^patch_embed\.0\.", "patch_embed.proj."),
    (r"^patch_embed\.2\.", "patch_embed.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.norm\.", r"\1.ln_1."),
    (r"^(layers\.\d+\.blocks\.\d+)\.op\.", r"\1.self_attention."),
    (r"^(layers\.\d+\.downsample)\.1\.", r"\1.norm."),
    (r"^(layers\.\d+\.downsample)\.2\.", r"\1.reduction."),
    (r"^classifier\.norm\.", "norm."),
    (r"^classifier\.head\.", "head."),
)
# first spelling -> that of the second generation's files, as far as both networks have the part
_TO_SECOND = _renames(
    (r"^(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
_LINEAR = re.compile(r"^layers\.\d+\.blocks\.\d+\.(op\.in_proj|op\.out_proj|mlp\.fc1|mlp\.fc2)\.weight$")

CLASSIFIER_KEYS = ("norm.weight", "norm.bias", "head.weight", "head.bias")


def classifier_keys(generation: int) -> tuple[str, ...]:
    """Keys of norm and head, as the published files of a generation spell them."""
    return CLASSIFIER_KEYS if generation == 1 else tuple(f"classifier.{key}" for key in CLASSIFIER_KEYS)


def generation_of(keys: Iterable[str]) -> int:
    """2 where there is an MLP or a second convolution in the stem, else 1."""
    return 2 if any(".mlp." in key or key.startswith("patch_embed.5.") for key in keys) else 1


def remap_vmamba_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """The same values under the key names of the published files; keys that are spelled so already stay.

    Args:
        state_dict: of a VMamba classifier of either generation, in either spelling.

    Raises:
        CheckpointError: two keys are two spellings of one name.
    """
    second = generation_of(state_dict) == 2
    renamed: dict[str, T] = {}
    for key, value in state_dict.items():
        name = key
        for pattern, replacement in _TO_SECOND if second else _TO_FIRST:
            name = pattern.sub(replacement, name)
        if name in renamed:
            raise CheckpointError(
                f"the checkpoint holds {name!r} twice, in two spellings; it is not a VMamba checkpoint"
            )
        renamed[name] = as_linear(value) if second and _LINEAR.match(name) else value
    return renamed


def as_linear(value: Any) -> Any:
    """(out, in, 1, 1), the weight of a 1x1 convolution, as (out, in); anything else as it is.

    Args:
        value: a tensor, or its sizes.
    """
    shape = tuple(getattr(value, "shape", value))
    if len(shape) != 4 or shape[2:] != (1, 1):
        return value
    return value[:, :, 0, 0] if hasattr(value, "shape") else shape[:2]
