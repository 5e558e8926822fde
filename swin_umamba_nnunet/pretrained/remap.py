"""Key names of VMamba's ImageNet checkpoints: two spellings in, one out.  Pure; knows names only, no shapes.

The first release spells its keys as the encoders of this package do (`patch_embed.proj`, `blocks.b.ln_1`,
`blocks.b.self_attention`, `downsample.norm`, `norm`, `head`).  VMamba's later code saves the same network under other
names.  Whoever re-saved a checkpoint with it has the second spelling.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from swin_umamba_nnunet.pretrained.errors import CheckpointError

T = TypeVar("T")

# later spelling -> first release
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^patch_embed\.0\.", "patch_embed.proj."),
        (r"^patch_embed\.2\.", "patch_embed.norm."),
        (r"^(layers\.\d+\.blocks\.\d+)\.norm\.", r"\1.ln_1."),
        (r"^(layers\.\d+\.blocks\.\d+)\.op\.", r"\1.self_attention."),
        (r"^(layers\.\d+\.downsample)\.1\.", r"\1.norm."),
        (r"^(layers\.\d+\.downsample)\.2\.", r"\1.reduction."),
        (r"^classifier\.norm\.", "norm."),
        (r"^classifier\.head\.", "head."),
    )
)

CLASSIFIER_KEYS = ("norm.weight", "norm.bias", "head.weight", "head.bias")


def remap_vmamba_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """The same values under the first release's key names; keys that are spelled so already stay.

    Args:
        state_dict: of a first-generation VMamba classifier, in either spelling.

    Raises:
        CheckpointError: two keys are two spellings of one name.
    """
    renamed: dict[str, T] = {}
    for key, value in state_dict.items():
        name = key
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        if name in renamed:
            raise CheckpointError(
                f"the checkpoint holds {name!r} twice, in two spellings; it is not a VMamba checkpoint"
            )
        renamed[name] = value
    return renamed
