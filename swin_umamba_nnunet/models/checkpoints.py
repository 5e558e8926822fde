"""Reading nnU-Net's segmentation checkpoints without running code, and writing them all at once."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swin_umamba_nnunet._atomic import new_folder, replacing
from swin_umamba_nnunet._text import UserError
from swin_umamba_nnunet.pretrained.checkpoint import (
    check_entries,
    check_form,
    check_values,
    read_content,
    why_not_written,
)
from swin_umamba_nnunet.pretrained.registry import CheckpointError
from swin_umamba_nnunet.pretrained.variants import differences, shapes_in

_DEEPEST = 50  # levels of objects and lists in a JSON file; nnU-Net's have six


class ModelError(UserError, ValueError):
    """A model or checkpoint that cannot be used; one sentence for the user."""


def _numpy_scalars() -> list[Any]:
    """What a pickled numpy number consists of, which nnU-Net's training curves are full of; nothing of it runs code."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # before and since numpy 2
    dtypes = [type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *dtypes]


def read_segmentation_checkpoint(path: str | os.PathLike) -> dict:
    """Content of a segmentation checkpoint: nnU-Net's dictionary, or `{"network_weights": ...}` around bare weights.

    Tensors, numbers, strings and containers only; a file that holds anything else is refused, not run.

    Args:
        path: nnU-Net's checkpoint_*.pth of any version, or a bare state dict, which may lie under "model_state_dict"
            or "model".

    Raises:
        ModelError: no such file, damaged, with other Python objects in it, or without weights.
    """
    path = Path(path)
    try:
        content = read_content(path, _numpy_scalars())
    except CheckpointError as error:
        raise ModelError(f"{path} {error}; expected a checkpoint such as fold_0/checkpoint_final.pth") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a checkpoint with weights")
    content = dict(content)
    if "network_weights" not in content:
        weights = next((content[key] for key in ("model_state_dict", "model") if key in content), content)
        content = {"network_weights": weights}
    weights = content["network_weights"]
    if not isinstance(weights, Mapping):
        raise ModelError(f"{path} holds no state dict: expected names with tensors, found {type(weights).__name__}")
    try:
        check_entries(weights)
    except CheckpointError as error:
        raise ModelError(f"{path} {error}") from error
    content["network_weights"] = {_bare(key): value for key, value in weights.items()}
    if len(content["network_weights"]) < len(weights):
        raise ModelError(f"{path} holds tensors twice, with and without the prefix 'module.' or '_orig_mod.'")
    return content


def _bare(key: str) -> str:
    """A parameter's name without what DataParallel and torch.compile put before it."""
    while key.startswith(("module.", "_orig_mod.")):
        key = key.split(".", 1)[1]
    return key


def read_json(path: Path) -> dict:
    """Content of plans.json or dataset.json.

    Raises:
        ModelError: it cannot be read, is no JSON object, or nests deeper than any such file does.
    """
    too_deep = f"{path} nests deeper than {_DEEPEST} levels; expected the file that nnU-Net writes"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(too_deep) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected an object")
    level: list[Any] = [content]
    for _ in range(_DEEPEST):
        inside = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [each for nodes in inside for each in nodes]
    if level:  # what copies and writes it recurses
        raise ModelError(too_deep)
    return content


def channel_names(dataset: dict) -> dict[str, str]:
    """The images' channels in a dataset.json, under nnU-Net's present name or the former."""
    return dataset.get("channel_names", dataset.get("modality", {}))


def require_fit(weights: Mapping[str, Tensor], network: nn.Module, source: Path, dataset: dict) -> None:
    """Accept weights of exactly the network's names and shapes that can be weights.

    Args:
        weights: names -> tensors.
        network: that the file's plans and dataset.json describe, on any device.
        source: file they are from, for the message.
        dataset: content of dataset.json, for the message.

    Raises:
        ModelError: naming the file, what is missing, unexpected or of another shape, or see `require_weights`.
    """
    expected = shapes_in(network.state_dict())
    faults = differences(shapes_in(weights), expected)
    heads = [fault.split()[0] for fault in faults["of another shape"] if ".seg_layers." in fault]
    if heads and len(heads) == sum(map(len, faults.values())):
        found, wanted = len(weights[heads[0]]), expected[heads[0]][0]
        one = (
            "; one channel of logits and a sigmoid, as VM-UNet's binary models have, is a region in nnU-Net, which "
            'takes two labels: "labels": {"background": 0, "lesion": [1, 2]}, "regions_class_order": [1]'
        )
        raise ModelError(
            f"{source} gives {found} channels of logits, but dataset.json describes {wanted} ({dataset.get('labels')})"
            + (one if found == 1 else "; take the dataset.json the model was trained with")
        )
    if told := [f"{len(keys)} {what}, first {keys[0]}" for what, keys in faults.items() if keys]:
        raise ModelError(
            f"{source} does not fit the {type(network).__name__} that its plans and dataset.json describe "
            f"({'; '.join(told)}): are they those the model was trained with?"
        )
    require_weights(weights, network, source)


def require_weights(weights: Mapping[str, Tensor], network: nn.Module, source: Path) -> None:
    """Accept what can be weights, by the rule that ImageNet checkpoints are held to (`pretrained.checkpoint`).

    Args:
        weights: the network's names -> tensors.
        network: which they are for, on any device; where it counts in integers, so must they.  Tensors of another
            shape are for the caller to refuse.
        source: file they are from, for the message.

    Raises:
        ModelError: naming the file and the first tensor that is none, or whose values are not finite in float32.
    """
    built = network.state_dict()
    counters = {key: each.dtype for key, each in built.items() if not (each.is_floating_point() or each.is_complex())}
    try:
        check_form(weights, counters)
        check_values(weights, shapes_in(built))
    except CheckpointError as error:
        raise ModelError(f"{source} {error}") from error


def write_checkpoint(checkpoint: dict, path: Path) -> None:
    """Save under `path`, complete or not at all; the folder is made.

    Raises:
        ModelError: the file exists, or cannot be written.
    """
    with written(path):
        save_checkpoint(checkpoint, path)


def save_checkpoint(checkpoint: dict, path: Path) -> None:
    """As `write_checkpoint`, over what is there.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        write_by(partial(torch.save, checkpoint), unfinished)


@contextlib.contextmanager
def new_model_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to write into, which becomes `path` when the block ends without an exception.

    Raises:
        ModelError: it exists, or cannot be written; nothing is left behind.
    """
    with written(path), new_folder(path) as unfinished:
        yield unfinished


def write_by(save: Callable[[Any], None], path: Path) -> None:
    """What one of PyTorch's writers makes, by way of memory: where a disk is full they would name a line of their
    sources instead, and torch.export's ends the whole process.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    save(content)
    path.write_bytes(content.getvalue())


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """What is done in here writes `path`; whoever does it leaves nothing behind when it fails.

    Raises:
        ModelError: it is there already, or could not be written.
    """
    if path.exists():
        raise ModelError(f"{path} already exists; name another place with -o, or delete it first")
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path} could not be written ({why_not_written(error)}), and nothing was left behind: make room, or name "
            "another place with -o"
        ) from error
