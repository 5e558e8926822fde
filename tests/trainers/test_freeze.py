"""Holding the encoder is as if it asked for no gradient; under DDP, compiled, resumed: `test_two_processes`."""

import copy

import pytest
import torch

from swin_umamba_nnunet.networks._base import unwrap

NAMES = ["nnUNetTrainerSwinUMamba", "nnUNetTrainerSwinUMambaD"]
SETTINGS = {"num_epochs": 4, "frozen_epochs": 2}


@pytest.fixture(params=NAMES)
def trainer(request, ready):
    trainer = ready(request.param, **SETTINGS)
    trainer.network.eval()  # no DropPath: two networks must see the same numbers
    return trainer


def snapshot(network):
    return {name: p.detach().clone() for name, p in unwrap(network).named_parameters()}


def frozen_names(network):
    held = {id(p) for p in unwrap(network).freezable_parameters()}
    return {name for name, p in unwrap(network).named_parameters() if id(p) in held}


def test_equals_requires_grad_false(trainer, batch):
    reference = copy.deepcopy(trainer.network)
    for parameter in reference.freezable_parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(reference.parameters(), 1e-4, (0.9, 0.999), 1e-5, 0.05)
    for step in range(2):
        data = batch(trainer, step)
        result = trainer.train_step(data)
        optimizer.zero_grad()
        loss = trainer.loss(reference(data["data"]), data["target"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 12)
        optimizer.step()
        assert float(result["loss"]) == pytest.approx(loss.item(), rel=1e-6)
    assert norm > 0
    ours, theirs = snapshot(trainer.network), snapshot(reference)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not {*trainer.optimizer.state} & {*unwrap(trainer.network).freezable_parameters()}


def test_with_a_gradient_scaler(trainer, batch):
    """As on CUDA; gradients that overflow in the held part do not cost the step."""
    reference = copy.deepcopy(trainer)
    reference.optimizer, _ = reference.configure_optimizers()
    reference.train_step(batch(reference))
    before = snapshot(trainer.network)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    held = unwrap(trainer.network).freezable_parameters()[0]
    held.register_hook(lambda gradient: gradient * float("inf"))
    trainer.train_step(batch(trainer))
    ours, expected = snapshot(trainer.network), snapshot(reference.network)
    moved = {name for name, value in ours.items() if not torch.equal(before[name], value)}
    assert moved
    assert not moved & frozen_names(trainer.network)
    for name in moved:
        torch.testing.assert_close(ours[name], expected[name], rtol=0, atol=2e-5)  # a fifth of a step
