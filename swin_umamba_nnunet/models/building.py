"""The network that a trainer, plans and a dataset.json describe, without memory for its weights."""

import copy
import warnings
from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.trainers.base import NetworkTrainer
from swin_umamba_nnunet.trainers.finding import find_trainer


def trainer_called(name: Any, source: str) -> Any:
    """The trainer class called `name`: this package's, or a user's that is built on one.

    Args:
        name: as a checkpoint has it.
        source: file it is from, for the message.

    Raises:
        ModelError: nnU-Net finds none, or one of another kind.
    """
    if not isinstance(name, str):
        raise ModelError(f"{source} names its trainer by a {type(name).__name__}, expected a string")
    try:
        trainer = find_trainer(name)
    except ValueError as error:
        raise ModelError(f"{source}: {error}") from error
    if not issubclass(trainer, NetworkTrainer):
        raise ModelError(f"{source}: {name} is none of this package's trainers (`swin-umamba list`), nor built on one")
    return trainer


def modern_plans(plans: dict, source: str) -> dict:
    """Plans of any nnU-Net v2 in the present format: every configuration complete and with its architecture.

    Args:
        plans: content of plans.json; not changed.
        source: where they are from, for the message.

    Raises:
        ModelError: no plans of nnU-Net v2, or of a form nnU-Net itself cannot bring up to date.
    """
    if not isinstance(plans, dict):  # nnU-Net would take a string for a file name and open it
        raise ModelError(f"{source} holds no plans that nnU-Net understands, but {type(plans).__name__}")
    try:
        plans = copy.deepcopy(plans)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nnU-Net's "Detected old nnU-Net plans format", which is being mended
            manager = PlansManager(plans)
            modern = {name: manager.get_configuration(name).configuration for name in plans["configurations"]}
    except (KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{source} holds no plans that nnU-Net understands ({error!r})") from error
    return {**plans, "configurations": {name: {**settings} for name, settings in modern.items()}}


def build_on_meta(
    trainer: type[NetworkTrainer], plans: dict, configuration: str, dataset_json: dict, channels: int | None = None
) -> nn.Module:
    """The network of a trainer, its parameters on the meta device.

    Args:
        trainer: one of this package's, or built on one.
        plans: in the present format.
        configuration: a name in them.
        dataset_json: its channels and labels decide about the network's.
        channels: of the image, instead of the dataset's.

    Raises:
        ModelError: no such configuration, one that the trainer cannot serve, or damaged plans.
    """
    if not isinstance(configuration, str) or configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise ModelError(f"the plans have no configuration {configuration!r}, only {known}")
    try:
        manager = PlansManager(plans)
        settings = manager.get_configuration(configuration)
        if channels is None:
            channels = determine_num_input_channels(manager, settings, dataset_json)
        heads = manager.get_label_manager(dataset_json).num_segmentation_heads
        with torch.device("meta"):
            return trainer.build_network_architecture(manager, settings, channels, heads, False)
    except ValueError as error:
        raise ModelError(str(error)) from error
    except Exception as error:  # plans and dataset.json come from a file: nnU-Net stumbles over whatever is in them
        raise ModelError(
            f"the network of {trainer.__name__} cannot be built, because the plans or the dataset.json that belong to "
            f"it are damaged ({error!r})"
        ) from error
