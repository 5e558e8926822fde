"""Holding the encoder is as if it asked for no gradient, also under DDP; compiled, resumed: `test_two_processes`."""

import copy

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from swin_umamba_nnunet.networks._base import unwrap
from tests.trainers.conftest import make_batch

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


def changed(before, network):
    return {name for name, value in snapshot(network).items() if not torch.equal(before[name], value)}


def test_equals_requires_grad_false(trainer):
    reference = copy.deepcopy(trainer.network)
    for parameter in reference.freezable_parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(reference.parameters(), 1e-4, (0.9, 0.999), 1e-5, 0.05)
    for step in range(2):
        data = make_batch(trainer, step)
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


def test_with_a_gradient_scaler(trainer):
    """As on CUDA; gradients that overflow in the held part do not cost the step."""
    reference = copy.deepcopy(trainer)
    reference.optimizer, _ = reference.configure_optimizers()
    reference.train_step(make_batch(reference))
    before = snapshot(trainer.network)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    held = unwrap(trainer.network).freezable_parameters()[0]
    held.register_hook(lambda gradient: gradient * float("inf"))
    trainer.train_step(make_batch(trainer))
    moved = changed(before, trainer.network)
    assert moved
    assert not moved & frozen_names(trainer.network)
    ours, expected = snapshot(trainer.network), snapshot(reference.network)
    for name in moved:
        torch.testing.assert_close(ours[name], expected[name], rtol=0, atol=2e-5)  # a fifth of a step


def test_equals_nnunets_step_once_nothing_is_held(trainer):
    stock = copy.deepcopy(trainer)
    stock.optimizer, _ = stock.configure_optimizers()
    for step in (2, 3):
        trainer.current_epoch = stock.current_epoch = step
        data = make_batch(trainer, step)
        assert trainer.train_step(data)["loss"] == nnUNetTrainer.train_step(stock, data)["loss"]
    assert not changed(snapshot(stock.network), trainer.network)


@pytest.fixture
def process_group(tmp_path):
    if not distributed.is_gloo_available():
        pytest.skip("this PyTorch build has no gloo")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")  # a hint on speed, from PyTorch
@pytest.mark.parametrize("variant", ["", "D", "V2", "DV2", "NoScan", "DNoScan"])
def test_under_ddp_without_find_unused_parameters(variant, ready, request):
    trainer = ready(f"nnUNetTrainerSwinUMamba{variant}", **SETTINGS)
    trainer.network.eval()
    before = snapshot(trainer.network)
    if trainer.enable_deep_supervision:
        # nnU-Net gives the last head this weight under uncompiled DDP, so that every parameter has a gradient.
        trainer.loss.weight_factors = (*trainer.loss.weight_factors[:-1], 1e-6)
    request.getfixturevalue("process_group")  # only now: nnU-Net's constructor would ask for CUDA devices
    trainer.network = DistributedDataParallel(trainer.network)
    for trainer.current_epoch in range(4):
        trainer.train_step(make_batch(trainer, trainer.current_epoch))  # raises if DDP still waits for a gradient
        if trainer.current_epoch < 2:
            assert not changed(before, trainer.network) & frozen_names(trainer.network)
    heads = unwrap(trainer.network).decoder.seg_layers[: 0 if trainer.enable_deep_supervision else -1]
    idle = {id(p) for p in heads.parameters()}
    trained = {name for name, p in unwrap(trainer.network).named_parameters() if id(p) not in idle}
    assert changed(before, trainer.network) == trained
