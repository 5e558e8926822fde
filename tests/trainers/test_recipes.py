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
from swin_umamba_nnunet.catalogue import LENGTHS, TRAINERS
from swin_umamba_nnunet.trainers.base import target_scales
from swin_umamba_nnunet.trainers.recipes import CosineSchedule, UMambaTrainer, VMUNetTrainer
from tests.messages import raises
from tests.trainers.conftest import DATASET, make_batch, make_plans, tiny

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
    recipe, expected = ("lr", "betas", "eps", "weight_decay"), (1e-4, (0.9, 0.999), 1e-5, 0.05)
    if isinstance(trainer, UMambaTrainer):  # nnU-Net's own
        recipe, expected = ("lr", "momentum", "nesterov", "weight_decay"), (1e-2, 0.99, True, 3e-5)
    elif isinstance(trainer, VMUNetTrainer):
        expected = 1e-3, (0.9, 0.999), 1e-8, 1e-2
    assert type(trainer.optimizer) is (torch.optim.SGD if "momentum" in recipe else torch.optim.AdamW)
    assert tuple(group[key] for key in recipe) == expected
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.network.parameters()}
    assert trainer.num_epochs == record.epochs == (300 if "VMUNet" in record.name else 1000)
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
def test_a_step_changes_every_weight_that_has_a_gradient(name, patch, ready):
    trainer = ready(name, patch)
    trainer.network.eval()  # no DropPath, which would leave a block without a gradient
    before = copy.deepcopy(trainer.network.state_dict())
    assert np.isfinite(trainer.train_step(make_batch(trainer))["loss"])
    for key, parameter in trainer.network.named_parameters():
        if trainer.enable_deep_supervision and key.startswith("decoder.seg_layers.0."):  # nnU-Net's weight of it is 0
            assert parameter.grad is None
        elif parameter.requires_grad:
            assert parameter.grad is not None, key
            assert torch.equal(parameter, before[key]) == (not parameter.grad.any() and not before[key].any()), key
    with torch.no_grad():
        assert len(trainer.validation_step(make_batch(trainer, 1))["tp_hard"]) == 2


@pytest.mark.parametrize(("name", "attributes"), [(D, {}), (BOT, {"enable_deep_supervision": False})])
def test_heads_without_a_loss_ask_for_no_gradient(name, attributes, ready):
    trainer = ready(name, **attributes)
    trainer.train_step(make_batch(trainer))
    waiting = [n for n, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []  # DistributedDataParallel would wait for these
    heads = [all(p.requires_grad for p in head.parameters()) for head in trainer.network.decoder.seg_layers]
    assert heads == [False] * (len(heads) - 1) + [True]


@pytest.mark.parametrize(
    ("name", "patch"),
    [(name, patch) for name in (SWIN, DAGGER, ENC, f"{BOT}Paper") for patch in ((64, 32), (33, 50), (1, 7))]
    + [(SWIN, (100, 1)), (DAGGER, (100, 1)), (ENC, (5, 17, 12)), (f"{BOT}Paper", (5, 17, 12))],
)
def test_targets_have_the_size_of_the_logits(name, patch, ready, make_trainer):
    configuration = {2: "2d", 3: "3d_fullres"}[len(patch)]
    trainer = ready(name, patch, configuration)
    without_a_network = make_trainer(tiny(name), patch, configuration)
    assert without_a_network._get_deep_supervision_scales() == trainer._get_deep_supervision_scales()
    targets = make_batch(trainer)["target"]
    with torch.no_grad():
        logits = trainer.network(torch.zeros(2, 1, *patch))
    assert [t.shape[2:] for t in targets] == [y.shape[2:] for y in logits]
    if min(patch) > 8:
        assert torch.isfinite(trainer.loss(logits, targets))


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16, 32])
def test_scales_give_the_heads_size_for_every_patch_size(stride):
    for size in range(1, 700):
        ((factor, _),) = target_scales((size, size), (stride,))
        assert round(size * factor) == math.ceil(size / stride)


# ----------------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize(
    ("name", "epochs", "half_period", "lr", "least"), [(D, 1000, 1000, 1e-4, 1e-6), (VM, 300, 50, 1e-3, 1e-5)]
)
def test_learning_rates_are_torchs_cosine(name, epochs, half_period, lr, least, ready):
    """Once down; VM-UNet's, stepped after every epoch as its authors do, down and up three times."""
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, half_period, least)
    trainer = ready(name)
    for epoch in range(epochs):
        trainer.lr_scheduler.step(epoch)
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        theirs.step()
        schedule.step()


def test_a_cosine_stays_at_its_end_and_sets_every_group():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    schedule = CosineSchedule(torch.optim.AdamW(groups), 1e-4, 1000, 1e-6)
    schedule.step(1400)
    assert schedule.get_last_lr() == pytest.approx([1e-6] * 2)


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: length.suffix)
def test_a_length_ends_its_schedule_or_stops_within_the_whole_one(length, ready):
    n = length.epochs
    assert length.suffix in ("_demo", f"_{n}epoch", f"_{n}epochs", f"_first{n}")
    for name, whole in ((DAGGER, 1000), (VM, 300), (BOT, 1000)):
        if length.stops_early and n >= whole:
            assert not hasattr(trainers, name + length.suffix)
            continue
        trainer = ready(name + length.suffix)
        epochs = whole if length.suffix.startswith("_first") else n
        assert trainer.num_epochs == n
        if name == BOT:  # nnU-Net's polynomial
            assert trainer.lr_scheduler.max_steps == epochs
        else:
            assert trainer.lr_scheduler.num_epochs == epochs
            assert trainer.lr_scheduler.half_period == (epochs / 6 if name == VM else None)
            assert trainer.encoder_frozen_until() == (min(10, epochs // 10) if name == DAGGER else 0)


# ------------------------------------------------------------------------------------------------------------ VM-UNet


def test_vm_unet_refuses_deep_supervision(make_trainer):
    """nnU-Net would divide by the sum of its weights, zero for a single head, and train on NaN."""
    trainer = make_trainer(tiny(VM, enable_deep_supervision=True))
    with raises(ValueError, f"Tiny{VM}", "single head", "enable_deep_supervision", "False"):
        trainer.initialize()


# ------------------------------------------------------------------------------------------------------------ U-Mamba


@pytest.mark.parametrize("name", U_MAMBA)
@pytest.mark.parametrize(("patch", "configuration"), [((32, 32), "2d"), ((8, 16, 16), "3d_fullres")])
def test_plans_are_read_only(name, patch, configuration, make_trainer):
    before = make_plans(patch, configuration=configuration)
    before.pop("continue_training")  # which nnU-Net takes out
    trainer = make_trainer(getattr(trainers, name), patch, configuration)
    trainer.initialize()
    assert trainer.plans_manager.plans == before
    if len(patch) == 3:
        assert trainer._get_deep_supervision_scales() == [[1, 1, 1], [1, 0.5, 0.5]]
        assert np.isfinite(trainer.train_step(make_batch(trainer))["loss"])


def test_no_training_goes_on_after_its_polynomial(ready):
    """Beyond its end the rate is a complex number, which the optimiser trips over after all these epochs."""
    with raises(ValueError, BOT, "num_epochs = 1001", "schedule_epochs = 1000", "None"):
        ready("nnUNetTrainerUMambaBot_first100", num_epochs=1001)


def test_plans_of_a_residual_encoder(make_trainer):
    """Their blocks count as U-Mamba's."""
    blocks = {"n_conv_per_stage": "absent", "n_blocks_per_stage": [1, 3, 4], "n_conv_per_stage_decoder": [1, 1]}
    trainer = make_trainer(trainers.nnUNetTrainerUMambaEncPaper, **blocks)
    trainer.initialize()
    assert [len(stage.blocks) for stage in trainer.network.encoder.stages] == [1, 3, 4]


def test_plans_for_another_network(nnunet_folders):
    plans = make_plans(strides="absent", n_conv_per_stage="absent")
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "somewhere.MedNeXt"
    trainer = trainers.nnUNetTrainerUMambaEnc(plans, "2d", 0, DATASET, torch.device("cpu"))
    with raises(ValueError, ENC, "somewhere.MedNeXt", "strides, n_conv_per_stage", "use plans"):
        trainer.initialize()
