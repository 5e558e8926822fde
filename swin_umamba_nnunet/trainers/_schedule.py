"""Epoch-wise rules of the recipe: the learning rate, and how long the encoder is held."""

import math

from torch.optim import Optimizer


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

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        num_epochs: int,
        final_lr: float,
        half_period: float | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.initial_lr = initial_lr
        self.num_epochs = num_epochs
        self.final_lr = final_lr
        self.half_period = half_period

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


def default_frozen_epochs(schedule_epochs: int, at_most: int = 10) -> int:
    """For how many epochs a pretrained encoder is held: `at_most`, but no more than a tenth of the schedule.

    The papers hold it for 10 of 1000 epochs, until the new decoder has stopped sending noise.  That takes a number of
    steps and not a share of the schedule, so shorter schedules keep the 10 epochs, down to 100.  Below, the encoder is
    held for a tenth of them (20 epochs: 2; fewer than 10: not at all), lest holding it be most of the training.
    """
    return min(at_most, schedule_epochs // 10)
