"""Which VMamba a set of keys and shapes belongs to, and whether it is complete.  Pure.

Shapes are read with `shape_of`: a mapping of keys to tensors or to tuples of sizes serves alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swin_umamba_nnunet.pretrained._inventory import inventory
from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.registry import RECORDS, WeightsRecord
from swin_umamba_nnunet.pretrained.remap import as_linear, classifier_keys, generation_of

_A_LOGS = re.compile(r"^(.*?)layers\.(\d+)\.blocks\.(\d+)\.(self_attention|op)\.A_logs$")
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
        width, inner = as_linear(shape_of(state_dict[f"{first}.out_proj.weight"]))
        _, d_state = shape_of(state_dict[f"{first}.A_logs"])
        if width < 1:
            raise ValueError("its width is 0")
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"has a first VMamba block that is incomplete or of odd shape ({error})") from error
    depths = tuple(blocks[stage] for stage in sorted(blocks))
    return Variant(depths, width, inner // width, d_state, generation_of(state_dict))


def check_inventory(state_dict: Mapping, record: WeightsRecord, *, classifier: bool = True) -> None:
    """Compare the keys (as `remap` spells them) and shapes of a checkpoint with those of `record`.

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
        for key in classifier_keys(record.generation):
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


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(map(str, keys[:_LISTED])) + more if keys else "none"
