"""The recipes by which networks are trained, of every family: optimiser, schedule, loss, targets, a step."""

import copy
import math

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.blocks import Mamba
from swin_umamba_nnunet.catalogue import TRAINERS, LengthRecord
from swin_umamba_nnunet.trainers.base import target_scales
from swin_umamba_nnunet.trainers.generated import make_length_variant
from swin_umamba_nnunet.trainers.recipes import UMambaTrainer, VMUNetTrainer
from tests.messages import naming, raises
from tests.trainers.conftest import DATASET, make_plans, tiny

SWIN, D, VM, BOT, ENC = (
    f"nnUNetTrainer{name}"
    for name in ("SwinUMambaScratch", "SwinUMambaDScratch", "VMUNetScratch", "UMambaBot", "UMambaEnc")
)
U_MAMBA = {BOT: 1, ENC: 2, f"{BOT}Paper": 1, f"{ENC}Paper": 3, f"{BOT}NoMamba": 0, f"{ENC}NoMamba": 0}  # Mamba layers
DAGGER = "nnUNetTrainerSwinUMambaD"
FAMILIES = [record.name for record in TRAINERS if not (record.pretrained or "width" in record.settings)]


@pytest.mark.parametrize("record", TRAINERS, ids=lambda record: record.name)
def test_recipe(record, ready):
    trainer = ready(record.name)
    (group,) = trainer.optimizer.param_groups
    if isinstance(trainer, UMambaTrainer):  # nnU-Net's own
        recipe, expected = ("lr", "momentum", "nesterov", "weight_decay"), (1e-2, 0.99, True, 3e-5)
    elif isinstance(trainer, VMUNetTrainer):
        recipe, expected = ("lr", "betas", "eps", "weight_decay"), (1e-3, (0.9, 0.999), 1e-8, 1e-2)
    else:
        recipe, expected = ("lr", "betas", "eps", "weight_decay"), (1e-4, (0.9, 0.999), 1e-5, 0.05)
    assert type(trainer.optimizer) is (torch.optim.SGD if "momentum" in recipe else torch.optim.AdamW)
    assert tuple(group[key] for key in recipe) == expected
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.network.parameters()}
    assert trainer.num_epochs == (300 if "VMUNet" in record.name else 1000)
    if not isinstance(trainer, UMambaTrainer):
        held = record.pretrained and not isinstance(trainer, VMUNetTrainer)
        assert trainer.encoder_frozen_until() == (10 if held else 0)
    assert trainer.enable_deep_supervision is trainer.network.decoder.deep_supervision is record.deep_supervision
    assert type(trainer.loss) is (DeepSupervisionWrapper if record.deep_supervision else DC_and_CE_loss)
    if record.network.startswith("SwinUMamba") and record.deep_supervision:
        assert trainer.loss.weight_factors == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))


@pytest.mark.parametrize("name", U_MAMBA)
def test_u_mamba_trains_as_nnunets_u_net(name, ready):
    trainer = ready(name)
    assert sum(isinstance(part, Mamba) for part in trainer.network.modules()) == U_MAMBA[name]
    assert type(trainer.lr_scheduler) is PolyLRScheduler
    assert trainer.lr_scheduler.max_steps == 1000
    stock = nnUNetTrainer(make_plans(), "2d", 0, DATASET, torch.device("cpu"))
    stock.initialize()
    assert trainer.loss.weight_factors == pytest.approx(stock.loss.weight_factors)
    assert trainer._get_deep_supervision_scales() == [list(map(float, s)) for s in stock._get_deep_supervision_scales()]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("patch", [(32, 32), (33, 50)])
def test_a_step_changes_every_weight_that_has_a_gradient(name, patch, ready, batch):
    trainer = ready(name, patch)
    trainer.network.eval()  # no DropPath, which would leave a block without a gradient
    before = copy.deepcopy(trainer.network.state_dict())
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])
    for key, parameter in trainer.network.named_parameters():
        if trainer.enable_deep_supervision and key.startswith("decoder.seg_layers.0."):  # nnU-Net's weight of it is 0
            assert parameter.grad is None
        elif parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.equal(parameter, before[key]) == (not parameter.grad.any() and not before[key].any()), key
    with torch.no_grad():
        assert len(trainer.validation_step(batch(trainer, 1))["tp_hard"]) == 2


@pytest.mark.parametrize(("name", "attributes"), [(D, {}), (BOT, {"enable_deep_supervision": False})])
def test_heads_without_a_loss_ask_for_no_gradient(name, attributes, ready, batch):
    trainer = ready(name, **attributes)
    trainer.train_step(batch(trainer))
    waiting = [n for n, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []  # DistributedDataParallel would wait for these
    heads = [all(p.requires_grad for p in head.parameters()) for head in trainer.network.decoder.seg_layers]
    assert heads == [False] * (len(heads) - 1) + [True]


@pytest.mark.parametrize(
    ("name", "patch"),
    [(name, patch) for name in (SWIN, DAGGER, ENC, f"{BOT}Paper") for patch in ((64, 32), (33, 50), (1, 7))]
    + [(SWIN, (100, 1)), (DAGGER, (100, 1)), (ENC, (5, 17, 12)), (f"{BOT}Paper", (5, 17, 12))],
)
def test_targets_have_the_size_of_the_logits(name, patch, ready, make_trainer, batch):
    configuration = {2: "2d", 3: "3d_fullres"}[len(patch)]
    trainer = ready(name, patch, configuration)
    without_a_network = make_trainer(tiny(name), patch, configuration)
    assert without_a_network._get_deep_supervision_scales() == trainer._get_deep_supervision_scales()
    targets = batch(trainer)["target"]
    if "Swin" in name:
        strides = (1, 4, 8, 16) if "MambaD" in name else (1, 2, 4, 8)
        assert [tuple(t.shape[2:]) for t in targets] == [tuple(-(-n // s) for n in patch) for s in strides]
    with torch.no_grad():
        logits = trainer.network(torch.zeros(2, 1, *patch))
    assert [t.shape[2:] for t in targets] == [y.shape[2:] for y in logits]
    if min(patch) > 8:
        assert torch.isfinite(trainer.loss(logits, targets))


def test_scales_are_exact_where_the_stride_divides_the_patch():
    assert target_scales((64, 96), (1, 2, 8)) == [[1, 1], [0.5, 0.5], [0.125, 0.125]]


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16, 32])
def test_scales_give_the_heads_size_for_every_patch_size(stride):
    for size in range(1, 700):
        ((factor, _),) = target_scales((size, size), (stride,))
        assert round(size * factor) == math.ceil(size / stride)


# ----------------------------------------------------------------------------------------------------- learning rates


def rates(trainer, epochs: int) -> list[float]:
    """Learning rates as nnU-Net sets them when epochs start."""
    found = []
    for trainer.current_epoch in range(epochs):
        trainer.lr_scheduler.step(trainer.current_epoch)
        found.append(trainer.optimizer.param_groups[0]["lr"])
    return found


def test_learning_rate_is_set_when_an_epoch_starts(ready):
    trainer = ready(D)
    trainer.current_epoch = 250
    trainer.on_train_epoch_start()
    expected = 1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi / 4)) / 2
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
    assert trainer.logger.get_value("lrs", step=-1) == pytest.approx(expected, rel=1e-12)


def test_vm_unets_learning_rate_is_torchs_over_all_epochs(ready):
    """CosineAnnealingLR with T_max 50, stepped after every epoch as the authors do, down and up three times."""
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=50, eta_min=1e-5)
    expected = []
    for _ in range(300):
        expected.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    found = rates(ready(VM), 300)
    assert found == pytest.approx(expected, rel=1e-9)
    assert [found[epoch] for epoch in (0, 50, 100, 150)] == pytest.approx([1e-3, 1e-5, 1e-3, 1e-5])


@pytest.mark.parametrize("epochs", [1, 5, 10, 20, 50, 100, 250, 350, 500])
def test_vm_unets_half_period_scales_with_the_length(epochs, ready):
    trainer = ready(f"{VM}_{epochs}epoch" + "s" * (epochs > 1))
    assert (trainer.num_epochs, trainer.lr_scheduler.half_period) == (epochs, pytest.approx(50 * epochs / 300))


def test_vm_unet_stopped_early_keeps_the_whole_schedule(ready):
    trainer = ready(f"{VM}_first100")
    assert (trainer.num_epochs, trainer.lr_scheduler.half_period) == (100, 50)


@pytest.mark.parametrize(("stops_early", "until"), [(False, 7), (True, 1000)])
def test_u_mambas_polynomial(stops_early, until, make_trainer):
    """It falls to its end in a scaled variant, and over the whole length in one that stops early."""
    length = LengthRecord("_7epochs", 7, stops_early, "a test's")
    trainer = make_trainer(make_length_variant(trainers.nnUNetTrainerUMambaBot, length, 1000))
    trainer.initialize()
    assert (trainer.num_epochs, trainer.lr_scheduler.max_steps) == (7, until)
    trainer.current_epoch = 6
    trainer.on_train_epoch_start()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * (1 - 6 / until) ** 0.9)


# ------------------------------------------------------------------------------------------------------------ VM-UNet


def test_vm_unet_refuses_deep_supervision(make_trainer):
    """nnU-Net would divide by the sum of its weights, zero for a single head, and train on NaN."""
    trainer = make_trainer(tiny(VM, enable_deep_supervision=True))
    facts = naming(f"Tiny{VM}", "single head", "enable_deep_supervision", "False")
    with pytest.raises(ValueError, match=facts):
        trainer.initialize()


# ------------------------------------------------------------------------------------------------------------ U-Mamba


@pytest.mark.parametrize("name", U_MAMBA)
@pytest.mark.parametrize(("patch", "configuration"), [((32, 32), "2d"), ((8, 16, 16), "3d_fullres")])
def test_plans_are_read_only(name, patch, configuration, make_trainer, batch):
    before = make_plans(patch, configuration=configuration)
    before.pop("continue_training")  # which nnU-Net takes out
    trainer = make_trainer(getattr(trainers, name), patch, configuration)
    trainer.initialize()
    assert trainer.plans_manager.plans == before
    if len(patch) == 3:
        assert trainer._get_deep_supervision_scales() == [[1, 1, 1], [1, 0.5, 0.5]]
        assert np.isfinite(trainer.train_step(batch(trainer))["loss"])


@pytest.mark.parametrize("name", [BOT, f"{ENC}Paper"])
def test_plans_of_a_residual_encoder(name, make_trainer):
    """Their blocks count as U-Mamba's; the release of March 2024 has one in half of the stages all the same."""
    blocks = {"n_conv_per_stage": "absent", "n_blocks_per_stage": [1, 3, 4], "n_conv_per_stage_decoder": [1, 1]}
    trainer = make_trainer(getattr(trainers, name), **blocks)
    trainer.initialize()
    paper = name.endswith("Paper")
    stages = [len(stage.blocks if paper else stage) for stage in trainer.network.encoder.stages]
    assert stages == ([1, 3, 4] if paper else [1, 3, 1])


def test_plans_for_another_network(nnunet_folders):
    plans = make_plans(strides="absent", n_conv_per_stage="absent")
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "somewhere.MedNeXt"
    trainer = trainers.nnUNetTrainerUMambaEnc(plans, "2d", 0, DATASET, torch.device("cpu"))
    with raises(ValueError, ENC, "somewhere.MedNeXt", "strides, n_conv_per_stage", "use plans"):
        trainer.initialize()
