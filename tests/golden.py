"""The golden files (outputs of the authors' code) as tests want them.

They are copies of those in the project's shared folder, whose README describes them.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tests.golden_data import recipe

FOLDER = Path(__file__).resolve().parent / "golden_data"

# relative L2 errors of float32, as the folder's README states them
OUTPUT, GRADIENT = 1e-4, 1e-3
TRAJECTORY_LOSS, TRAJECTORY_NORM, TRAJECTORY_OUTPUT = 1e-3, 1e-2, 1e-2


@dataclass(frozen=True)
class GoldenCase:
    """One entry of the manifest with its stored arrays.

    Attributes:
        settings: the entry: model settings, names, shapes.
        state_dict: weights under the authors' names.
        image: the input.
        outputs: stored outputs, finest first.
        gradients: stored gradients by the authors' key, of sum_i <output_i, cotangent_i>.
        cotangents: one per output.
    """

    settings: dict
    state_dict: dict[str, Tensor]
    image: Tensor
    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    cotangents: list[Tensor]


@functools.cache
def manifest():
    return json.loads((FOLDER / "manifest.json").read_text())


def shapes(name):
    """Key -> shape of the authors' state dict of a case."""
    return {key: tuple(shape) for key, shape in manifest()[name]["state_dict"].items()}


def weights(inventory, seed=0):
    """Golden weights of that inventory."""
    return {key: torch.from_numpy(value) for key, value in recipe.golden_state_dict(inventory, seed).items()}


def array(name, shape, seed=0):
    """The golden input of that name."""
    return torch.from_numpy(recipe.golden_input(name, tuple(shape), seed))


def stored(name):
    """Arrays of NAME.npz."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def case(name):
    """Everything about one case of the manifest."""
    settings, arrays = manifest()[name], stored(name)
    seed = settings["seed"]
    outputs = [arrays[f"output{i}"] for i in range(settings["n_outputs"])]
    return GoldenCase(
        settings=settings,
        state_dict=weights(shapes(name), seed),
        image=array(settings["input_name"], settings["input_shape"], seed),
        outputs=outputs,
        gradients={key.removeprefix("grad:"): value for key, value in arrays.items() if key.startswith("grad:")},
        cotangents=[array(f"cotangent{i}", output.shape, seed) for i, output in enumerate(outputs)],
    )


def network(make, state_dict):
    """The network that `make()` gives, in eval mode with that state dict; nothing is drawn or copied for it."""
    with torch.device("meta"):
        made = make().eval()
    made.load_state_dict(state_dict, assign=True)
    return made


def relative_error(found, expected):
    """L2 norm of the difference over the L2 norm of what is expected; shapes must agree."""
    assert found.shape == expected.shape
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())
