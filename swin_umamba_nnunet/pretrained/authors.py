"""From the authors' segmentation networks to ours: renamed keys, the same tensors.

The keys expected are those of our own network, built without memory in the depths that a file shows, under the authors'
names; so there is one statement of what each network consists of.  The authors' nnU-Net checkpoints hold these state
dicts under "network_weights"; their key inventories are in `golden/manifest.json` of the shared project folder.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import Tensor

from swin_umamba_nnunet import networks
from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.pretrained.variants import shapes_of

_COUNTERS = ("total_ops", "total_params")  # left in the state dict by thop, with which VM-UNet's training counts FLOPs
_MOST = 64  # stages or blocks in a row: more than in any network, so that no file makes us build a larger one

StateDict = Mapping[str, Tensor]
Renaming = tuple[Iterable[str], dict[str, str]]  # our keys, and our pattern -> theirs, applied in this order


def remap_authors_state_dict(network: str, state_dict: StateDict) -> dict[str, Tensor]:
    """State dict of the authors' segmentation network -> state dict of ours.

    Args:
        network: "swin_umamba", "swin_umamba_d", "vm_unet", or U-Mamba's "umamba_bot", "umamba_enc" and the January 2024
            forms of both, "umamba_bot_2024_01" and "umamba_enc_2024_01".
        state_dict: the authors' keys, all of them and no others; any number of channels and classes.  VM-UNet's may
            start with "vmunet.", be of any depths, and lie under "model_state_dict" as in the files of a training.
            U-Mamba's may be of any plans, and hold the encoder once more under `decoder.encoder.`

    Returns:
        Our keys with the very same tensors (nothing is copied), in the authors' order.

    Raises:
        ValueError: an unknown network, or keys that are missing or unexpected (our own ones too).
    """
    if network not in _NETWORKS:
        raise ValueError(f"there is no key mapping for the network {network!r}; known are {', '.join(_NETWORKS)}")
    if isinstance(wrapped := state_dict.get("model_state_dict"), Mapping):
        state_dict = wrapped
    state_dict = {key: tensor for key, tensor in state_dict.items() if key.rsplit(".", 1)[-1] not in _COUNTERS}
    keys, patterns = _NETWORKS[network](state_dict)
    renaming = {}
    for key in keys:
        theirs = key
        for ours, replacement in patterns.items():
            theirs = re.sub(ours, replacement, theirs)
        renaming[theirs] = key
    if any(key.startswith("decoder.encoder.") for key in state_dict):  # U-Mamba's decoder may have its encoder again
        renaming |= {f"decoder.{key}": ours for key, ours in renaming.items() if key.startswith("encoder.")}
    missing = [key for key in renaming if key not in state_dict]
    unexpected = [key for key in state_dict if key not in renaming]
    if missing or unexpected:
        raise ValueError(
            f"these are not the keys of the authors' {network}: {len(missing)} missing "
            f"({listed(missing, 4) or 'none'}) and {len(unexpected)} unexpected ({listed(unexpected, 4) or 'none'}), "
            f"of {len(renaming)} expected" + _hint(renaming, unexpected)
        )
    return {renaming[key]: tensor for key, tensor in state_dict.items()}


def _hint(renaming: Mapping[str, str], unexpected: list[str]) -> str:
    if "network_weights" in unexpected:
        return '; this is a whole nnU-Net checkpoint: pass its entry "network_weights"'
    if not set(renaming.values()).isdisjoint(unexpected):
        return "; some are this package's own keys: such a file is loaded as it is, without renaming"
    return ""


def _swin_umamba(found: StateDict) -> Renaming:
    first = found.get("encoder1.layer.conv1.conv.weight")
    width = 48  # of the stem: an image as wide needs no 1x1 shortcut
    square = first is not None and first.dim() == 4 and first.shape[0] == first.shape[1]
    return shapes_of(networks.SwinUMamba, width if square else 1, 2), {
        r"^encoder\.stem": "stem",
        r"^encoder\.vssm\.layers\.(\d+)\.downsample": r"vssm_encoder.downsamples.\1",
        r"^encoder\.vssm": "vssm_encoder",
        **{rf"^encoder\.skip_blocks\.{i}": f"encoder{i + 1}.layer" for i in range(5)},
        **{rf"^decoder\.stages\.{i}\.up": f"decoder{6 - i}.transp_conv.conv" for i in range(5)},  # from the finest step
        **{rf"^decoder\.stages\.{i}\.block": f"decoder{6 - i}.conv_block" for i in range(5)},
        r"^decoder\.final_block": "decoder1.layer",
        **{rf"^decoder\.seg_layers\.{i}": f"out_layers.{3 - i}.conv.conv" for i in range(4)},  # finest first
        r"\.(conv[12])\.weight$": r".\1.conv.weight",
        r"\.shortcut\.weight$": ".conv3.conv.weight",
    }


def _swin_umamba_d(found: StateDict) -> Renaming:
    return shapes_of(networks.SwinUMambaD, 1, 2), {
        r"^encoder\.layers\.(\d+)\.downsample": r"vssm_encoder.downsamples.\1",
        r"^encoder\.": "vssm_encoder.",
        r"^decoder\.stages\.(\d+)\.expand": r"decoder.expand_layers.\1",
        r"^decoder\.final_expand": "decoder.expand_layers.3",
        r"^decoder\.stages\.(\d+)\.reduce": r"decoder.concat_back_dim.\1",
    }


def _vm_unet(found: StateDict) -> Renaming:
    prefix = "vmunet." if any(key.startswith("vmunet.") for key in found) else ""  # the released files have it
    encoder, decoder = (_blocks(found, rf"{prefix}{stages}\.(\d+)\.blocks", 4) for stages in ("layers", "layers_up"))
    return shapes_of(networks.VMUNet, 3, 2, depths=encoder, depths_decoder=decoder), {
        r"^encoder\.": prefix,
        r"^decoder\.stages\.(\d+)\.blocks": rf"{prefix}layers_up.\1.blocks",
        r"^decoder\.stages\.(\d+)\.expand": rf"{prefix}layers_up.\1.upsample",
        r"^decoder\.final_expand": f"{prefix}final_up",
        r"^decoder\.seg_layers\.0": f"{prefix}final_conv",
    }


def _umamba(network: str, release: str, patterns: Mapping[str, str], found: StateDict) -> Renaming:
    """U-Mamba of the smallest plans with the stages, blocks and shortcuts of a file; widths and kernels name no key."""
    blocks = r"\.(\d+)\.blocks" if release == "2024-01" else r"\.(\d+)"
    numbers = [int(match[1]) for match in map(re.compile(r"encoder\.stages\.(\d+)\.").match, found) if match]
    stages = min(max([1, *numbers]), _MOST) + 1
    # a shortcut's convolution comes first, or after the pooling where the stage has a stride, and only at new widths
    shortcuts = [
        next((at for at in (0, 1) if f"encoder.stages.{stage}.blocks.0.skip.{at}.conv.weight" in found), None)
        for stage in range(stages)
    ]
    widths = [1 + sum(shortcut is not None for shortcut in shortcuts[: stage + 1]) for stage in range(stages)]
    weight = found.get("encoder.stages.0.0.conv1.weight")
    one = (1,) * (3 if weight is not None and weight.dim() == 5 else 2)
    keys = shapes_of(
        getattr(networks, network),
        1,
        2,
        release=release,
        patch_size=one,
        n_stages=stages,
        features_per_stage=tuple(widths),
        kernel_sizes=(one,) * stages,
        strides=tuple(tuple(1 + (at or 0) for _ in one) for at in shortcuts),
        n_conv_per_stage=_blocks(found, rf"encoder\.stages{blocks}", stages),
        n_conv_per_stage_decoder=_blocks(found, rf"decoder\.stages{blocks}", stages - 1),
    )
    return keys, dict(patterns)


def _blocks(found: StateDict, stage: str, stages: int) -> tuple[int, ...]:
    """Blocks of each stage as far as the keys show them, one at least; `stage` is a pattern with its number."""
    pairs = {match.groups() for match in map(re.compile(rf"{stage}\.(\d+)\.").match, found) if match}
    counts = Counter(int(stage) for stage, _ in pairs)
    return tuple(min(max(1, counts[stage]), _MOST) for stage in range(stages))


_MARCH, _JANUARY = "2024-03", "2024-01"
_TRANSPOSED = {r"^decoder\.upsample_layers": "decoder.transpconvs"}
_BOT = {r"^encoder\.mamba_layers\.\d+\.": "mamba_layer."}  # the encoder's last layer here
_BOT_JANUARY = {r"^encoder\.mamba_layers\.\d+\.norm": "ln", r"^encoder\.mamba_layers\.\d+\.": ""}
_NETWORKS: dict[str, Callable[[StateDict], Renaming]] = {
    "swin_umamba": _swin_umamba,
    "swin_umamba_d": _swin_umamba_d,
    "vm_unet": _vm_unet,
    "umamba_bot": partial(_umamba, "UMambaBot", _MARCH, _BOT),
    "umamba_enc": partial(_umamba, "UMambaEnc", _MARCH, {}),
    "umamba_bot_2024_01": partial(_umamba, "UMambaBot", _JANUARY, {**_BOT_JANUARY, **_TRANSPOSED}),
    "umamba_enc_2024_01": partial(_umamba, "UMambaEnc", _JANUARY, _TRANSPOSED),
}
