"""Reading an ImageNet checkpoint file safely: tensors only, never code."""

import codecs
import collections
import contextlib
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.files import require_checkpoint_file, sha256_of
from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.pretrained.remap import remap_vmamba_state_dict
from swin_umamba_nnunet.pretrained.variants import Variant, check_inventory, identify, inventory, variant_of

# Older copies store their yacs configuration beside the weights.  torch's restricted unpickler then fills an
# OrderedDict in its place: a plain container, so nothing is imported or run.
_YACS_NODE = "yacs.config.CfgNode"
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])
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
            tensors that are no weights (see `check_form` and `check_values`).
    """
    path = Path(path).absolute()
    what = "expected " + " or ".join(f"{record.title}, {record.file_name} from {record.url}" for record in expected)
    try:
        state_dict = load_state_dict(path)
        found = identify(state_dict)
        record = next((record for record in expected if variant_of(record) == found), None)
        if record is None:
            raise CheckpointError(f"is {found}{_too_wide(found, expected)}")
        check_form(state_dict)
        state_dict = remap_vmamba_state_dict(state_dict)
        check_inventory(state_dict, record, classifier=classifier)
        check_values(state_dict, inventory(record))
        return Checkpoint(path, sha256_of(path), state_dict, record)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}; {what}") from error


def _too_wide(found: Variant, expected: Sequence[WeightsRecord]) -> str:
    width = max(record.width for record in expected)
    return f", too wide for a network of width {width}" if found.width > width else ""


def check_form(state_dict: Mapping[str, Tensor], counters: Mapping[str, torch.dtype] | None = None) -> None:
    """Accept only what can be a network's weights, as far as that shows without touching a value.

    A weight is a dense tensor of float16, bfloat16, float32 or float64 with its values in memory: not sparse, nested,
    quantised or on the meta device, and nothing that a conversion to float32 would change silently (integers, booleans,
    complex numbers, 8-bit floats).  No network of this package has a tensor of another kind; a user's may have
    counters, such as BatchNorm's `num_batches_tracked`.

    Args:
        state_dict: names -> tensors.
        counters: names -> integer types of those that the network has as such; they are held to that type instead.

    Raises:
        CheckpointError: naming the first tensor that is none; the message continues "PATH ...".
    """
    for key, tensor in state_dict.items():
        counter = (counters or {}).get(key)
        if (found := _odd_form(tensor, _FLOATING if counter is None else (counter,))) is not None:
            expected = "of floating-point numbers" if counter is None else f"of {counter} there"
            raise CheckpointError(
                f"holds {key} as {found}; expected dense tensors {expected}: get the file that its "
                "authors published, or save its weights anew as such"
            )


def _odd_form(tensor: Tensor, dtypes: Sequence[torch.dtype]) -> str | None:
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"a tensor of layout {tensor.layout}"
    if tensor.device.type != "cpu":
        return f"a tensor without values (on the device {tensor.device})"
    return None if tensor.dtype in dtypes else f"a tensor of {tensor.dtype}"


def check_values(state_dict: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Accept only values that are finite in float32, which is what networks here compute in.

    Args:
        state_dict: tensors that `check_form` has accepted.
        shapes: those of the network.  Tensors of other names and shapes are not looked at: a file of kilobytes can
            declare one that takes gigabytes.

    Raises:
        CheckpointError: naming the first tensor with another value; the message continues "PATH ...".
    """
    for key, tensor in state_dict.items():
        if shapes.get(key) == tuple(tensor.shape) and not torch.isfinite(tensor.to(torch.float32)).all():
            beyond = " in float32" if tensor.dtype == torch.float64 else ""
            raise CheckpointError(f"holds values that are not finite{beyond}, the first in {key}")


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, whatever it is of: `{"model": state_dict}` or a bare one.

    Raises:
        CheckpointError: the file cannot be read or holds none; the message continues "PATH ...".
    """
    return _state_dict_of(_load(path))


def _load(path: Path) -> Any:
    """The file's content; every error continues the sentence that starts with the file's name."""
    require_checkpoint_file(path)
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
        if _YACS_NODE not in str(error):
            raise
    with safe_globals(_ALLOWED):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def safe_globals(allowed: Sequence[Any]) -> Iterator[None]:
    """`torch.serialization.safe_globals`, with pairs of what is allowed and its name in the file in any PyTorch.

    PyTorch has the context since 2.5 and takes pairs since 2.6; before, what is allowed has to bear the name.
    """
    serialization: Any = torch.serialization
    if _TORCH >= (2, 6):
        with serialization.safe_globals(list(allowed)):
            yield
        return
    before = list(serialization.get_safe_globals())
    allowed = [*allowed, codecs.encode, set]  # of bytes and sets, which newer ones know to be harmless
    serialization.add_safe_globals([_named(*each) if isinstance(each, tuple) else each for each in allowed])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _named(what: Any, name: str) -> Any:
    """A class or function like `what` that is called `name`."""
    module, _, own = name.rpartition(".")
    if isinstance(what, type):
        return type(own, (what,), {"__module__": module})

    def function(*args: Any) -> Any:
        return what(*args)

    function.__module__, function.__name__ = module, own
    return function


def _state_dict_of(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, not a state dict")
    if "network_weights" in content:
        raise CheckpointError(
            "is an nnU-Net checkpoint (it has 'network_weights'), not ImageNet weights; to start from a trained "
            "segmentation network use nnUNetv2_train's -pretrained_weights"
        )
    state_dict = content["model"] if isinstance(content.get("model"), Mapping) else content
    check_entries(state_dict)
    return dict(state_dict)


def check_entries(state_dict: Mapping[Any, Any]) -> None:
    """Accept names with tensors, one at least.

    Raises:
        CheckpointError: anything else; the message continues "PATH ...".
    """
    strange_keys = [key for key in state_dict if not isinstance(key, str)]
    strangers = [key for key, value in state_dict.items() if not isinstance(value, Tensor) or value.is_nested]
    if strange_keys:
        raise CheckpointError(
            f"holds no state dict: its entries have no names, but keys of type {type(strange_keys[0]).__name__}"
        )
    if strangers or not state_dict:
        raise CheckpointError(
            f"holds no state dict (entries that are no tensors: {', '.join(strangers[:4]) or 'none'})"
        )
