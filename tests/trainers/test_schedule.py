"""Learning rate and freezing as functions of the epoch."""

import pytest
import torch

from swin_umamba_nnunet.trainers.recipes import CosineSchedule, default_frozen_epochs


def optimizer(groups: int = 1) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=1e-4)


@pytest.mark.parametrize("epochs", [1, 5, 1000])
def test_cosine_is_torchs(epochs):
    theirs = optimizer()
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, epochs, eta_min=1e-6)
    schedule = CosineSchedule(optimizer(), 1e-4, epochs, 1e-6)
    for epoch in range(epochs):
        assert schedule.lr(epoch) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        theirs.step()
        reference.step()


def test_it_stays_at_its_end():
    assert CosineSchedule(optimizer(), 1e-4, 1000, 1e-6).lr(1400) == pytest.approx(1e-6)


def test_step_sets_every_group():
    schedule = CosineSchedule(optimizer(groups=2), 1e-4, 10, 1e-6)
    schedule.step(5)
    assert schedule.get_last_lr() == [schedule.lr(5)] * 2


@pytest.mark.parametrize(
    ("epochs", "frozen"), [(1, 0), (5, 0), (10, 1), (20, 2), (50, 5), (100, 10), (350, 10), (1000, 10)]
)
def test_frozen_epochs(epochs, frozen):
    assert default_frozen_epochs(epochs) == frozen
