"""The generated trainers, and the catalogue they come from."""

import importlib
import pickle
import subprocess
import sys

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import catalogue, networks, trainers
from swin_umamba_nnunet.pretrained import get_record, identify
from swin_umamba_nnunet.trainers import generated
from tests.messages import raises
from tests.trainers.conftest import make_plans

LEAVES = [record.name for record in catalogue.TRAINERS]
SCALED = {f"_{n}epochs": n for n in (5, 10, 20, 50, 100, 250, 350, 500)} | {"_1epoch": 1}
FIRST = {f"_first{n}": n for n in (100, 250, 350)}


VARIANTS = [
    (record.name, suffix)
    for record in catalogue.TRAINERS
    for suffix in (*SCALED, *FIRST, "_demo")
    if FIRST.get(suffix, 0) < record.epochs
]


@pytest.mark.parametrize(("leaf", "suffix"), VARIANTS)
def test_a_variant_is_a_class_of_its_own(leaf, suffix):
    name = leaf + suffix
    variant = getattr(trainers, name)
    assert (variant.__name__, variant.__qualname__, variant.__module__) == (name, name, generated.__name__)
    assert getattr(importlib.import_module(variant.__module__), name) is variant
    assert pickle.loads(pickle.dumps(variant)) is variant
    assert issubclass(variant, getattr(trainers, leaf))
    assert issubclass(variant, nnUNetTrainer)
    assert variant.__doc__.startswith(leaf)
    assert variant.__doc__ != getattr(trainers, leaf).__doc__


@pytest.mark.parametrize("suffix", SCALED)
def test_scaled_variants_end_their_schedule(suffix, ready):
    trainer = ready(f"nnUNetTrainerSwinUMambaD{suffix}")
    assert trainer.num_epochs == trainer.lr_scheduler.num_epochs == SCALED[suffix]
    assert trainer.encoder_frozen_until() == min(10, SCALED[suffix] // 10)


@pytest.mark.parametrize("suffix", FIRST)
def test_first_variants_stop_within_the_full_schedule(suffix, ready):
    trainer = ready(f"nnUNetTrainerSwinUMambaD{suffix}")
    assert trainer.num_epochs == FIRST[suffix]
    assert trainer.lr_scheduler.num_epochs == 1000
    assert trainer.encoder_frozen_until() == 10
    assert ready(f"nnUNetTrainerSwinUMambaDScratch{suffix}").encoder_frozen_until() == 0


def test_variants_recommend_the_scratch_trainer_of_their_length():
    assert trainers.nnUNetTrainerSwinUMamba_50epochs.scratch_trainer == "nnUNetTrainerSwinUMambaScratch_50epochs"
    for name in trainers.__all__:
        recommended = getattr(trainers, name).scratch_trainer
        assert recommended == "" or recommended in trainers.__all__


def test_exported_names_are_the_catalogues():
    assert sorted(trainers.__all__) == sorted(catalogue.trainer_names())
    assert all(hasattr(trainers, name) for name in trainers.__all__)


SEVEN_STAGES = make_plans(
    (320, 320),
    n_stages=7,
    features_per_stage=[min(32 * 2**i, 512) for i in range(7)],
    kernel_sizes=[[3, 3]] * 7,
    strides=[[1, 1], *[[2, 2]] * 6],
    n_conv_per_stage=[2] * 7,
    n_conv_per_stage_decoder=[2] * 6,
)


@pytest.mark.parametrize("record", catalogue.TRAINERS, ids=LEAVES)
def test_catalogue_describes_the_classes(record):
    trainer = getattr(trainers, record.name)
    assert trainer.network_class is getattr(networks, record.network)
    weights = trainer.imagenet_weights  # of a checkpoint, or of a network that has its own
    assert (weights and get_record(weights).name) == record.weights
    assert record.pretrained is (trainer.imagenet_weights is not None)
    assert trainer.enable_deep_supervision is record.deep_supervision
    assert (trainer.scratch_trainer or trainer.__name__) == record.scratch
    assert trainer.dims == record.dims
    assert getattr(trainer, "num_epochs", 1000) == record.epochs
    assert trainer.__doc__.startswith(record.summary)
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    plans = PlansManager(SEVEN_STAGES)  # what nnU-Net plans for patches of 320x320
    with torch.device("meta"):
        network = trainer.build_network_architecture(plans, plans.get_configuration("2d"), 1, 14)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(record.parameters_million, abs=5e-4)


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


def test_catalogue_is_data_only():
    code = "import swin_umamba_nnunet.catalogue, sys; print({'torch', 'nnunetv2', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------ encoders and controls

PRETRAINED = [record.name for record in catalogue.TRAINERS if record.pretrained and record.network != "VMUNet"]


def build(name):
    plans = PlansManager(make_plans())
    make = getattr(trainers, name).build_network_architecture
    with torch.device("meta"):
        return make(plans, plans.get_configuration("2d"), 1, 14, True)


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_network_takes_the_trainers_weights(name):
    weights = get_record(getattr(trainers, name).imagenet_weights)
    assert identify(build(name).imagenet_encoder.state_dict()).record is weights


@pytest.mark.parametrize(
    ("variant", "encoder", "decoder"),
    [
        ("", 0.2, None),
        ("D", 0.2, 0.2),
        ("Small", 0.3, None),
        ("DSmall", 0.3, 0.2),
        ("Base", 0.6, None),
        ("DBase", 0.6, 0.2),
        ("V2", 0.2, None),
        ("DV2", 0.2, 0.2),
        ("NoScan", 0.2, None),
        ("DNoScan", 0.2, 0.2),
    ],
)
def test_drop_path(variant, encoder, decoder):
    network = build(f"nnUNetTrainerSwinUMamba{variant}")
    rates = [[m.rate for m in part.modules() if hasattr(m, "rate")] for part in (network.encoder, network.decoder)]
    assert max(rates[0]) == rates[0][-1] == pytest.approx(encoder)
    assert (max(rates[1]) if rates[1] else None) == (decoder if decoder is None else pytest.approx(decoder))
