"""Reaching into the network of a trainer, and what its heads mean for nnU-Net's targets."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def unwrap(network: nn.Module) -> Any:
    """The network itself, out of whatever torch.compile and DistributedDataParallel have put around it."""
    while isinstance(network, DistributedDataParallel | OptimizedModule):
        network = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
    return network


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Take the gradients away, so that the next optimiser step passes these parameters by.

    AdamW skips a parameter without a gradient entirely: no update, no weight decay, no moments.  Called between
    backward and clipping, this freezes exactly as `requires_grad = False` does, but every parameter still takes part in
    backward, as DistributedDataParallel (without find_unused_parameters) and an already compiled graph demand.
    """
    for parameter in parameters:
        parameter.grad = None


def target_scales(patch_size: Sequence[int], strides: Sequence[int | Sequence[int]]) -> list[list[float]]:
    """Per-axis factors with which nnU-Net makes deep-supervision targets of exactly the heads' sizes.

    nnU-Net gives the target of an axis of H pixels round(H * factor) of them, but a head of stride s has ceil(H / s);
    the two differ where s does not divide H.  Hence the factor ceil(H / s) / H, which is 1 / s where s divides H.

    Args:
        patch_size: pixels per axis.
        strides: of each head, full resolution first; a number stands for the same along every axis.

    Returns:
        A factor per axis for each head.
    """
    per_axis = [(step,) * len(patch_size) if isinstance(step, int) else step for step in strides]
    return [[-(-size // step) / size for size, step in zip(patch_size, steps)] for steps in per_axis]
