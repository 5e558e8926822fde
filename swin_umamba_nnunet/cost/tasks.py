"""What a network is built for, and the network that a trainer builds for it.

A dataset's plans, or those that nnU-Net would make for patches of a given size.  Every trainer is asked for its network
in the same way, by nnU-Net's own `build_network_architecture(plans, ...)`: this package's, nnU-Net's, and those that
users have put into a folder of `nnUNet_extTrainer`.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import nnunetv2
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet.catalogue import PLANNERS, how_to_plan
from swin_umamba_nnunet.cost.network import Cost, Shape, describe_network
from swin_umamba_nnunet.trainers.base import NetworkTrainer

_NAME = "Dataset000_Shape"  # of the dataset made up for a patch size


@dataclass(frozen=True)
class Task:
    """What a network is built for.

    Attributes:
        plans: nnU-Net's plans as a dictionary.
        configuration: which of its configurations.
        channels: of the image.
        classes: channels of the logits, background included where it is one.
        planned_size: patch for which the stages of these plans are made, if it is not the patch itself.
        folder: of the plans, if they are a dataset's.
        cases: images for training in it.
    """

    plans: dict[str, Any]
    configuration: str
    channels: int
    classes: int
    planned_size: Shape | None = None
    folder: Path = Path()
    cases: int = 0

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) or (C, D, H, W) of a patch."""
        return (self.channels, *(int(side) for side in self.settings.patch_size))

    @property
    def batch_size(self) -> int:
        """Patches per training step, as planned."""
        return int(self.settings.batch_size)

    @property
    def settings(self) -> ConfigurationManager:
        """The configuration as nnU-Net passes it around."""
        return PlansManager(self.plans).get_configuration(self.configuration)


def task_of_dataset(dataset: str, plans_name: str, configuration: str) -> Task:
    """What nnU-Net has planned for a dataset (name or number) that has been planned on this machine.

    Raises:
        ValueError: no such dataset, plans or configuration.
    """
    if not nnUNet_preprocessed.is_set():
        raise ValueError(
            "nnUNet_preprocessed is not set, so there are no plans to read; set it: "
            "export nnUNet_preprocessed=/your/folder"
        )
    try:
        name = maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"no dataset {dataset!r} is known to nnU-Net (looked into nnUNet_raw, nnUNet_preprocessed and "
            "nnUNet_results); give its number or its whole name"
        ) from error
    folder = Path(nnUNet_preprocessed, name)
    plans_file, dataset_file = folder / f"{plans_name}.json", folder / "dataset.json"
    for file in (plans_file, dataset_file):
        if not file.is_file():
            raise ValueError(f"{file} does not exist; {how_to_plan(int(name[7:10]), plans_name, configuration)}")
    plans, dataset_json = (json.loads(file.read_text(encoding="utf-8")) for file in (plans_file, dataset_file))
    manager = PlansManager(plans)
    if configuration not in manager.available_configurations:
        raise ValueError(
            f"{plans_file} has no configuration {configuration!r}; it has {', '.join(manager.available_configurations)}"
        )
    channels = determine_num_input_channels(manager, configuration, dataset_json)
    classes = manager.get_label_manager(dataset_json).num_segmentation_heads
    cases = int(dataset_json.get("numTraining", 0))
    return Task(plans, configuration, channels, classes, folder=folder, cases=cases)


def task_of_shape(shape: Sequence[int], classes: int, plans_name: str = "nnUNetPlans") -> Task:
    """Plans as nnU-Net's planner makes them for isotropic images of exactly this size, on a GPU that has the memory.

    Args:
        shape: (C, H, W), or (C, D, H, W) in 3D.
        classes: channels of the logits, background included.
        plans_name: whose planner, see `catalogue.PLANNERS`.

    Raises:
        ValueError: a shape that is none, or plans of which the planner is not known.
    """
    channels, *size = shape
    if len(size) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"the shape is {' '.join(map(str, shape))}; expected C H W, or C D H W in 3D, from 1")
    if classes < 1:
        raise ValueError(f"the number of classes is {classes}; expected at least 1, the background included")
    if plans_name not in PLANNERS:
        raise ValueError(f"no planner of {plans_name!r} is known here; choose one of {', '.join(PLANNERS)}")
    configuration = "2d" if len(size) == 2 else "3d_fullres"
    plan = plan_patch(find_planner(PLANNERS[plans_name]), channels, classes, size, [1.0] * len(size))
    planned_size = tuple(int(side) for side in plan["patch_size"])
    plans = {
        "dataset_name": _NAME,
        "plans_name": plans_name,
        "label_manager": "LabelManager",
        "configurations": {configuration: {**plan, "patch_size": size, "batch_dice": True}},
    }
    recursive_fix_for_json_export(plans)
    return Task(plans, configuration, channels, classes, planned_size if list(planned_size) != size else None)


def find_planner(name: str) -> type:
    """The class that makes plans, found as nnU-Net does.

    Raises:
        ValueError: nnU-Net has none of this name.
    """
    home = Path(nnunetv2.__path__[0], "experiment_planning")
    planner = recursive_find_python_class(str(home), name, "nnunetv2.experiment_planning")
    if planner is None:
        raise ValueError(f"nnU-Net finds no planner {name}; choose other plans with -p")
    return planner


def plan_patch(
    planner_class: type, channels: int, classes: int, size: Sequence[int], spacing: Sequence[float]
) -> dict[str, Any]:
    """One configuration, by nnU-Net's own rules for stages, kernels, widths and blocks, whatever memory it takes."""
    dataset = {
        "channel_names": {str(i): "noNorm" for i in range(channels)},
        "labels": {"background": 0} | {str(i): i for i in range(1, classes)},
        "file_ending": ".png",
        "dataset": {},
        "numTraining": 0,
    }
    # A planner wants a dataset on disk with its fingerprint.  This one has the size asked for and not a single image.
    with tempfile.TemporaryDirectory() as folder:
        (home := Path(folder, _NAME)).mkdir()
        (home / "dataset.json").write_text(json.dumps(dataset))
        (home / "dataset_fingerprint.json").write_text(json.dumps({"median_relative_size_after_cropping": 1.0}))
        with mock.patch.dict(os.environ, nnUNet_raw=folder, nnUNet_preprocessed=folder):
            planner = planner_class(_NAME)
    planner.static_estimate_VRAM_usage = lambda *_: 1  # else it reduces patches that need more memory than it aims at
    return planner.get_plans_for_configuration(spacing, size, f"{_NAME}_data", float(prod(size)), {})


def describe_trainer(trainer: type[nnUNetTrainer], task: Task, batch_size: int = 1) -> Cost:
    """What the network of `trainer` costs for one patch of `task`; activations at `batch_size`.

    Raises:
        ValueError: a patch size that the trainer refuses, or a batch size below 1.
    """
    return describe_network(build_network(trainer, task), task.input_shape, batch_size)


def build_network(trainer: type[nnUNetTrainer], task: Task) -> nn.Module:
    """The network that `trainer` trains for `task`, all heads included, on the `meta` device where that is possible.

    Raises:
        ValueError: a patch size that the trainer refuses.
    """
    if not issubclass(trainer, NetworkTrainer):  # this package's networks take any size
        _check_size(task)
    arguments = (PlansManager(task.plans), task.settings, task.channels, task.classes, True)
    try:
        with torch.device("meta"):
            return trainer.build_network_architecture(*arguments)
    except (NotImplementedError, RuntimeError):  # initial values that need real tensors
        return trainer.build_network_architecture(*arguments)


def _check_size(task: Task) -> None:
    size = by(task.input_shape[1:])
    if task.planned_size is not None:
        planned = by(task.planned_size)
        raise ValueError(f"nnU-Net plans no patches of {size}, but would take {planned}; give that size instead")
    if len(task.settings.pool_op_kernel_sizes) < 2:
        raise ValueError(f"patches of {size} are too small for nnU-Net's networks: give at least 8 pixels a side")
