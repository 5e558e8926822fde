"""From the authors' segmentation networks to ours: renamed keys, the same tensors.

The authors' nnU-Net checkpoints hold these state dicts under "network_weights"; their key inventories are in
`golden/manifest.json` of the shared project folder.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from swin_umamba_nnunet.pretrained._authors_umamba import umamba_renaming

_DEPTHS = (2, 2, 9, 2)  # VSSBlocks per encoder stage of both published networks
_D_DECODER_DEPTHS = (2, 2, 2)
_HEADS = 4
_VM_UNET_DEPTHS = (2, 2, 2, 2)
_VM_UNET_DECODER_DEPTHS = (2, 2, 2, 1)
_WEIGHT_AND_BIAS = ("weight", "bias")
_VSS_BLOCK = (
    "ln_1.weight",
    "ln_1.bias",
    *(f"self_attention.{name}" for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")),
    "self_attention.in_proj.weight",
    "self_attention.conv2d.weight",
    "self_attention.conv2d.bias",
    "self_attention.out_norm.weight",
    "self_attention.out_norm.bias",
    "self_attention.out_proj.weight",
)
_PATCH_MERGING = ("reduction.weight", "norm.weight", "norm.bias")
_PATCH_EXPAND = ("expand.weight", "norm.weight", "norm.bias")
_COUNTERS = ("total_ops", "total_params")  # left in the state dict by thop, with which VM-UNet's training counts FLOPs
_SHOWN = 5  # keys of each kind named in an error message


def remap_authors_state_dict(network: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of the authors' segmentation network -> state dict of ours.

    Args:
        network: "swin_umamba", "swin_umamba_d", "vm_unet", or U-Mamba's "umamba_bot", "umamba_enc" and the January 2024
            forms of both, "umamba_bot_2024_01" and "umamba_enc_2024_01".
        state_dict: the authors' keys, all of them and no others; any number of channels and classes.  VM-UNet's may
            start with "vmunet.", be of any depths, and lie under "model_state_dict" as in the files of a training.

    Returns:
        Our keys with the very same tensors (nothing is copied), in the authors' order.

    Raises:
        ValueError: an unknown network, or keys that are missing or unexpected (our own ones too).
    """
    if network not in _RENAMINGS:
        raise ValueError(f"there is no key mapping for the network {network!r}; known are {', '.join(_RENAMINGS)}")
    if isinstance(wrapped := state_dict.get("model_state_dict"), Mapping):
        state_dict = wrapped
    state_dict = {key: tensor for key, tensor in state_dict.items() if key.rsplit(".", 1)[-1] not in _COUNTERS}
    renaming = _RENAMINGS[network](state_dict)
    missing = [key for key in renaming if key not in state_dict]
    unexpected = [key for key in state_dict if key not in renaming]
    if missing or unexpected:
        raise ValueError(
            f"these are not the keys of the authors' {network}: {_count(missing)} missing and {_count(unexpected)} "
            f"unexpected, of {len(renaming)} expected" + _hint(renaming, unexpected)
        )
    return {renaming[key]: tensor for key, tensor in state_dict.items()}


def _count(keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
    return f"{len(keys)} ({shown})" if keys else "none"


def _hint(renaming: Mapping[str, str], unexpected: list[str]) -> str:
    if "network_weights" in unexpected:
        return '; this is a whole nnU-Net checkpoint: pass its entry "network_weights"'
    if not set(renaming.values()).isdisjoint(unexpected):
        return "; some are this package's own keys: such a file is loaded as it is, without renaming"
    return ""


def _swin_umamba(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    renaming = {f"stem.{i}.{leaf}": f"encoder.stem.{i}.{leaf}" for i in (0, 1) for leaf in _WEIGHT_AND_BIAS}
    renaming.update(_vssm_encoder("encoder.vssm."))
    steps = len(_DEPTHS) + 1
    for i in range(steps):
        renaming.update(_residual_block(f"encoder{i + 1}.layer", f"encoder.skip_blocks.{i}"))
    first = state_dict.get("encoder1.layer.conv1.conv.weight")
    if first is not None and first.dim() == 4 and first.shape[0] == first.shape[1]:
        del renaming["encoder1.layer.conv3.conv.weight"]  # an image as wide as the stem needs no 1x1 shortcut
    for i in range(steps):
        theirs, ours = f"decoder{steps + 1 - i}", f"decoder.stages.{i}"  # they count from the finest step
        renaming[f"{theirs}.transp_conv.conv.weight"] = f"{ours}.up.weight"
        renaming.update(_residual_block(f"{theirs}.conv_block", f"{ours}.block"))
    renaming.update(_residual_block("decoder1.layer", "decoder.final_block", shortcut=False))
    for i in range(_HEADS):
        for leaf in _WEIGHT_AND_BIAS:  # their heads are finest first
            renaming[f"out_layers.{i}.conv.conv.{leaf}"] = f"decoder.seg_layers.{_HEADS - 1 - i}.{leaf}"
    return renaming


def _swin_umamba_d(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    renaming = _vssm_encoder("encoder.")
    last = len(_D_DECODER_DEPTHS)
    for i, depth in enumerate(_D_DECODER_DEPTHS):
        renaming.update(_vss_blocks(f"decoder.stages.{i}", f"decoder.stages.{i}", depth))
        renaming.update(_patch_expand(i, f"decoder.stages.{i}.expand"))
        for leaf in _WEIGHT_AND_BIAS:
            renaming[f"decoder.concat_back_dim.{i}.{leaf}"] = f"decoder.stages.{i}.reduce.{leaf}"
    renaming.update(_patch_expand(last, "decoder.final_expand"))
    for i in range(_HEADS):
        for leaf in _WEIGHT_AND_BIAS:
            renaming[f"decoder.seg_layers.{i}.{leaf}"] = f"decoder.seg_layers.{i}.{leaf}"
    return renaming


def _vm_unet(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    theirs = "vmunet." if any(key.startswith("vmunet.") for key in state_dict) else ""  # the released files have it
    stages = len(_VM_UNET_DEPTHS)
    depths = _block_counts(state_dict, f"{theirs}layers.", _VM_UNET_DEPTHS)
    renaming = {
        f"{theirs}{name}": f"encoder.{name}"
        for name in (
            *(f"patch_embed.{part}.{leaf}" for part in ("proj", "norm") for leaf in _WEIGHT_AND_BIAS),
            *(f"layers.{i}.downsample.{name}" for i in range(stages - 1) for name in _PATCH_MERGING),
        )
    }
    for i, depth in enumerate(depths):
        renaming.update(_vss_blocks(f"{theirs}layers.{i}", f"encoder.layers.{i}", depth))
    depths = _block_counts(state_dict, f"{theirs}layers_up.", _VM_UNET_DECODER_DEPTHS)
    for i, depth in enumerate(depths):
        renaming.update(_vss_blocks(f"{theirs}layers_up.{i}", f"decoder.stages.{i}", depth))
    expansions = {f"layers_up.{i}.upsample": f"stages.{i}.expand" for i in range(1, stages)}
    for old, new in {**expansions, "final_up": "final_expand"}.items():
        renaming.update({f"{theirs}{old}.{name}": f"decoder.{new}.{name}" for name in _PATCH_EXPAND})
    for leaf in _WEIGHT_AND_BIAS:
        renaming[f"{theirs}final_conv.{leaf}"] = f"decoder.seg_layers.0.{leaf}"
    return renaming


def _block_counts(state_dict: Mapping[str, Tensor], stages: str, published: tuple[int, ...]) -> list[int]:
    """Blocks per stage as far as the keys show them, else the published number: VM-UNet is in use in two depths."""
    found = [re.match(rf"{re.escape(stages)}(\d+)\.blocks\.(\d+)\.", key) for key in state_dict]
    blocks = [(int(match[1]), min(int(match[2]), len(found))) for match in found if match]  # no more than keys
    return [max((b + 1 for s, b in blocks if s == stage), default=depth) for stage, depth in enumerate(published)]


def _vssm_encoder(ours: str) -> dict[str, str]:
    theirs = "vssm_encoder."
    names = [f"patch_embed.{part}.{leaf}" for part in ("proj", "norm") for leaf in _WEIGHT_AND_BIAS]
    renaming = {theirs + name: ours + name for name in names}
    for i, depth in enumerate(_DEPTHS):
        renaming.update(_vss_blocks(f"{theirs}layers.{i}", f"{ours}layers.{i}", depth))
    for i in range(len(_DEPTHS) - 1):
        for name in _PATCH_MERGING:
            renaming[f"{theirs}downsamples.{i}.{name}"] = f"{ours}layers.{i}.downsample.{name}"
    return renaming


def _vss_blocks(theirs: str, ours: str, depth: int) -> dict[str, str]:
    return {f"{theirs}.blocks.{b}.{name}": f"{ours}.blocks.{b}.{name}" for b in range(depth) for name in _VSS_BLOCK}


def _residual_block(theirs: str, ours: str, shortcut: bool = True) -> dict[str, str]:
    parts = (
        {"conv1": "conv1", "conv2": "conv2", "conv3": "shortcut"} if shortcut else {"conv1": "conv1", "conv2": "conv2"}
    )
    return {f"{theirs}.{old}.conv.weight": f"{ours}.{new}.weight" for old, new in parts.items()}


def _patch_expand(index: int, ours: str) -> dict[str, str]:
    return {f"decoder.expand_layers.{index}.{name}": f"{ours}.{name}" for name in _PATCH_EXPAND}


_RENAMINGS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, str]]] = {
    "swin_umamba": _swin_umamba,
    "swin_umamba_d": _swin_umamba_d,
    "vm_unet": _vm_unet,
    "umamba_bot": umamba_renaming("bot", "2024-03"),
    "umamba_enc": umamba_renaming("enc", "2024-03"),
    "umamba_bot_2024_01": umamba_renaming("bot", "2024-01"),
    "umamba_enc_2024_01": umamba_renaming("enc", "2024-01"),
}
