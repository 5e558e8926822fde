"""Steps that are not finite: skipped without a trace in the weights, named, and fatal in a row."""

from unittest import mock

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.trainers._step import NonFiniteError
from tests.messages import assert_names, raises
from tests.trainers.conftest import log_of, make_batch, tiny

NAME = "nnUNetTrainerSwinUMambaScratch"


@pytest.fixture
def trainer(ready):
    return ready(NAME, max_skipped_steps=3)


def state_of(trainer):
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return [value.detach().clone() for value in (*trainer.network.state_dict().values(), *moments)]


INFINITE = float("inf")


def spoil_a_layer(trainer):
    """One weight in the second encoder stage."""
    with torch.no_grad():
        trainer.network.encoder.vssm.layers[1].blocks[0].self_attention.in_proj.weight[0, 0] = INFINITE


def spoil_the_loss(trainer):
    """Its gradient is as it was."""
    criterion = trainer.loss
    trainer.loss = lambda output, target: criterion(output, target) + INFINITE


def spoil_a_gradient(trainer):
    trainer.network.encoder.stem[0].bias.register_hook(lambda gradient: gradient * INFINITE)


def spoil_the_norm(trainer):
    """Every number is finite."""
    trainer.network.encoder.stem[0].bias.register_hook(lambda gradient: torch.full_like(gradient, 1e30))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("spoil", "facts"),
    [
        (spoil_a_layer, ("loss is nan", "encoder.vssm.layers.1.blocks.0.self_attention.in_proj (Linear)")),
        (spoil_the_loss, ("loss is inf",)),
        (spoil_a_gradient, ("1 parameter", " encoder.stem.0.bias")),
        (spoil_the_norm, ("norm overflows",)),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_and_names_what_is_not(spoil, facts, scaled, trainer):
    trainer.train_step(make_batch(trainer))
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if scaled else None
    spoil(trainer)
    before = state_of(trainer)
    assert np.isfinite(trainer.train_step(make_batch(trainer))["loss"]) == ("loss" not in facts[0])
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(trainer), strict=True))
    (line,) = [line for line in log_of(trainer).splitlines() if "step skipped" in line]
    assert_names(line, *facts)
    if scaled:  # which looks at numbers only
        assert trainer.grad_scaler.get_scale() == (128 if spoil in (spoil_a_layer, spoil_a_gradient) else 256)


def test_stops_after_a_row_of_them(trainer):
    spoil_a_layer(trainer)
    trainer.train_step(make_batch(trainer))
    trainer.train_step(make_batch(trainer))
    with raises(NonFiniteError, "3 steps", "in_proj (Linear)", "--c", f"subclass {type(trainer).__name__}"):
        trainer.train_step(make_batch(trainer))
    assert log_of(trainer).count("step skipped") == 1  # one line per row, not per step


def test_a_finite_step_ends_the_row(trainer):
    good, bad = make_batch(trainer), make_batch(trainer)
    bad["data"][0, 0, 0, 0] = float("nan")
    for _ in range(3):
        trainer.train_step(bad)
        trainer.train_step(bad)
        assert np.isfinite(trainer.train_step(good)["loss"])
    log = log_of(trainer)
    assert log.count("step skipped") == 3
    assert "image itself" in log


def test_another_error_of_the_clip_is_not_swallowed(trainer, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", mock.Mock(side_effect=RuntimeError("out of memory")))
    with raises(RuntimeError, "out of memory"):
        trainer.train_step(make_batch(trainer))


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
