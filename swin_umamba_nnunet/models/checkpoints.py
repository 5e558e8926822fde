"""Reading nnU-Net's segmentation checkpoints without running code, and writing them all at once."""

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_umamba_nnunet._atomic import replacing
from swin_umamba_nnunet.pretrained.files import why_not_a_checkpoint


class ModelError(ValueError):
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
    if not path.is_file():
        raise ModelError(f"{path} is no file; name the checkpoint itself, such as fold_0/checkpoint_final.pth")
    try:
        if (found := why_not_a_checkpoint(path)) is not None:
            raise ModelError(f"{path} is {found}; expected a checkpoint such as fold_0/checkpoint_final.pth")
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise ModelError(f"{path} is damaged or no PyTorch checkpoint") from error
        raise ModelError(
            f"{path} holds Python objects besides weights ({refused[1]}), which could run code and are never loaded "
            "here; where you trust the file, load it elsewhere and save only its weights: "
            "torch.save({'network_weights': ...}, FILE)"
        ) from error
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        raise ModelError(f"{path} is truncated or damaged: torch.load cannot read it ({error})") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected a checkpoint with weights")
    content = dict(content)
    if "network_weights" not in content:
        weights = next((content[key] for key in ("model_state_dict", "model") if key in content), content)
        content = {"network_weights": weights}
    weights = content["network_weights"]
    if not isinstance(weights, Mapping) or not weights or not all(map(torch.is_tensor, weights.values())):
        raise ModelError(f"{path} holds no state dict: expected names with tensors")
    if not all(isinstance(key, str) for key in weights):
        raise ModelError(f"{path} holds no state dict: its tensors have no names")
    content["network_weights"] = {_bare(key): value for key, value in weights.items()}
    if len(content["network_weights"]) < len(weights):
        raise ModelError(f"{path} holds tensors twice, with and without the prefix 'module.' or '_orig_mod.'")
    return content


def _bare(key: str) -> str:
    """A parameter's name without what DataParallel and torch.compile put before it."""
    while key.startswith(("module.", "_orig_mod.")):
        key = key.split(".", 1)[1]
    return key


def write_checkpoint(checkpoint: dict, path: Path) -> None:
    """Save under `path`, complete or not at all; the folder is made.

    Raises:
        ModelError: the file exists, or cannot be written.
    """
    if path.exists():
        raise ModelError(f"{path} already exists; name another file, or delete it first")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            torch.save(checkpoint, unfinished)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be written ({error})") from error
