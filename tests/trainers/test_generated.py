"""The generated trainers, and the catalogue they come from."""

import functools
import pickle

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import catalogue, networks, trainers
from swin_umamba_nnunet.blocks import DropPath
from swin_umamba_nnunet.cost.tasks import task_of_shape
from swin_umamba_nnunet.pretrained import get_record, identify
from swin_umamba_nnunet.trainers import generated
from tests.messages import raises

LEAVES = [record.name for record in catalogue.TRAINERS]


@pytest.mark.parametrize("name", [name for name in trainers.__all__ if name not in LEAVES])
def test_a_variant_is_a_class_of_its_own(name):
    leaf, variant = getattr(trainers, name.partition("_")[0]), getattr(trainers, name)
    assert (variant.__name__, variant.__qualname__, variant.__module__) == (name, name, generated.__name__)
    assert pickle.loads(pickle.dumps(variant)) is variant
    assert issubclass(variant, leaf)
    assert variant.__doc__.startswith(leaf.__name__)


def test_variants_recommend_the_scratch_trainer_of_their_length():
    assert trainers.nnUNetTrainerSwinUMamba_50epochs.scratch_trainer == "nnUNetTrainerSwinUMambaScratch_50epochs"
    for name in trainers.__all__:
        recommended = getattr(trainers, name).scratch_trainer
        assert recommended == "" or recommended in trainers.__all__


def test_exported_names_are_the_catalogues():
    assert sorted(trainers.__all__) == sorted(catalogue.trainer_names())


@pytest.mark.parametrize("record", catalogue.TRAINERS, ids=LEAVES)
def test_catalogue_describes_the_classes(record):
    trainer = getattr(trainers, record.name)
    assert trainer.network_class is getattr(networks, record.network)
    weights = trainer.imagenet_weights  # of a checkpoint, or of a network that has its own
    assert (weights and get_record(weights).name) == record.weights
    assert record.pretrained is (trainer.imagenet_weights is not None)
    assert (trainer.scratch_trainer or trainer.__name__) == record.scratch
    assert trainer.dims == record.dims
    assert trainer.__doc__.startswith(record.summary)
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    parameters = sum(p.numel() for p in build(record.name).parameters())
    assert parameters / 1e6 == pytest.approx(record.parameters_million, abs=5e-4)


def test_controls_differ_from_what_they_control_in_one_place():
    for record in catalogue.TRAINERS:
        if record.control_of is None:
            continue
        of = catalogue.get_trainer(record.control_of)
        for attribute in ("network", "weights", "deep_supervision", "epochs"):
            assert getattr(record, attribute) == getattr(of, attribute)
        ours, theirs = (getattr(trainers, name).network_settings for name in (record.name, of.name))
        (place,) = {*ours.items()} ^ {*theirs.items()}
        assert place in {("mixing", "skip"), ("mamba", False)}


def test_get_trainer():
    assert catalogue.get_trainer("nnUNetTrainerSwinUMambaD").network == "SwinUMambaD"
    assert catalogue.get_trainer("nnUNetTrainerSwinUMambaD_first100").name == "nnUNetTrainerSwinUMambaD"
    with raises(ValueError, "'nnUNetTrainer'"):
        catalogue.get_trainer("nnUNetTrainer")


@pytest.mark.parametrize(
    ("typo", "first"),
    [
        ("nnUNetTrainerSwinUmambaD", "SwinUMambaD"),
        ("UMambaBott", "UMambaBot"),
        ("nnUNetTrainerSwinUMamba_dmo", "SwinUMamba_demo"),
    ],
)
def test_names_like_a_mistyped_one(typo, first):
    assert catalogue.suggestion(typo) == f"did you mean nnUNetTrainer{first}?"
    assert catalogue.suggestion(typo, 3).count("nnUNetTrainer") == 3


def test_no_name_is_like_nonsense():
    assert catalogue.suggestion("nnUNetTrainerNonsense") == ""


# ------------------------------------------------------------------------------------------ encoders and controls

PRETRAINED = [record.name for record in catalogue.TRAINERS if record.pretrained]


@functools.cache
def task_of_patch():
    """What nnU-Net plans for patches of 320x320."""
    return task_of_shape((1, 320, 320), 14)


def build(name):
    task, make = task_of_patch(), getattr(trainers, name).build_network_architecture
    with torch.device("meta"):
        return make(PlansManager(task.plans), task.settings, 1, 14)


@pytest.mark.parametrize("name", [name for name in PRETRAINED if "VMUNet" not in name])
def test_the_network_takes_the_trainers_weights(name):
    weights = get_record(getattr(trainers, name).imagenet_weights)
    assert identify(build(name).imagenet_encoder.state_dict()).record is weights


@pytest.mark.parametrize("name", PRETRAINED)
def test_drop_path_rises_in_the_encoder_and_falls_in_the_decoder(name):
    network = build(name)
    highest = {"Small": 0.3, "Base": 0.6}.get(name.partition("SwinUMamba")[2].removeprefix("D"), 0.2)
    for part, first, last in ((network.encoder, 0, highest), (network.decoder, 0.2, 0)):
        rates = [module.rate for module in part.modules() if isinstance(module, DropPath)]
        assert rates == pytest.approx(np.linspace(first, last, len(rates)))
        assert rates or isinstance(network, networks.SwinUMamba | networks.SwinUMambaV2)  # whose decoder has no blocks
