"""From the name of a trainer to its network and what that costs.

Every trainer is asked in the same way, by nnU-Net's own `build_network_architecture(plans, ...)`: this package's,
nnU-Net's, and those that users have put into a folder of `nnUNet_extTrainer`.
"""

from collections.abc import Sequence

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from swin_umamba_nnunet.cost.network import Cost, describe_network
from swin_umamba_nnunet.cost.tasks import Task
from swin_umamba_nnunet.trainers.base import NetworkTrainer
from swin_umamba_nnunet.trainers.finding import find_trainer as find_trainer


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
    size = _by(task.input_shape[1:])
    if task.planned_size is not None:
        planned = _by(task.planned_size)
        raise ValueError(f"nnU-Net plans no patches of {size}, but would take {planned}; give that size instead")
    if len(task.settings.pool_op_kernel_sizes) < 2:
        raise ValueError(f"patches of {size} are too small for nnU-Net's networks: give at least 8 pixels a side")


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
