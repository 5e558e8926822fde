"""One optimiser step that cannot spoil the weights: what is not finite is skipped, named, and in the end fatal.

The rule, for every trainer here.  A step whose loss or gradient is not finite changes no weight and no optimiser state.
The first one of a row is logged with the name of the first layer whose output was not finite (or of the parameter
whose gradient was).  After `max_skipped_steps` in a row the training stops with that name; the checkpoints on disk are
from before and can be continued.  Under float16 the gradient scaler skips single steps in normal operation and halves
its scale each time, 2^16 at the start, so the limit leaves it room to come down.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, distributed, nn

from swin_umamba_nnunet.networks._base import unwrap

GRADIENT_CLIP = 12.0  # nnU-Net's, which the papers keep
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


class GuardedStep(nnUNetTrainer):
    """The part of a trainer that makes one step.

    Attributes:
        precision: of autocast on CUDA: "float16" (nnU-Net's) or "bfloat16", which needs no gradient scaler.  On other
            devices everything is float32, as in nnU-Net.
        max_skipped_steps: how many steps in a row may be skipped.
    """

    precision: ClassVar[str] = "float16"
    max_skipped_steps: ClassVar[int] = 25

    _skipped_in_a_row = 0

    def apply_precision(self) -> None:
        """Bring `precision` into force in this process: for training, and for nnU-Net's validation during and after it.

        A later `nnUNetv2_predict` knows nothing of it and runs nnU-Net's float16.

        Raises:
            ValueError: no such precision.
            RuntimeError: bfloat16 on a GPU that has none.
        """
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; choose one of {', '.join(map(repr, PRECISIONS))}")
        if self.device.type != "cuda":
            return
        if self.precision == "bfloat16" and not torch.cuda.is_bf16_supported():
            name = torch.cuda.get_device_name(self.device)
            raise RuntimeError(f"precision is 'bfloat16', which {name} does not have; use 'float16'")
        torch.set_autocast_dtype("cuda", PRECISIONS[self.precision])  # what a bare autocast("cuda") then takes
        if self.precision == "bfloat16":
            self.grad_scaler = None

    def held_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters this step must not touch; none here."""
        return ()

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step, without the gradients of `held_parameters`, and skipped where it is not finite.

        Args:
            batch: "data" (B, C, ...) and "target", one tensor or one per head.

        Returns:
            "loss", not finite where the step was skipped for its loss.

        Raises:
            NonFiniteError: that happened too often in a row.
        """
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [each.to(self.device, non_blocking=True) for each in target]
        else:
            target = target.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss: Tensor = self.loss(self.network(data), target)
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        # AdamW skips a parameter without a gradient entirely: no update, no weight decay, no moments.  This freezes as
        # `requires_grad = False` does, but every parameter still takes part in backward, as DistributedDataParallel
        # (without find_unused_parameters) and an already compiled graph demand.  Before unscaling and clipping: neither
        # their overflow nor their norm counts.
        for parameter in self.held_parameters():
            parameter.grad = None
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        finite = self._everywhere(self._clip() and bool(torch.isfinite(loss.detach())))
        if finite and scaler is not None:
            scaler.step(self.optimizer)
        elif finite:
            self.optimizer.step()
        if scaler is not None:
            scaler.update()
        value = loss.detach().cpu().numpy()
        if finite:
            self._skipped_in_a_row = 0
        else:
            self._skip(float(value), data)
        return {"loss": value}

    def _everywhere(self, finite: bool) -> bool:
        """Whether it is so in every process: they skip and stop together."""
        if not self.is_ddp:
            return finite
        flag = torch.tensor(float(finite), device=self.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MIN)
        return bool(flag)

    def _autocast(self) -> AbstractContextManager:
        if self.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", dtype=PRECISIONS[self.precision])

    def _clip(self) -> bool:
        """Clip the gradients in place; False, and nothing done, where their norm is not finite."""
        try:
            nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP, error_if_nonfinite=True)
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            return False
        return True

    def _skip(self, loss: float, data: Tensor) -> None:
        self._skipped_in_a_row += 1
        last = self._skipped_in_a_row >= self.max_skipped_steps
        if not last and self._skipped_in_a_row > 1:
            return
        where = self._first_bad_layer(data) if not np.isfinite(loss) else None
        here = " in this process" if self.is_ddp else ""
        found = f"the loss is {loss:.4g}{here}" + ("" if not np.isfinite(loss) else ", its gradient not finite")
        found += f"; first layer whose output is not finite: {where}" if where else f"; {self._bad_gradients()}"
        if last:
            raise NonFiniteError(
                f"{self._skipped_in_a_row} steps in a row were skipped because they were not finite: {found}. No "
                "weight was changed by them. Continue with --c from the last checkpoint, with a lower initial_lr or "
                "with precision = 'bfloat16' (class attributes; --c goes by the name of the class, so call a "
                f"subclass {type(self).__name__} too), and check the data for extreme values"
            )
        self.print_to_log_file(f"WARNING: step skipped, no weight changed: {found}")

    @torch.no_grad()
    def _first_bad_layer(self, data: Tensor) -> str | None:
        """Name of the module that first returns something not finite; None if that does not happen a second time."""
        network = unwrap(self.network)
        found: list[str] = []
        if not torch.isfinite(data).all():
            return "none of the network's, the image itself is not finite"

        def look(name: str):
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                tensors = output if isinstance(output, list | tuple) else [output]
                if not found and any(isinstance(x, Tensor) and not torch.isfinite(x).all() for x in tensors):
                    found.append(f"{name} ({type(module).__name__})")

            return hook

        hooks = [module.register_forward_hook(look(name)) for name, module in network.named_modules() if name]
        try:
            with self._autocast():
                network(data)
        finally:
            for hook in hooks:
                hook.remove()
        return found[0] if found else None

    def _bad_gradients(self) -> str:
        named = unwrap(self.network).named_parameters()
        bad = [name for name, p in named if p.grad is not None and not torch.isfinite(p.grad).all()]
        if not bad:
            return "no single gradient is, but their norm overflows"
        return f"{len(bad)} parameters have such a gradient, the deepest in the order of the network {bad[-1]}"
