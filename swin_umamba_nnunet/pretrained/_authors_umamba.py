"""U-Mamba's part of `authors`: its networks follow from nnU-Net's plans, so the keys expected follow from those found.

Ours are theirs but for Bot's Mamba layer, which is the encoder's last here, and the name of the upsampling layers of
January 2024.  Their decoder holds the encoder once more: files have its tensors under `decoder.encoder.` too.
"""

import re
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

_WEIGHT_AND_BIAS = ("weight", "bias")
_PROJECTED_BLOCK = tuple(
    f"{part}.{leaf}" for part in ("conv1", "norm1", "conv2", "norm2", "conv3") for leaf in _WEIGHT_AND_BIAS
)
# dynamic_network_architectures has each tensor of its convolution blocks under two names, in our networks as in theirs
_CONV_NORM = tuple(
    f"{part}.{leaf}" for part in ("conv", "norm", "all_modules.0", "all_modules.1") for leaf in _WEIGHT_AND_BIAS
)
_BASIC_BLOCK = tuple(f"{part}.{leaf}" for part in ("conv1", "conv2") for leaf in _CONV_NORM)
_SHORTCUT = tuple(leaf for leaf in _CONV_NORM if leaf not in ("conv.bias", "all_modules.0.bias"))
_MAMBA = ("A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight",
          "dt_proj.weight", "dt_proj.bias", "out_proj.weight")  # fmt: skip
_NORM = tuple(f"norm.{leaf}" for leaf in _WEIGHT_AND_BIAS)


def umamba_renaming(kind: str, release: str) -> Callable[[Mapping[str, Tensor]], dict[str, str]]:
    """The function state dict -> {the authors' key: ours} of "bot" or "enc" of that release ("2024-03", "2024-01")."""

    def renaming(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
        found = state_dict.keys()
        stages = _count(found, r"encoder\.stages\.")
        encoder = _stem(found) if release == "2024-03" else [f"encoder.stem.convs.0.{leaf}" for leaf in _CONV_NORM]
        for stage in range(stages):
            encoder += _stage(found, f"encoder.stages.{stage}.", release)
        if kind == "enc":
            for stage in range(stages):
                layer = f"encoder.mamba_layers.{stage}."
                if release == "2024-01" or any(key.startswith(layer) for key in found):
                    encoder += [layer + leaf for leaf in (*_NORM, *(f"mamba.{leaf}" for leaf in _MAMBA))]
        names = {key: key for key in encoder}
        if any(key.startswith("decoder.encoder.") for key in found):
            names.update({f"decoder.{key}": key for key in encoder})
        if kind == "bot":
            names.update(_bottleneck(release, f"encoder.mamba_layers.{stages - 1}."))
        for step in range(stages - 1):
            names.update({key: key for key in _stage(found, f"decoder.stages.{step}.", release)})
            for leaf in _WEIGHT_AND_BIAS:
                ours = f"decoder.upsample_layers.{step}."
                if release == "2024-03":
                    names[f"{ours}conv.{leaf}"] = f"{ours}conv.{leaf}"
                else:
                    names[f"decoder.transpconvs.{step}.{leaf}"] = ours + leaf
                names[f"decoder.seg_layers.{step}.{leaf}"] = f"decoder.seg_layers.{step}.{leaf}"
        return names

    return renaming


def _count(found: Collection[str], prefix: str) -> int:
    """One more than the largest number after `prefix` (a pattern), 1 if there is none; no more than there are keys."""
    numbers = (re.match(rf"{prefix}(\d+)\.", key) for key in found)
    return min(1 + max((int(number[1]) for number in numbers if number), default=0), max(1, len(found)))


def _stem(found: Collection[str]) -> list[str]:
    return _projected_first("encoder.stem.", _count(found, r"encoder\.stem\."))


def _stage(found: Collection[str], stage: str, release: str) -> list[str]:
    if release == "2024-03":
        return _projected_first(stage, _count(found, re.escape(stage)))
    blocks = stage + "blocks."
    keys = [f"{blocks}{b}.{leaf}" for b in range(_count(found, re.escape(blocks))) for leaf in _BASIC_BLOCK]
    for position in range(2):  # after the pooling where the stage has a stride, else first; absent at equal widths
        shortcut = f"{blocks}0.skip.{position}."
        if any(key.startswith(shortcut) for key in found):
            keys += [shortcut + leaf for leaf in _SHORTCUT]
    return keys


def _projected_first(prefix: str, blocks: int) -> list[str]:
    first = [f"{prefix}0.{leaf}" for leaf in _PROJECTED_BLOCK]
    return first + [f"{prefix}{block}.{leaf}" for block in range(1, blocks) for leaf in _BASIC_BLOCK]


def _bottleneck(release: str, ours: str) -> dict[str, str]:
    norm, mamba = ("mamba_layer.norm.", "mamba_layer.mamba.") if release == "2024-03" else ("ln.", "mamba.")
    names = {norm + leaf: f"{ours}norm.{leaf}" for leaf in _WEIGHT_AND_BIAS}
    return names | {mamba + leaf: f"{ours}mamba.{leaf}" for leaf in _MAMBA}
