"""How much memory one training step of a trainer takes at its peak, without a GPU and without computing anything.

A whole step (forward, nnU-Net's loss, backward) runs on torch's fake tensors, while every block of memory is counted
from its allocation to its release.  So the gradients that pass through the network, what is computed a second time
under gradient checkpointing, the logits of the loss and the copies that autocast makes are all in the figure.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from swin_umamba_nnunet.cost.network import Shape, fake_copy
from swin_umamba_nnunet.cost.tasks import Task, build_network
from swin_umamba_nnunet.trainers.base import NetworkTrainer

STEP_CONVENTION = (
    "Peak of one training step on one GPU, in bytes of tensors: parameters, their gradients, the optimiser's state and "
    "every activation alive at that moment, under float16 autocast (2 bytes where CPU autocast takes half precision, "
    "4 elsewhere, the copies of the weights included), with nnU-Net's Dice and cross-entropy loss, not compiled. No "
    "CUDA context, no workspace of kernels, no fragmentation."
)


@dataclass(frozen=True)
class StepMemory:
    """Memory of one training step, see `STEP_CONVENTION`.

    Attributes:
        batch_size: patches in the step.
        patch_size: in pixels or voxels.
        parameter_bytes: of the network, buffers included, in float32.
        gradient_bytes: of those that are trained.
        optimizer_bytes: of the optimiser's state between steps.
        forward_bytes: of what is alive at the end of the forward pass besides the parameters.
        peak_bytes: of everything at once.
    """

    batch_size: int
    patch_size: Shape
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    forward_bytes: int
    peak_bytes: int


def step_memory(trainer: type[nnUNetTrainer], task: Task, batch_size: int, half: bool = True) -> StepMemory:
    """Memory of a training step of `trainer` on patches of `task`.

    Args:
        trainer: this package's, nnU-Net's or a user's.
        task: its plans say whether blocks are recomputed (see `NetworkTrainer.build_network_architecture`).
        batch_size: patches in the step.
        half: float16 autocast, as nnU-Net trains on a GPU; else float32, as it trains on a CPU.

    Raises:
        ValueError: a batch size below 1, or a patch size that the trainer refuses.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}; it must be at least 1")
    supervised = getattr(trainer, "enable_deep_supervision", True)  # nnU-Net's own default
    network = build_network(trainer, task)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = fake_copy(network).train()
        if not supervised and hasattr(network.decoder, "deep_supervision"):
            network.decoder.deep_supervision = False
        with _LiveBytes() as live:
            live.add(*network.parameters(), *network.buffers())
            parameters = live.now
            image = torch.empty(batch_size, *task.input_shape)
            with torch.autocast("cpu", torch.float16, enabled=half):
                outputs = network(image)
                forward = live.now - parameters
                loss = _loss(outputs if isinstance(outputs, list | tuple) else [outputs])
            del outputs
            loss.backward()
        trained = [p for p in network.parameters() if p.requires_grad]
        gradients = sum(p.numel() * p.element_size() for p in trained)
    state = _states_per_parameter(trainer) * gradients
    # The optimiser works on all parameters at once and needs room of their size.
    peak = max(live.peak + state, parameters + gradients + state + gradients)
    size = tuple(int(side) for side in task.settings.patch_size)
    return StepMemory(batch_size, size, parameters, gradients, state, forward, peak)


def _loss(outputs: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    """nnU-Net's, on each head but the coarsest, which has no weight (unless it is the only one)."""
    settings = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(settings, {}, dice_class=MemoryEfficientSoftDiceLoss)
    supervised = outputs[:-1] if len(outputs) > 1 else outputs
    targets = [torch.empty(y.shape[0], 1, *y.shape[2:], dtype=torch.int16) for y in outputs]
    # CUDA's autocast takes softmax and cross entropy in float32, the CPU's does not
    return torch.stack([loss(y.float(), target) for y, target in zip(supervised, targets)]).sum()


def _states_per_parameter(trainer: type[nnUNetTrainer]) -> int:
    """1 for nnU-Net's SGD with momentum; 2 for Adam, which is assumed of a trainer with an optimiser of its own."""
    plain = (nnUNetTrainer.configure_optimizers, NetworkTrainer.configure_optimizers)
    return 1 if trainer.configure_optimizers in plain else 2


class _LiveBytes(TorchDispatchMode):
    """A context in which memory that operations allocate is counted until it is released.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}  # address of a storage -> bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.add, result)
        return result

    def add(self, *tensors: Tensor) -> None:
        """Count the memory of tensors, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._release, storage._cdata)

    def _release(self, address: int) -> None:
        self.now -= self._known.pop(address)
