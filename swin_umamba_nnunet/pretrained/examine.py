"""What an ImageNet checkpoint file is, whatever its name, and what is wrong with it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swin_umamba_nnunet.pretrained.checkpoint import check_form, check_values, load_state_dict
from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.files import sha256_of
from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.pretrained.remap import remap_vmamba_state_dict
from swin_umamba_nnunet.pretrained.variants import Variant, check_inventory, identify, inventory


@dataclass(frozen=True)
class Finding:
    """An ImageNet checkpoint that was examined.

    Attributes:
        path: absolute.
        size_bytes, sha256: of the whole file.
        variant: which VMamba, recognised from keys and shapes.
        record: the published checkpoint of that VMamba, None if there is none.
        tensors: how many the file holds.
        classifier: whether norm and head are there as published.
        faults: what keeps it from being loaded, in the order of importance; empty if nothing does.
    """

    path: Path
    size_bytes: int
    sha256: str
    variant: Variant
    record: WeightsRecord | None
    tensors: int
    classifier: bool
    faults: tuple[str, ...]


def examine_checkpoint(path: str | os.PathLike) -> Finding:
    """Recognise an ImageNet checkpoint from its keys and shapes and look for faults.

    Raises:
        CheckpointError: not a readable checkpoint, or not a VMamba classifier; the message says what it is instead.
    """
    path = Path(path).expanduser().absolute()
    try:
        state_dict = load_state_dict(path)
        variant = identify(state_dict)
        check_form(state_dict)
        state_dict = remap_vmamba_state_dict(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    record = variant.record
    size, digest = path.stat().st_size, sha256_of(path)
    faults = [] if record is None else _faults(state_dict, record, size, digest, path.name in record.file_names)
    classifier = record is not None and not _inventory_fault(state_dict, record, classifier=True)
    if record is not None:
        try:
            check_values(state_dict, inventory(record))
        except CheckpointError as error:
            faults.append(f"it {error}")
    return Finding(path, size, digest, variant, record, len(state_dict), classifier, tuple(faults))


def _faults(state_dict: Mapping[str, Tensor], record: WeightsRecord, size: int, digest: str, named: bool) -> list[str]:
    """As `ensure.obtain_checkpoint` judges: a file under a published name has to be that very file."""
    faults = []
    if fault := _inventory_fault(state_dict, record, classifier=named):
        faults.append(f"it {fault}")
    if named and record.size_bytes not in (None, size):
        faults.append(
            f"it has {size:,} bytes where the published file of its name has {record.size_bytes:,}; a copy saved again "
            "needs another name"
        )
    if named and record.sha256_confirmed and digest != record.sha256:
        faults.append(f"its sha256 differs from that of the published file of its name, {record.sha256}")
    return faults


def _inventory_fault(state_dict: Mapping[str, Tensor], record: WeightsRecord, *, classifier: bool) -> str | None:
    try:
        check_inventory(state_dict, record, classifier=classifier)
    except CheckpointError as error:
        return str(error)
    return None
