"""The recipe of the VMamba networks: AdamW, a cosine, an encoder that starts from ImageNet and is held at first."""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from swin_umamba_nnunet.trainers._imagenet import ImageNetStart
from swin_umamba_nnunet.trainers._network import unwrap
from swin_umamba_nnunet.trainers._schedule import CosineSchedule, default_frozen_epochs
from swin_umamba_nnunet.trainers.base import NetworkTrainer


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

    def held_parameters(self) -> Iterable[nn.Parameter]:
        """The pretrained encoder without its patch embedding, in the first epochs.

        Follows from `current_epoch` alone, so that a resumed training holds what an uninterrupted one would.
        """
        if self.current_epoch >= self.encoder_frozen_until():
            return ()
        return unwrap(self.network).freezable_parameters()
