"""Reading an ImageNet checkpoint file safely: tensors only, never code."""

import collections
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.files import sha256_of, why_not_a_checkpoint
from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.pretrained.remap import remap_vmamba_state_dict
from swin_umamba_nnunet.pretrained.variants import Variant, check_inventory, identify, variant_of

# Older copies store their yacs configuration beside the weights.  torch's restricted unpickler then fills an
# OrderedDict in its place: a plain container, so nothing is imported or run.
_YACS_NODE = "yacs.config.CfgNode"
_ALLOWED: list[Any] = [(collections.OrderedDict, _YACS_NODE)]


@dataclass(frozen=True)
class Checkpoint:
    """A file that was read.

    Attributes:
        path: absolute.
        sha256: of the whole file.
        state_dict: keys spelled as in the published files of its generation.
        record: the published checkpoint that it is.
    """

    path: Path
    sha256: str
    state_dict: dict[str, Tensor]
    record: WeightsRecord


def read_checkpoint(path: str | os.PathLike, *expected: WeightsRecord, classifier: bool = False) -> Checkpoint:
    """Read the checkpoint of one of the `expected` records from `path` and make sure that it is one.

    Args:
        path: the file; `{"model": state_dict}` or a bare state dict, VMamba's first or later spelling of the keys.
        expected: records, one at least.
        classifier: whether norm and head must be there as published (see `check_inventory`).

    Raises:
        CheckpointError: not a readable file, damaged, not a checkpoint, of another network or another VMamba, or with
            values that are not finite.
    """
    path = Path(path).absolute()
    what = "expected " + " or ".join(f"{record.title}, {record.file_name} from {record.url}" for record in expected)
    try:
        state_dict = load_state_dict(path)
        found = identify(state_dict)
        record = next((record for record in expected if variant_of(record) == found), None)
        if record is None:
            raise CheckpointError(f"is {found}{_too_wide(found, expected)}")
        state_dict = remap_vmamba_state_dict(state_dict)
        check_inventory(state_dict, record, classifier=classifier)
        broken = [key for key, value in state_dict.items() if not torch.isfinite(value).all()]
        if broken:
            raise CheckpointError(f"holds values that are not finite, the first in {broken[0]}")
        return Checkpoint(path, sha256_of(path), state_dict, record)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}; {what}") from error


def _too_wide(found: Variant, expected: Sequence[WeightsRecord]) -> str:
    width = max(record.width for record in expected)
    return f", too wide for a network of width {width}" if found.width > width else ""


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, whatever it is of: `{"model": state_dict}` or a bare one.

    Raises:
        CheckpointError: the file cannot be read or holds none; the message continues "PATH ...".
    """
    return _state_dict_of(_load(path))


def _load(path: Path) -> Any:
    """The file's content; every error continues the sentence that starts with the file's name."""
    if path.is_dir():
        raise CheckpointError("is a folder, not a checkpoint file")
    if not path.exists():
        raise CheckpointError("does not exist")
    try:
        if (found := why_not_a_checkpoint(path)) is not None:
            raise CheckpointError(f"is {found}")
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})") from error
    try:
        return _load_tensors(path)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise CheckpointError("is damaged or not a PyTorch checkpoint") from error
        raise CheckpointError(
            f"holds Python objects besides tensors ({refused[1]}), which this package never loads because that could "
            "run code; where you trust the file, load it elsewhere and save only its weights: "
            "torch.save({'model': ...})"
        ) from error
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        raise CheckpointError("is truncated or damaged: torch.load cannot read it") from error


def _load_tensors(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _YACS_NODE not in str(error) or not hasattr(torch.serialization, "safe_globals"):
            raise
        refused = error
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except AttributeError as unsupported:  # PyTorch 2.5 takes classes only, and asks our pair for its __module__
        raise refused from unsupported


def _state_dict_of(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not a state dict")
    if "network_weights" in content:
        raise CheckpointError(
            "is an nnU-Net checkpoint (it has 'network_weights'), not ImageNet weights; to start from a trained "
            "segmentation network use nnUNetv2_train's -pretrained_weights"
        )
    state_dict = content["model"] if isinstance(content.get("model"), Mapping) else content
    strangers = [str(key) for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if strangers or not state_dict:
        raise CheckpointError(
            f"holds no state dict (entries that are no tensors: {', '.join(strangers[:4]) or 'none'})"
        )
    return dict(state_dict)
