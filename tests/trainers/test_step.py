"""Steps that are not finite: skipped without a trace in the weights, named, and fatal in a row."""

from unittest import mock

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.trainers._step import NonFiniteError
from tests.messages import assert_names, raises
from tests.trainers.conftest import log_of, tiny

NAME = "nnUNetTrainerSwinUMambaScratch"


@pytest.fixture
def trainer(ready):
    return ready(NAME, max_skipped_steps=3)


def state_of(trainer) -> list[torch.Tensor]:
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [value.detach().clone() for value in (*trainer.network.state_dict().values(), *moments)]


def spoil(trainer) -> None:
    """One weight in the second encoder stage."""
    with torch.no_grad():
        trainer.network.encoder.vssm.layers[1].blocks[0].self_attention.in_proj.weight[0, 0] = float("inf")


@pytest.mark.parametrize("scaled", [False, True])
def test_a_loss_that_is_not_finite_changes_nothing_and_names_the_layer(scaled, trainer, batch):
    trainer.train_step(batch(trainer))
    if scaled:
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    spoil(trainer)
    before = state_of(trainer)
    assert not np.isfinite(trainer.train_step(batch(trainer))["loss"])
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))
    log = log_of(trainer)
    (line,) = [line for line in log.splitlines() if "step skipped" in line]
    assert_names(line, "loss is nan", "encoder.vssm.layers.1.blocks.0.self_attention.in_proj (Linear)")


def test_stops_after_a_row_of_them(trainer, batch):
    spoil(trainer)
    trainer.train_step(batch(trainer))
    trainer.train_step(batch(trainer))
    with raises(NonFiniteError, "3 steps", "in_proj (Linear)", "--c"):
        trainer.train_step(batch(trainer))
    assert log_of(trainer).count("step skipped") == 1  # one line per row, not per step


def test_a_finite_step_ends_the_row(trainer, batch):
    good, bad = batch(trainer), batch(trainer)
    bad["data"][0, 0, 0, 0] = float("nan")
    for _ in range(3):
        trainer.train_step(bad)
        trainer.train_step(bad)
        assert np.isfinite(trainer.train_step(good)["loss"])
    log = log_of(trainer)
    assert log.count("step skipped") == 3
    assert "image itself" in log


@pytest.mark.parametrize("scaled", [False, True])
def test_a_gradient_that_is_not_finite_names_its_parameter(scaled, trainer, batch):
    trainer.train_step(batch(trainer))
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if scaled else None
    trainer.network.encoder.stem[0].bias.register_hook(lambda gradient: gradient * float("inf"))
    before = state_of(trainer)
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))
    assert_names(log_of(trainer), "1 parameter", " encoder.stem.0.bias")
    if scaled:
        assert trainer.grad_scaler.get_scale() == 128


@pytest.mark.parametrize("scaled", [False, True])
def test_a_norm_that_overflows_is_no_step_even_if_every_number_is_finite(scaled, trainer, batch):
    trainer.train_step(batch(trainer))
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0) if scaled else None
    trainer.network.encoder.stem[0].bias.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    before = state_of(trainer)
    trainer.train_step(batch(trainer))
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))
    assert "norm overflows" in log_of(trainer)


def test_a_loss_that_is_not_finite_is_no_step_even_if_its_gradient_is(trainer, batch):
    trainer.train_step(batch(trainer))
    criterion = trainer.loss
    trainer.loss = lambda output, target: criterion(output, target) + float("inf")
    before = state_of(trainer)
    trainer.train_step(batch(trainer))
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))


def test_another_error_of_the_clip_is_not_swallowed(trainer, batch, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", mock.Mock(side_effect=RuntimeError("out of memory")))
    with raises(RuntimeError, "out of memory"):
        trainer.train_step(batch(trainer))


def test_an_unknown_precision_is_refused(make_trainer):
    with raises(ValueError, "precision", "'half'", "'float16', 'bfloat16'"):
        make_trainer(tiny(NAME, precision="half"))


def test_bfloat16_reaches_nnunets_own_autocast(make_trainer, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch, "set_autocast_dtype", lambda device, dtype: chosen.append((device, dtype)))
    trainer = make_trainer(tiny(NAME, precision="bfloat16"))
    assert (chosen, trainer.grad_scaler) == ([], None)  # on a CPU everything is float32
    trainer.device = torch.device("cuda")
    trainer.grad_scaler = object()
    trainer.apply_precision()
    assert chosen == [("cuda", torch.bfloat16)]
    assert trainer.grad_scaler is None
    plain = make_trainer(tiny(NAME))
    plain.device, plain.grad_scaler = torch.device("cuda"), "a scaler"
    plain.apply_precision()  # after a bfloat16 training in the same process
    assert chosen[-1] == ("cuda", torch.float16)
    assert plain.grad_scaler == "a scaler"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    with raises(RuntimeError, "bfloat16", "Tesla V100"):
        trainer.apply_precision()
