"""The recipes by which the networks are trained; `generated` makes trainers of them.

Swin-UMamba's (AdamW, a cosine, an encoder that starts from ImageNet and is held at first), VM-UNet's and U-Mamba's.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch.optim import Optimizer

from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.trainers._imagenet import ImageNetStart
from swin_umamba_nnunet.trainers.base import NetworkTrainer

HALF_PERIODS = 6  # T_max = 50 of 300 epochs: the learning rate falls and rises three times
_PLANNED = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")


@dataclass(eq=False)
class CosineSchedule:
    """Learning rate that falls from `initial_lr` to `final_lr` along half a cosine, set once per epoch.

    lr(e) = final + (initial - final) (1 + cos(pi e / E)) / 2  (SGDR, arXiv:1608.03983, eq. 5, without restarts), which
    is what `torch.optim.lr_scheduler.CosineAnnealingLR` gives in closed form.  A function of the epoch alone, so a
    resumed training needs nothing stored; nnU-Net calls `step(epoch)` when an epoch starts.

    With a half period T the rate goes down and up again all the time, lr(e) as above with T instead of E: what torch's
    scheduler does with T_max = T when it is stepped on and on.

    Args:
        optimizer: whose groups are all set to the same rate.
        initial_lr: rate of epoch 0.
        num_epochs: E, the epoch at which the rate would reach `final_lr`.
        final_lr: lowest rate; without a half period it holds from epoch E on.
        half_period: T, epochs from the highest rate to the lowest; None falls once, over the E epochs.
    """

    optimizer: Optimizer
    initial_lr: float
    num_epochs: int
    final_lr: float
    half_period: float | None = None

    def lr(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        share = epoch / self.half_period if self.half_period else min(epoch / self.num_epochs, 1.0)
        return self.final_lr + (self.initial_lr - self.final_lr) * (1 + math.cos(math.pi * share)) / 2

    def step(self, epoch: int) -> None:
        """Set the rate of `epoch`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(epoch)

    def get_last_lr(self) -> list[float]:
        """The rate in force, per parameter group."""
        return [group["lr"] for group in self.optimizer.param_groups]


def default_frozen_epochs(schedule_epochs: int) -> int:
    """For how many epochs a pretrained encoder is held: 10, but no more than a tenth of the schedule.

    The papers hold it for 10 of 1000 epochs, until the new decoder has stopped sending noise.  That takes a number of
    steps and not a share of the schedule, so shorter schedules keep the 10 epochs, down to 100.  Below, the encoder is
    held for a tenth of them (20 epochs: 2; fewer than 10: not at all), lest holding it be most of the training.
    """
    return min(10, schedule_epochs // 10)


class MambaTrainer(ImageNetStart):
    """Trains a VMamba network the way Swin-UMamba's authors do.

    Attributes, besides those of NetworkTrainer:
        betas, eps, final_lr: of AdamW and of the cosine.
        frozen_epochs: epochs in which a pretrained encoder is held; None for `default_frozen_epochs`.
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
        )
        return optimizer, CosineSchedule(optimizer, self.initial_lr, self.schedule_length(), self.final_lr)

    def encoder_frozen_until(self) -> int:
        """Epoch from which on the encoder is trained; 0 without ImageNet weights."""
        if self.imagenet_weights is None:
            return 0
        return default_frozen_epochs(self.schedule_length()) if self.frozen_epochs is None else self.frozen_epochs

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


class VMUNetTrainer(MambaTrainer):
    """Trains VM-UNet with its authors' optimiser and schedule.

    The authors': AdamW (learning rate 1e-3, weight decay 1e-2, eps 1e-8), a cosine that oscillates between 1e-3 and
    1e-5 with a half period of 50 epochs (theirs on the ISIC datasets; 100 on Synapse), 300 epochs, no deep supervision,
    nothing frozen.  In other lengths the half period is a sixth of the schedule too.

    nnU-Net's: everything else, so that only the network and its optimiser differ from the other trainers here: the loss
    (Dice and cross-entropy; the authors' are BCE or cross-entropy and Dice), gradients clipped at 12 (theirs are not),
    data augmentation, patches, 250 iterations per epoch, mirroring at test time, the last checkpoint for prediction
    (they choose the one with the lowest validation loss).
    """

    eps = 1e-8
    final_lr = 1e-5
    frozen_epochs = 0

    num_epochs: int = 300
    initial_lr: float = 1e-3
    weight_decay: float = 1e-2

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        """AdamW on every parameter alike, and a cosine that oscillates."""
        optimizer, _ = super().configure_optimizers()
        epochs = self.schedule_length()
        return optimizer, CosineSchedule(optimizer, self.initial_lr, epochs, self.final_lr, epochs / HALF_PERIODS)

    def _get_deep_supervision_scales(self) -> Any:
        """None.

        Raises:
            ValueError: deep supervision was switched on: nnU-Net gives the coarsest head, here the only one, no weight.
        """
        if self.enable_deep_supervision:
            raise ValueError(
                f"{type(self).__name__} has enable_deep_supervision = True, but VM-UNet has a single head and nothing "
                "to supervise below it; set it to False"
            )
        return None


class UMambaTrainer(NetworkTrainer):
    """Builds U-Mamba from the U-Net that nnU-Net planned: stages, widths, kernels, strides, blocks; and trains it so.

    SGD from 1e-2 with polynomial decay over 1000 epochs, nnU-Net's loss and its deep supervision on every decoder step.
    The authors predicted without mirroring at test time (`nnUNetv2_predict --disable_tta`).

    The plans of residual encoders (ResEnc) serve as well: their blocks per stage count as U-Mamba's, as they did in the
    authors' fork of nnU-Net.
    """

    @classmethod
    def settings_from_plans(cls, configuration_manager: ConfigurationManager) -> dict[str, Any]:
        """Arguments of `UMambaBot` and `UMambaEnc`; the plans are only read.

        Raises:
            ValueError: plans for something that is no U-Net.
        """
        planned = configuration_manager.network_arch_init_kwargs
        blocks = planned.get("n_conv_per_stage", planned.get("n_blocks_per_stage"))
        missing = [name for name in _PLANNED if name not in planned]
        if blocks is None:
            missing.append("n_conv_per_stage")
        if missing:
            raise ValueError(
                f"{cls.__name__} builds its network from the plans of a U-Net, but these are for "
                f"{configuration_manager.network_arch_class_name} and lack {', '.join(missing)}; use plans of "
                "nnU-Net's own planners, as made by: nnUNetv2_plan_experiment -d DATASET"
            )
        settings = {name: planned[name] for name in _PLANNED}
        return {**settings, "n_conv_per_stage": blocks, "patch_size": configuration_manager.patch_size}
