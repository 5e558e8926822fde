"""Every key and shape of the published checkpoints, from the numbers in their records.  Pure."""

from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.pretrained.remap import classifier_keys

Shapes = dict[str, tuple[int, ...]]

_PATCH = 4  # pixels per side of the first generation's patches
_MLP_RATIO = 4  # hidden width of the second generation's MLPs over the block's


def inventory(record: WeightsRecord) -> Shapes:
    """Keys and shapes of a checkpoint, spelled as in the published files of its generation."""
    first = record.generation == 1
    channels = record.width
    shapes = _patches(record) if first else _stem(record)
    for stage, depth in enumerate(record.depths):
        block = _block(record, channels) if first else _block_v2(record, channels)
        for index in range(depth):
            shapes |= _under(f"layers.{stage}.blocks.{index}", block)
        if stage < len(record.depths) - 1:
            shapes |= _under(f"layers.{stage}.downsample", _merging(channels) if first else _halving(channels))
            channels *= 2
    classifier = (channels,), (channels,), (record.classes, channels), (record.classes,)
    return shapes | dict(zip(classifier_keys(record.generation), classifier))


def _patches(record: WeightsRecord) -> Shapes:
    return {
        "patch_embed.proj.weight": (record.width, record.image_channels, _PATCH, _PATCH),
        "patch_embed.proj.bias": (record.width,),
        **_norm("patch_embed.norm", record.width),
    }


def _stem(record: WeightsRecord) -> Shapes:
    half = record.width // 2
    return {
        **_conv("patch_embed.0", record.image_channels, half),
        **_norm("patch_embed.2", half),
        **_conv("patch_embed.5", half, record.width),
        **_norm("patch_embed.7", record.width),
    }


def _merging(channels: int) -> Shapes:
    return {"reduction.weight": (2 * channels, 4 * channels), **_norm("norm", 4 * channels)}


def _halving(channels: int) -> Shapes:
    return {**_conv("1", channels, 2 * channels), **_norm("3", 2 * channels)}


def _block(record: WeightsRecord, channels: int) -> Shapes:
    inner = record.expand * channels
    scan = {
        **_scan(record, channels),
        "in_proj.weight": (2 * inner, channels),  # its second half is the gate's
        "conv2d.weight": (inner, 1, 3, 3),
        "conv2d.bias": (inner,),
        **_norm("out_norm", inner),
        "out_proj.weight": (channels, inner),
    }
    return {**_norm("ln_1", channels), **_under("self_attention", scan)}


def _block_v2(record: WeightsRecord, channels: int) -> Shapes:
    inner, hidden = record.expand * channels, _MLP_RATIO * channels
    scan = {
        **_scan(record, channels),
        "in_proj.weight": (inner, channels),
        "conv2d.weight": (inner, 1, 3, 3),
        **_norm("out_norm", inner),
        "out_proj.weight": (channels, inner),
    }
    return {
        **_norm("norm", channels),
        **_under("op", scan),
        **_norm("norm2", channels),
        "mlp.fc1.weight": (hidden, channels),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (channels, hidden),
        "mlp.fc2.bias": (channels,),
    }


def _scan(record: WeightsRecord, channels: int) -> Shapes:
    inner, rank = record.expand * channels, -(-channels // 16)
    return {
        "x_proj_weight": (4, rank + 2 * record.d_state, inner),
        "dt_projs_weight": (4, inner, rank),
        "dt_projs_bias": (4, inner),
        "A_logs": (4 * inner, record.d_state),
        "Ds": (4 * inner,),
    }


def _conv(prefix: str, in_channels: int, out_channels: int) -> Shapes:
    return {f"{prefix}.weight": (out_channels, in_channels, 3, 3), f"{prefix}.bias": (out_channels,)}


def _norm(prefix: str, channels: int) -> Shapes:
    return {f"{prefix}.weight": (channels,), f"{prefix}.bias": (channels,)}


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{key}": shape for key, shape in shapes.items()}
