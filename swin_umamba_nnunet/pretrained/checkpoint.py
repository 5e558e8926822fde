"""Reading an ImageNet checkpoint file safely (tensors only, never code), and what is wrong with it."""

import codecs
import collections
import contextlib
import errno
import hashlib
import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from swin_umamba_nnunet.pretrained.registry import CheckpointError, Variant, WeightsRecord
from swin_umamba_nnunet.pretrained.variants import (
    check_inventory,
    identify,
    inventory,
    remap_vmamba_state_dict,
)

# Older copies store their yacs configuration beside the weights.  torch's restricted unpickler then fills an
# OrderedDict in its place: a plain container, so nothing is imported or run.
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ALLOWED: list[Any] = [(collections.OrderedDict, "yacs.config.CfgNode")]
_IN_MEMORY = 1 << 30  # bytes of a file that is read once, and then checked, loaded and hashed from memory
_CHUNK_BYTES = 1 << 20
_ZIP = b"PK\x03\x04"
_FOLDER = 0x10  # MS-DOS's attribute, in the zip directory


@dataclass(frozen=True)
class Checkpoint:
    """An ImageNet checkpoint file that was read.

    Attributes:
        path: absolute.
        size_bytes, sha256: of the whole file.
        state_dict: keys spelled as in the published files of its generation.
        variant: which VMamba, recognised from keys and shapes.
        record: the published checkpoint of that VMamba, None if there is none.
        classifier: whether norm and head are there as published.
        faults: what keeps it from being loaded, in the order of importance, each continuing the sentence "PATH ...";
            empty if nothing does, and where a file with faults is refused.
    """

    path: Path
    size_bytes: int
    sha256: str
    state_dict: dict[str, Tensor]
    variant: Variant
    record: WeightsRecord | None
    classifier: bool
    faults: tuple[str, ...] = ()


def read_checkpoint(path: str | os.PathLike, *expected: WeightsRecord, name: str | None = None) -> Checkpoint:
    """Read the checkpoint of one of the `expected` records from `path` and make sure that it is one.

    A file under one of a record's published names must be the published one: all its keys and shapes, its size where
    the registry knows it, and its hash where the registry's is confirmed.  A file of another name may be a re-saved
    copy: the encoder's keys and shapes decide, norm and head may be missing, and size and hash may differ.

    Args:
        path: the file; `{"model": state_dict}` or a bare state dict, VMamba's first or later spelling of the keys.
        expected: records, one at least.
        name: the name it goes under, if it is not that of the file.

    Raises:
        CheckpointError: not a readable file, damaged, not a checkpoint, of another network or another VMamba, not the
            published file of its name, or with tensors that are no weights (see `check_form` and `check_values`).
    """
    path = Path(path).absolute()
    name = path.name if name is None else name
    accepted = [record for record in expected if name in record.file_names] or expected
    try:
        checkpoint = _examine(path, name, accepted)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}; {_expected(accepted)}") from error
    require(checkpoint, accepted)
    return checkpoint


def require(found: Checkpoint, accepted: Sequence[WeightsRecord]) -> None:
    """Accept the VMamba of one of these records, without faults.

    Raises:
        CheckpointError: it is another one, or the first of its faults.
    """
    width = max(record.variant.width for record in accepted)
    too_wide = f", too wide for a network of width {width}" if found.variant.width > width else ""
    for fault in found.faults if found.record in accepted else [f"is {found.variant}{too_wide}"]:
        raise CheckpointError(f"{found.path} {fault}; {_expected(accepted)}")


def _expected(records: Sequence[WeightsRecord]) -> str:
    return "expected " + " or ".join(f"{each.title}, {each.file_name} from {each.url}" for each in records)


def examine_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read an ImageNet checkpoint, recognise it from its keys and shapes, and look for all its faults.

    Raises:
        CheckpointError: not a readable checkpoint, or not a VMamba classifier; the message says what it is instead.
    """
    path = Path(path).expanduser().absolute()
    try:
        return _examine(path, path.name)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error


def _examine(path: Path, name: str, expected: Sequence[WeightsRecord] = ()) -> Checkpoint:
    """What a file called `name` holds, and its faults."""
    content, size, digest = _read(path)
    state_dict = _state_dict_of(content)
    variant = identify(state_dict)
    check_form(state_dict)
    state_dict = remap_vmamba_state_dict(state_dict)
    record = next((each for each in expected if each.variant == variant), variant.record)
    incomplete = None if record is None else _fault(check_inventory, state_dict, record)
    classifier = record is not None and incomplete is None
    faults: list[str | None] = []
    if record is not None:
        published = name in record.file_names
        faults += [incomplete if published else _fault(check_inventory, state_dict, record, classifier=False)]
        if published and record.size_bytes not in (None, size):
            faults.append(
                f"has {size:,} bytes, but the published file of that name has {record.size_bytes:,}; if it is a copy "
                "saved again that you trust, give it another name and set SWIN_UMAMBA_WEIGHTS to it, else delete it"
            )
        if published and record.sha256_confirmed and digest != record.sha256:
            faults.append(f"has sha256 {digest}, but the published file of that name has {record.sha256}; delete it")
        faults.append(_fault(check_values, state_dict, inventory(record)))
    return Checkpoint(path, size, digest, state_dict, variant, record, classifier, tuple(filter(None, faults)))


def _fault(check: Callable[..., None], *args: Any, **options: Any) -> str | None:
    try:
        check(*args, **options)
    except CheckpointError as error:
        return str(error)
    return None


# ----------------------------------------------------------------------------------------------------------- contents


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
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
        if not dense or tensor.dtype not in (_FLOATING if counter is None else (counter,)):
            expected = "of floating-point numbers" if counter is None else f"of {counter} there"
            raise CheckpointError(
                f"holds {key} as a{' nested' if tensor.is_nested else ''} tensor of {tensor.dtype}, {tensor.layout} on "
                f"the device {tensor.device}; expected dense tensors {expected}, with values in memory: get the file "
                "that its authors published, or save its weights anew as such"
            )


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


def _state_dict_of(content: Any) -> dict[str, Tensor]:
    """The state dict in `{"model": state_dict}`, or the bare one."""
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


# ------------------------------------------------------------------------------------------------------------ reading


def _read(path: Path) -> tuple[Any, int, str]:
    """A file's content, size and SHA-256; every error continues the sentence that starts with the file's name."""
    with _opened(path, _IN_MEMORY) as file:
        content = _content_of(file, _ALLOWED, "its weights: torch.save({'model': ...})")
        digest = hashlib.sha256()
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return content, file.tell(), digest.hexdigest()


def read_content(path: Path, allowed: Sequence[Any]) -> Any:
    """What a checkpoint file holds: tensors, plain Python objects, and what is allowed (see `safe_globals`); not run.

    Raises:
        CheckpointError: not a readable checkpoint, or with other objects in it; the message continues "PATH ...".
    """
    with _opened(path) as file:
        return _content_of(
            file, allowed, "what makes it a checkpoint, such as network_weights, trainer_name, init_args"
        )


def _content_of(file: BinaryIO, allowed: Sequence[Any], to_save: str) -> Any:
    try:
        with safe_globals(allowed):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise CheckpointError("is damaged or not a PyTorch checkpoint") from error
        raise CheckpointError(
            f"holds Python objects besides tensors ({refused[1]}), which this package never loads because that "
            f"could run code; where you trust the file, load it elsewhere and save only {to_save}"
        ) from error
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        raise CheckpointError("is truncated or damaged: torch.load cannot read it") from error


@contextlib.contextmanager
def safe_globals(allowed: Sequence[Any]) -> Iterator[None]:
    """`torch.serialization.safe_globals`, with pairs of what is allowed and its name in the file in any PyTorch.

    PyTorch has the context since 2.5 and takes pairs since 2.6; before, what is allowed has to bear the name.
    """
    serialization: Any = torch.serialization
    if torch.__version__ >= "2.6.0.dev0":  # a TorchVersion, which compares as versions do
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


# --------------------------------------------------------------------------------------------------------------- files


def require_checkpoint_file(path: Path) -> None:
    """Refuse what no reader needs to try: nothing there, a folder, a pipe, a page, an archive that unpacks to more.

    Raises:
        CheckpointError: it is that, or cannot be read; the message continues "PATH ...".
    """
    with _opened(path):
        pass


@contextlib.contextmanager
def _opened(path: Path, in_memory: int = 0) -> Iterator[BinaryIO]:
    """The bytes of what may be a checkpoint, as `require_checkpoint_file` judges; up to `in_memory` in memory."""
    try:
        if not path.exists():
            raise CheckpointError("does not exist")
        if path.is_dir():
            raise CheckpointError("is a folder, not a checkpoint file")
        if not path.is_file():  # opening a pipe would wait for somebody to write to it
            raise CheckpointError("is a pipe or a device, not a checkpoint file")
        with open(path, "rb") as on_disk:
            size = path.stat().st_size
            file: BinaryIO = io.BytesIO(on_disk.read()) if size <= in_memory else on_disk
            if (found := _why_not_a_checkpoint(file)) is not None:
                raise CheckpointError(f"is {found}")
            file.seek(0)
            yield file
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})") from error


def _why_not_a_checkpoint(file: BinaryIO) -> str | None:
    """What a file is instead, as the end of the sentence "the file is ...", or None where it looks right.

    A PyTorch checkpoint is a zip archive or, before PyTorch 1.6, a pickle of protocol 2 or later.
    """
    head = file.read(512)
    if not head:
        return "empty"
    if head.startswith(_ZIP):
        return _why_not_an_archive(file)
    if head.startswith(b"\x80"):
        return None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page saved under this name (HTML), not the file behind its download link"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it points to (run 'git lfs pull')"
    return f"not a PyTorch checkpoint (it starts with {head[:16]!r})"


def _why_not_an_archive(file: BinaryIO) -> str | None:
    """PyTorch stores tensors as they are: an archive of its own never unpacks to more bytes than it has."""
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            compressed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            declared = sum(entry.file_size for entry in entries)
            if compressed:
                return (
                    f"a zip archive with compressed entries ({compressed[0]}), which PyTorch never writes; it is not "
                    "read"
                )
            if declared > size:
                return (
                    f"a zip archive that declares {declared:,} bytes of content in a file of {size:,}; it is not read"
                )
            damage = damage_in(archive)
    except Exception as error:  # damaged bytes raise whatever zipfile stumbles over
        if is_of_the_file_system(error):
            raise
        return "truncated or damaged: its zip directory says where nothing is, and PyTorch cannot read it"
    return None if damage is None else f"damaged ({damage})"


def damage_in(archive: zipfile.ZipFile) -> str | None:
    """What PyTorch would read wrongly without a word: it compares no check sums, and gives memory as it finds it to a
    tensor whose entry a flipped bit has marked as a folder.  None where all is well; an archive that was unpacked and
    zipped again has entries of real folders, empty and called NAME/, which PyTorch passes over."""
    for entry in archive.infolist():
        if entry.external_attr & _FOLDER and (entry.file_size or not entry.filename.endswith("/")):
            return f"{entry.filename} is marked as a folder"
    wrong = archive.testzip()
    return None if wrong is None else f"the check sum of {wrong} is wrong"


def is_of_the_file_system(error: Exception) -> bool:
    """Whether an error is one of reading; zipfile raises OSErrors of its own where a damaged offset leads nowhere."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def why_not_written(error: Exception) -> str:
    """In words what kept PyTorch from writing a file; its own message names a line of its sources."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "inline_container" in str(error) or "PytorchStreamWriter" in str(error):
        return "PyTorch could not write all of it, as happens where the disk is full"
    return (str(error).splitlines() or [type(error).__name__])[0]
