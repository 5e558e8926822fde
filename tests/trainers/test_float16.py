"""Float16 autocast at the learning rate at which U-Mamba's users report NaN: SGD, 1e-2, momentum 0.99.

nnU-Net autocasts on CUDA only, and so do the trainers.  On a CPU the tests put the same autocast around the same step,
with a gradient scaler, and the loss in float32 (its softmax and sums are, in CUDA's autocast).
"""

import numpy as np
import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from swin_umamba_nnunet.trainers._step import NonFiniteError
from tests.messages import raises
from tests.trainers.conftest import make_batch, tiny

NAMES = [
    f"nnUNetTrainer{name}"
    for name in ("UMambaBot", "UMambaEnc", "SwinUMambaScratch", "SwinUMambaDScratch", "VMUNetScratch")
]
ON_A_CPU = ("nnUNetTrainerUMambaEnc", "nnUNetTrainerSwinUMambaScratch", "nnUNetTrainerVMUNetScratch")  # all blocks
ITERATIONS = 300
FULL_SCALE = 2.0**16


def with_sgd(name):
    """The trainer called `name` with a small network and nnU-Net's optimiser."""

    class Tiny(tiny(name)):
        network_settings = {key: (1, 1, 1) for key in tiny(name).network_settings if key.startswith("depths")}

        def configure_optimizers(self):
            self.exclude_idle_heads()
            sgd = torch.optim.SGD(self.network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5)
            return sgd, PolyLRScheduler(sgd, 1e-2, self.num_epochs)

    return Tiny


def use_float16_on_a_cpu(trainer, monkeypatch):
    criterion = trainer.loss

    def loss_in_float32(output, target):
        with torch.autocast("cpu", enabled=False):
            wide = [each.float() for each in output] if isinstance(output, list) else output.float()
            return criterion(wide, target)

    monkeypatch.setattr(trainer, "_autocast", lambda: torch.autocast("cpu", dtype=torch.float16))
    monkeypatch.setattr(trainer, "loss", loss_in_float32)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=FULL_SCALE)


@pytest.fixture
def trainer_of(make_trainer, monkeypatch):
    """A function (name, device=) -> trainer that steps under float16 autocast."""

    def make(name, device="cpu"):
        torch.manual_seed(0)
        monkeypatch.setenv("nnUNet_compile", "f")
        trainer = make_trainer(with_sgd(name), (32, 16), device=device)
        trainer.initialize()
        if device == "cpu":
            use_float16_on_a_cpu(trainer, monkeypatch)
        return trainer

    return make


def stays_finite(trainer):
    """Train on random data.  Only the gradient scaler, on its way down to a scale that fits, may skip a step."""
    before = [p.detach().clone() for p in trainer.network.parameters()]
    dtypes = set()
    trainer.network.register_forward_hook(lambda _, inputs, output: dtypes.add(output[0].dtype))
    skipped, losses = 0, []
    for i in range(ITERATIONS):
        losses.append(float(trainer.train_step(make_batch(trainer, seed=i))["loss"]))
        skipped += trainer._skipped_in_a_row > 0
    assert dtypes == {torch.float16}  # it was mixed precision indeed
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters()))
    assert skipped <= 8, f"{skipped} of {ITERATIONS} steps were skipped"
    assert trainer.grad_scaler.get_scale() >= FULL_SCALE / 2**skipped  # 2000 good steps in a row raise it


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_A_CPU)
def test_300_iterations_stay_finite(name, trainer_of):
    stays_finite(trainer_of(name))


FIRST_CONVOLUTION = {
    "nnUNetTrainerUMambaEnc": "encoder.stem.0.conv1 (Conv2d)",
    "nnUNetTrainerSwinUMambaDScratch": "encoder.patch_embed.proj (Conv2d)",
}


@pytest.mark.parametrize("name", FIRST_CONVOLUTION)
def test_or_stops_with_the_name_of_the_first_layer_that_overflows(name, trainer_of):
    """An image of values near 1e5 is finite, but not in float16."""
    trainer = trainer_of(name)
    trainer.max_skipped_steps = 2
    before = [p.detach().clone() for p in trainer.network.parameters()]
    bright = make_batch(trainer)
    bright["data"] *= 1e5
    trainer.train_step(bright)
    with raises(NonFiniteError, f"first layer whose output is not finite: {FIRST_CONVOLUTION[name]}"):
        trainer.train_step(bright)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.network.parameters()))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_300_iterations_stay_finite_on_a_gpu(name, trainer_of):
    """The trainer as it is: its own autocast and gradient scaler.  Unverified until it has run on a GPU."""
    stays_finite(trainer_of(name, "cuda"))
