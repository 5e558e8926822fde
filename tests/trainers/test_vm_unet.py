"""VM-UNet's recipe inside nnU-Net; what all trainers share is tested in test_base and test_imagenet."""

import math
from pathlib import Path

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.networks import VMUNet
from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.pretrained import get_record
from swin_umamba_nnunet.pretrained.variants import inventory
from tests.messages import naming
from tests.trainers.conftest import tiny

PRETRAINED, SCRATCH = "nnUNetTrainerVMUNet", "nnUNetTrainerVMUNetScratch"


@pytest.mark.parametrize("name", [PRETRAINED, SCRATCH])
def test_recipe(name, make_trainer):
    trainer = make_trainer(tiny(name))
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-8, 1e-2)
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.network.parameters()}
    assert trainer.num_epochs == 300
    assert trainer.encoder_frozen_until() == 0
    assert isinstance(unwrap(trainer.network), VMUNet)
    assert isinstance(trainer.loss, DC_and_CE_loss)  # nnU-Net's, not wrapped for deep supervision
    assert trainer.network.decoder.deep_supervision is False


def rates(trainer, epochs):
    """Learning rates as nnU-Net sets them when epochs start."""
    found = []
    for trainer.current_epoch in range(epochs):
        trainer.lr_scheduler.step(trainer.current_epoch)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return found


def test_learning_rate_is_torchs_over_all_epochs(make_trainer):
    """CosineAnnealingLR with T_max 50, stepped after every epoch as the authors do, down and up three times."""
    trainer = make_trainer(tiny(SCRATCH))
    trainer.initialize()
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=50, eta_min=1e-5)
    expected = []
    for _ in range(300):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    found = rates(trainer, 300)
    assert found == pytest.approx(expected, rel=1e-9)
    assert [found[epoch] for epoch in (0, 50, 100, 150)] == pytest.approx([1e-3, 1e-5, 1e-3, 1e-5])


@pytest.mark.parametrize("epochs", [1, 5, 10, 20, 50, 100, 250, 350, 500])
def test_half_period_scales_with_the_length(epochs, make_trainer):
    trainer = make_trainer(tiny(f"{SCRATCH}_{epochs}epoch" + "s" * (epochs > 1)))
    trainer.initialize()
    assert trainer.num_epochs == epochs
    for epoch, found in enumerate(rates(trainer, epochs)):
        phase = math.pi * epoch / (50 * epochs / 300)
        assert found == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.cos(phase)) / 2, rel=1e-9)


def test_a_training_stopped_early_keeps_the_whole_schedule(make_trainer):
    trainer = make_trainer(tiny(f"{PRETRAINED}_first100"))
    trainer.initialize()
    assert (trainer.num_epochs, trainer.lr_scheduler.half_period) == (100, 50)
    assert rates(trainer, 51)[50] == pytest.approx(1e-5)


def test_there_is_no_stopping_after_the_end():
    assert hasattr(trainers, f"{PRETRAINED}_first250")
    assert not hasattr(trainers, f"{PRETRAINED}_first350")


@pytest.mark.parametrize("patch", [(32, 32), (33, 50)])
def test_two_steps_of_training_and_validation(patch, make_trainer, batch):
    """On one-channel images of any patch size; every parameter moves."""
    torch.manual_seed(0)
    trainer = make_trainer(tiny(SCRATCH), patch)
    trainer.initialize()
    assert trainer._get_deep_supervision_scales() is None
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    losses = [float(trainer.train_step(batch(trainer, seed))["loss"]) for seed in range(2)]
    assert all(map(math.isfinite, losses))
    assert [name for name, p in trainer.network.named_parameters() if torch.equal(p, before[name])] == []
    with torch.no_grad():
        assert len(trainer.validation_step(batch(trainer))["tp_hard"]) == 2


def test_deep_supervision_is_refused(make_trainer):
    """nnU-Net would divide by the sum of its weights, zero for a single head, and train on NaN."""
    trainer = make_trainer(tiny(SCRATCH, enable_deep_supervision=True))
    facts = naming("TinynnUNetTrainerVMUNetScratch", "single head", "enable_deep_supervision", "False")
    with pytest.raises(ValueError, match=facts):
        trainer.initialize()


@pytest.mark.parametrize("name", ["vmamba_small_v0", "vmamba_tiny_v0"])
def test_it_starts_from_small_or_from_tiny_and_records_which(name, make_trainer, monkeypatch, tmp_path):
    """The real network, through the environment variable; nnU-Net's own start is left out."""
    shapes = inventory(get_record(name))
    torch.save({key: torch.tensor(1 + i / 1000).expand(shape) for i, (key, shape) in enumerate(shapes.items())},
               tmp_path / "weights.pth")  # fmt: skip
    monkeypatch.setenv("SWIN_UMAMBA_WEIGHTS", str(tmp_path / "weights.pth"))
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    trainer = make_trainer(trainers.nnUNetTrainerVMUNet)
    trainer.on_train_start()
    network, last = unwrap(trainer.network), "layers.2.blocks.1.ln_1.bias"
    value = 1 + list(shapes).index(last) / 1000
    assert network.encoder.layers[2].blocks[1].ln_1.bias[0].item() == pytest.approx(value)
    assert network.decoder.stages[1].blocks[1].ln_1.bias[0].item() == pytest.approx(value)
    assert trainer.imagenet_record["variant"] == name
    assert "117 of 117 encoder tensors and 91 of 105 decoder tensors" in Path(trainer.log_file).read_text()
