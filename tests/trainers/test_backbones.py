"""Trainers of the other encoders and of the controls: settings that fit their weights, and a training step."""

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from swin_umamba_nnunet import catalogue, trainers
from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.pretrained import get_record, identify
from swin_umamba_nnunet.trainers import recipes
from tests.trainers.conftest import make_plans, tiny

SIZES = [f"nnUNetTrainerSwinUMamba{size}" for size in ("Small", "DSmall", "Base", "DBase", "V2", "DV2")]
CONTROLS = ["nnUNetTrainerSwinUMambaNoScan", "nnUNetTrainerSwinUMambaDNoScan"]
PRETRAINED = SIZES + CONTROLS
SECOND_GENERATION = [name for name in SIZES if name.endswith("V2")]


def is_dagger(name):
    return name.startswith("nnUNetTrainerSwinUMambaD")


def build(name, channels=1, classes=14):
    plans = PlansManager(make_plans())
    make = getattr(trainers, name).build_network_architecture
    with torch.device("meta"):
        return make(plans, plans.get_configuration("2d"), channels, classes, True)


def test_every_trainer_is_listed_here():
    published = {"nnUNetTrainerSwinUMamba", "nnUNetTrainerSwinUMambaD", "nnUNetTrainerVMUNet"}
    assert {record.name for record in catalogue.TRAINERS if record.pretrained} == {*published, *PRETRAINED}


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_network_takes_the_trainers_weights(name):
    trainer = getattr(trainers, name)
    encoder = build(name).imagenet_encoder
    assert identify(encoder.state_dict()).record is get_record(trainer.imagenet_weights)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_scratch_trainer_is_the_same_without_weights(name):
    trainer, scratch = getattr(trainers, name), getattr(trainers, getattr(trainers, name).scratch_trainer)
    assert scratch.__name__ == name + "Scratch"
    assert (scratch.imagenet_weights, scratch.scratch_trainer) == (None, "")
    assert scratch.network_class is trainer.network_class
    assert scratch.network_settings == trainer.network_settings
    assert trainer.enable_deep_supervision is True
    assert scratch.enable_deep_supervision is not is_dagger(name)  # as with the published sizes


@pytest.mark.parametrize("name", PRETRAINED)
def test_nothing_else_differs_from_the_published_recipe(name):
    """Class attributes only, and only these."""
    allowed = {"network_class", "network_settings", "imagenet_weights", "scratch_trainer"}
    for end in ("", "Scratch"):
        trainer = getattr(trainers, f"{name}{end}")
        published = getattr(trainers, f"nnUNetTrainerSwinUMamba{'D' * is_dagger(name)}{end}")
        assert trainer.__base__ is published.__base__ is recipes.MambaTrainer
        assert vars(trainer).keys() == vars(published).keys()
        different = {key for key, value in vars(trainer).items() if value != vars(published)[key]}
        assert {key for key in different if not key.startswith("__")} <= allowed
        assert trainer.__doc__ != published.__doc__


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("nnUNetTrainerSwinUMambaSmall", 0.3, None),
        ("nnUNetTrainerSwinUMambaDSmall", 0.3, 0.2),
        ("nnUNetTrainerSwinUMambaBase", 0.6, None),
        ("nnUNetTrainerSwinUMambaDBase", 0.6, 0.2),
        ("nnUNetTrainerSwinUMambaV2", 0.2, None),
        ("nnUNetTrainerSwinUMambaDV2", 0.2, 0.2),
        ("nnUNetTrainerSwinUMambaNoScan", 0.2, None),
        ("nnUNetTrainerSwinUMambaDNoScan", 0.2, 0.2),
    ],
)
def test_drop_path(name, encoder, decoder):
    network = build(name)
    rates = [[m.rate for m in part.modules() if hasattr(m, "rate")] for part in (network.encoder, network.decoder)]
    assert max(rates[0]) == rates[0][-1] == pytest.approx(encoder)
    assert (max(rates[1]) if rates[1] else None) == (decoder if decoder is None else pytest.approx(decoder))


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_differs_in_its_scans_alone(name):
    network, control = build(name.removesuffix("NoScan")), build(name)
    blocks = [[m for m in each.modules() if isinstance(m, SS2D)] for each in (network, control)]
    assert len(blocks[0]) == len(blocks[1]) == (21 if is_dagger(name) else 15)
    assert {block.mixing for block in blocks[0]} == {"scan"}
    assert {block.mixing for block in blocks[1]} == {"skip"}
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (network, control)]
    assert shapes[0] == shapes[1]
    assert "?" in getattr(trainers, name).__doc__  # the question it answers


@pytest.mark.parametrize("name", SECOND_GENERATION + CONTROLS)
def test_steps_while_the_encoder_is_held_and_after(name, make_trainer, batch):
    torch.manual_seed(0)
    trainer = make_trainer(tiny(name, num_epochs=4, frozen_epochs=1), (33, 50))
    trainer.initialize()
    trainer.network.eval()  # no DropPath, which would leave a block without a gradient
    # nnU-Net gives the last head no weight, except under uncompiled DDP
    trainer.loss.weight_factors = (*trainer.loss.weight_factors[:-1], 1e-6)
    held = {id(p) for p in trainer.network.freezable_parameters()}
    kept = {key: value.clone() for key, value in trainer.network.named_buffers()}
    for epoch in (0, 1):
        before = {key: p.detach().clone() for key, p in trainer.network.named_parameters()}
        trainer.current_epoch = epoch
        trainer.train_step(batch(trainer, epoch))
        still = {key for key, p in trainer.network.named_parameters() if torch.equal(before[key], p)}
        expected = {key for key, p in trainer.network.named_parameters() if id(p) in held} if epoch == 0 else set()
        assert still == expected
    assert all(torch.equal(value, kept[key]) for key, value in trainer.network.named_buffers())


@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")  # a hint on speed, from PyTorch
@pytest.mark.parametrize("name", ["nnUNetTrainerSwinUMambaV2Scratch", "nnUNetTrainerSwinUMambaDNoScanScratch"])
def test_under_ddp_without_find_unused_parameters(name, make_trainer, batch, tmp_path):
    if not distributed.is_gloo_available():
        pytest.skip("this PyTorch build has no gloo")
    trainer = make_trainer(tiny(name))
    trainer.initialize()
    if trainer.enable_deep_supervision:
        trainer.loss.weight_factors = (*trainer.loss.weight_factors[:-1], 1e-6)
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        trainer.network = DistributedDataParallel(trainer.network)
        for step in range(3):
            trainer.train_step(batch(trainer, step))  # raises if DDP still waits for a gradient
    finally:
        distributed.destroy_process_group()
    assert all(p.grad is not None for p in unwrap(trainer.network).parameters() if p.requires_grad)
