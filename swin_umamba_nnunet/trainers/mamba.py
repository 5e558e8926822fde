"""The recipe of the VMamba networks: AdamW, a cosine, an encoder that starts from ImageNet and is held at first."""

from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import nn

from swin_umamba_nnunet.trainers._imagenet import ImageNetStart
from swin_umamba_nnunet.trainers._network import drop_gradients, unwrap
from swin_umamba_nnunet.trainers._schedule import CosineSchedule, default_frozen_epochs
from swin_umamba_nnunet.trainers.base import NetworkTrainer

GRADIENT_CLIP = 12.0  # nnU-Net's, which the papers keep


class MambaTrainer(ImageNetStart, NetworkTrainer):
    """Trains a VMamba network the way Swin-UMamba's authors do.

    Attributes, besides those of NetworkTrainer:
        betas, eps, final_lr: of AdamW and of the cosine.
        frozen_epochs: epochs in which a pretrained encoder is held; None for the rule in `_schedule`.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    eps: ClassVar[float] = 1e-5
    final_lr: ClassVar[float] = 1e-6
    frozen_epochs: ClassVar[int | None] = None

    initial_lr: float = 1e-4
    weight_decay: float = 0.05

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        """AdamW on every parameter alike, and a cosine over the schedule."""
        self.exclude_idle_heads()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, self.betas, self.eps, self.weight_decay
        )  # fmt: skip
        return optimizer, CosineSchedule(optimizer, self.initial_lr, self.schedule_length(), self.final_lr)

    def encoder_frozen_until(self) -> int:
        """Epoch from which on the encoder is trained; 0 without ImageNet weights."""
        if self.imagenet_weights is None:
            return 0
        return default_frozen_epochs(self.schedule_length()) if self.frozen_epochs is None else self.frozen_epochs

    def prepare_weights(self) -> None:
        """Brings the ImageNet weights in where they belong."""
        self.start_from_imagenet()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        frozen = self.encoder_frozen_until()
        if self.current_epoch < frozen:
            self.print_to_log_file(f"The encoder is held until epoch {frozen} (all but its patch embedding)")

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's step; in the first epochs without the gradients of the frozen part of the encoder.

        Follows from `current_epoch` alone, so that a resumed training freezes what an uninterrupted one would.
        """
        if self.current_epoch >= self.encoder_frozen_until():
            return super().train_step(batch)
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [each.to(self.device, non_blocking=True) for each in target]
        else:
            target = target.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            loss: torch.Tensor = self.loss(self.network(data), target)
        scaler = self.grad_scaler
        (loss if scaler is None else scaler.scale(loss)).backward()
        # Before unscaling and clipping: neither their overflow nor their norm counts.
        drop_gradients(unwrap(self.network).freezable_parameters())
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_CLIP)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        return {"loss": loss.detach().cpu().numpy()}
