"""`swin-umamba describe TRAINER`: what is printed, as text and as JSON, and what is refused."""

import dataclasses
import json
import re
import sys

import pytest

from swin_umamba_nnunet.catalogue import get_network, get_trainer
from swin_umamba_nnunet.cli import describe as verb
from swin_umamba_nnunet.settings import FOLDERS
from tests.messages import assert_names

SMALL = "--shape 2 64 64 --classes 3"


@pytest.fixture
def described(told):
    """A function (arguments) -> what the verb printed, parsed where `--json` is asked for."""

    def described(arguments):
        text = told(0, "describe", *arguments.split()).out
        return json.loads(text) if "--json" in arguments else text

    return described


def test_swin_umamba_as_in_the_paper(described):
    text = described("nnUNetTrainerSwinUMamba --shape 1 320 320 --classes 14")
    record = get_network("SwinUMamba")
    assert_names(text, "arXiv:2402.03302", record.title, "vmamba_tiny_v0", "1 x 320 x 320", "59.889 M, 228.5 MiB")
    assert re.search("^total +59.889 M ", text, re.MULTILINE)
    assert_names(text, "68.00 G (64.08 + 3.92 G scan)", "at 1, 1/2, 1/4, 1/8 of the patch\n", "9*B*L*D*N + B*L*D")
    assert {word for deviation in record.deviations for word in deviation.split()} <= set(text.split())


def test_diagram_has_encoder_and_decoder_side_by_side_and_says_what_is_not_trained(described):
    lines = [" ".join(line.split()) for line in described(f"nnUNetTrainerSwinUMambaDScratch {SMALL}").splitlines()]
    assert lines[[line.startswith("Heads") for line in lines].index(True)].endswith("; only the first is trained")
    assert "64 x 64 image (2) final step (96), head (3)" in lines
    assert "16 x 16 patch embedding (96), stage 1 (96) stage 3 (96), head (3)" in lines
    assert "2 x 2 stage 4 (768)" in lines


def test_json_has_the_numbers_in_full(described):
    content = described(f"nnUNetTrainerSwinUMambaDScratch_10epochs {SMALL} --batch 4 --json")
    assert content["trainer"] == "nnUNetTrainerSwinUMambaDScratch_10epochs"
    assert "10 epochs" in content["variant"]
    assert content["imagenet_weights"] is None
    assert content["trained_with_deep_supervision"] is False
    assert (content["input_shape"], content["classes"], content["batch_size"]) == ([2, 64, 64], 3, 4)
    assert content["parameters"] == sum(part["parameters"] for part in content["parts"]) > 27_000_000
    assert content["flops"] == content["dense_flops"] + content["scan_flops"]
    assert content["deep_supervision_scales"] == [[1, 1], [0.25, 0.25], [0.125, 0.125], [0.0625, 0.0625]]


@pytest.mark.parametrize(
    ("plans", "network"), [("", "PlainConvUNet"), ("-p nnUNetResEncUNetLPlans", "ResidualEncoderUNet")]
)
def test_networks_of_nnunet(plans, network, described):
    text = described(f"nnUNetTrainer {SMALL} {plans}")
    assert network in text
    assert "no scan" in text


def test_a_planned_dataset(planned, described):
    content = described("nnUNetTrainer -d 907 --batch --json")
    assert (content["input_shape"], content["classes"], content["batch_size"]) == ([2, 160, 128], 3, 5)
    by_name = described("nnUNetTrainer -d Dataset907_Planned --json")
    assert by_name["batch_size"] == 1
    assert by_name["flops"] == content["flops"]
    assert by_name["activation_bytes"] * 4 < content["activation_bytes"] <= by_name["activation_bytes"] * 5


def test_heads_of_a_size_that_does_not_divide(described):
    text = described("nnUNetTrainerSwinUMambaD --shape 1 30 64 --classes 2")
    assert " 1, 0.2667 x 1/4, 0.1333 x 1/8, 1/15 x 1/16 of" in text


def test_a_trainer_alone_is_described_at_a_size_that_is_said_and_the_wait_is_announced(told, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    said = told(0, "describe", "nnUNetTrainerUMambaBot")
    assert_names(said.out, "1 x 320 x 320", "14 classes", "AbdomenMR", "-d", "--shape", "41.33 G")
    assert "nnU-Net start" in said.err


PLAN = "nnUNetv2_plan_and_preprocess -d 907 -c 2d"


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (
            f"nnUNetTrainerSwinUMumba {SMALL}",
            ("'nnUNetTrainerSwinUMumba'", "nnUNetTrainerSwinUMamba", "swin-umamba list"),
        ),
        ("nnUNetTrainer --shape 1 64 64", ("--shape", "--classes N")),
        ("nnUNetTrainerUMambaBot -c 3d_fullres", ("-c ", "-d;", "--shape C D H W")),
        ("nnUNetTrainer -d 907 --classes 3", ("--classes", "--shape", "-d")),
        ("nnUNetTrainer --shape 1 64 64 --classes 0", ("classes is 0", "at least 1")),
        ("nnUNetTrainer --shape 64 64 --classes 3", (" 64 64;", "C H W", "C D H W")),
        ("nnUNetTrainer --shape 1 0 64 --classes 3", (" 1 0 64;", "C H W", "C D H W")),
        (f"nnUNetTrainer {SMALL} --batch", ("--batch", "--shape", "-d")),
        (f"nnUNetTrainer {SMALL} --batch 0", ("batch size is 0", "at least 1")),
        ("nnUNetTrainer --shape 1 60 64 --classes 3", ("60 x 64", "64 x 64")),
        ("nnUNetTrainer --shape 1 4 4 --classes 3", ("4 x 4", "8 pixels")),
        ("nnUNetTrainerSwinUMamba --shape 1 32 64 64 --classes 3", ("2D", "(32, 64, 64)", "2d FOLD")),
        (f"nnUNetTrainer {SMALL} -p nnUNetMyPlans", ("'nnUNetMyPlans'", "nnUNetResEncUNetLPlans")),
        ("nnUNetTrainer -d 999", ("'999'", "nnUNet_preprocessed")),
        ("nnUNetTrainer -d 907 -p nnUNetMyPlans", ("nnUNetMyPlans.json", PLAN)),
        ("nnUNetTrainer -d 907 -c 3d_lowres", ("nnUNetPlans.json", "'3d_lowres'", " 2d")),
    ],
)
def test_refused_in_one_sentence(arguments, facts, planned, told):
    said = told(2, "describe", *arguments.split())
    assert_names(said.err, *facts)
    assert said.out == ""


def test_nnunets_folders_are_not_needed_for_a_shape(monkeypatch, described, told):
    for name in FOLDERS:
        monkeypatch.delenv(name, raising=False)
    assert described(f"nnUNetTrainer {SMALL} --json")["network"] == "PlainConvUNet"
    assert "export nnUNet_preprocessed=" in told(2, "describe", "nnUNetTrainer", "-d", 907).err


def test_a_description_needs_no_record_of_the_network(described, monkeypatch):
    """And a control names what it is a control of."""
    record = dataclasses.replace(get_trainer("nnUNetTrainerSwinUMambaD"), control_of="nnUNetTrainerX")
    monkeypatch.setattr(verb, "NETWORKS", ())
    monkeypatch.setattr(verb, "get_trainer", lambda name: record)
    text = described(f"{record.name} {SMALL}")
    assert_names(text, "Network: SwinUMambaD.", "control of nnUNetTrainerX")
    assert "arXiv" not in text
