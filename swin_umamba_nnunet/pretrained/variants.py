"""Which VMamba a set of keys and shapes belongs to, and the full inventory of the ones our encoders are.  Pure.

Shapes are read with `shape_of`: a mapping of keys to tensors or to tuples of sizes serves alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.registry import RECORDS, WeightsRecord
from swin_umamba_nnunet.pretrained.remap import CLASSIFIER_KEYS

_A_LOGS = re.compile(r"^(.*?)layers\.(\d+)\.blocks\.(\d+)\.(self_attention|op)\.A_logs$")
_PATCH = 4  # pixels per side; all published checkpoints
_LISTED = 4  # keys named in a message


@dataclass(frozen=True)
class Variant:
    """What tells one VMamba backbone from another; fields as in WeightsRecord."""

    depths: tuple[int, ...]
    width: int
    expand: int
    d_state: int
    generation: int

    @property
    def record(self) -> WeightsRecord | None:
        """The published checkpoint of this backbone, or None."""
        return next((record for record in RECORDS if variant_of(record) == self), None)

    def __str__(self) -> str:
        facts = (
            f"depths {','.join(map(str, self.depths))}, width {self.width}, expand {self.expand}, "
            f"d_state {self.d_state}, generation {self.generation}"
        )
        return f"{self.record.title} ({facts})" if self.record else f"a VMamba nobody published ({facts})"


def variant_of(record: WeightsRecord) -> Variant:
    """The backbone a record's file holds."""
    return Variant(record.depths, record.width, record.expand, record.d_state, record.generation)


def shape_of(value) -> tuple[int, ...]:
    """Sizes of a tensor, or of what is a sequence of sizes already."""
    return tuple(getattr(value, "shape", value))


def identify(state_dict: Mapping) -> Variant:
    """Recognise a VMamba backbone by its keys (either spelling) and shapes alone.

    Raises:
        CheckpointError: there is no VMamba backbone at the top level of these keys.
    """
    scans = [match for match in map(_A_LOGS.match, state_dict) if match]
    if not scans:
        raise CheckpointError(f"holds no VMamba backbone: its keys are {_listed(list(state_dict))}")
    if prefix := scans[0].group(1):
        raise CheckpointError(
            f"is the checkpoint of a whole network around a VMamba backbone (keys start with {prefix!r}), expected an "
            "ImageNet classifier"
        )
    blocks: dict[int, int] = {}
    for match in scans:
        blocks[int(match.group(2))] = blocks.get(int(match.group(2)), 0) + 1
    first = f"layers.0.blocks.0.{scans[0].group(4)}"
    try:
        width, inner = shape_of(state_dict[f"{first}.out_proj.weight"])
        _, d_state = shape_of(state_dict[f"{first}.A_logs"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"has a first VMamba block that is incomplete or of odd shape ({error})") from error
    second = any(".mlp." in key or key.startswith("patch_embed.5.") for key in state_dict)
    return Variant(tuple(blocks[stage] for stage in sorted(blocks)), width, inner // width, d_state, 2 if second else 1)


def inventory(record: WeightsRecord) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a first-generation checkpoint, in the first release's spelling, in its order.

    Raises:
        ValueError: `record` is of the second generation, which no network here uses.
    """
    if record.generation != 1:
        raise ValueError(f"the inventory of {record.name} is not known here: no network of this package uses it")
    channels, states = record.width, record.d_state
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (channels, record.image_channels, _PATCH, _PATCH),
        "patch_embed.proj.bias": (channels,),
        **_norm("patch_embed.norm", channels),
    }
    for stage, depth in enumerate(record.depths):
        inner, rank = record.expand * channels, -(-channels // 16)
        for block in range(depth):
            prefix = f"layers.{stage}.blocks.{block}"
            scan = f"{prefix}.self_attention"
            shapes |= _norm(f"{prefix}.ln_1", channels) | {
                f"{scan}.x_proj_weight": (4, rank + 2 * states, inner),
                f"{scan}.dt_projs_weight": (4, inner, rank),
                f"{scan}.dt_projs_bias": (4, inner),
                f"{scan}.A_logs": (4 * inner, states),
                f"{scan}.Ds": (4 * inner,),
                f"{scan}.in_proj.weight": (2 * inner, channels),
                f"{scan}.conv2d.weight": (inner, 1, 3, 3),
                f"{scan}.conv2d.bias": (inner,),
                **_norm(f"{scan}.out_norm", inner),
                f"{scan}.out_proj.weight": (channels, inner),
            }
        if stage < len(record.depths) - 1:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * channels, 4 * channels)
            shapes |= _norm(f"layers.{stage}.downsample.norm", 4 * channels)
            channels *= 2
    classifier = (channels,), (channels,), (record.classes, channels), (record.classes,)
    return shapes | dict(zip(CLASSIFIER_KEYS, classifier))


def check_inventory(state_dict: Mapping, record: WeightsRecord, *, classifier: bool = True) -> None:
    """Compare the keys (first release's spelling) and shapes of a checkpoint with those of `record`.

    Args:
        state_dict: keys to tensors or shapes.
        record: what it should be.
        classifier: whether norm and head belong to it; without, they may be there or not, and of any shape.

    Raises:
        CheckpointError: something is missing, of another shape, or should not be there.
    """
    found = {key: shape_of(value) for key, value in state_dict.items()}
    expected = inventory(record)
    if not classifier:
        for key in CLASSIFIER_KEYS:
            found.pop(key, None)
            expected.pop(key)
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    misshapen = [
        f"{key} {found[key]} instead of {shape}" for key, shape in expected.items() if found.get(key, shape) != shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(faults.values()):
        told = "; ".join(f"{len(keys)} {fault}: {_listed(keys)}" for fault, keys in faults.items() if keys)
        raise CheckpointError(f"does not hold the {len(expected)} tensors of {record.title} ({told})")


def _norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (channels,), f"{prefix}.bias": (channels,)}


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(map(str, keys[:_LISTED])) + more if keys else "none"
