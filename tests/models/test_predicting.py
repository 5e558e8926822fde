"""Prediction from a program, whatever its environment variables are."""

import functools

import numpy as np
import pytest
import torch

import swin_umamba_nnunet
from swin_umamba_nnunet.models import predicting
from swin_umamba_nnunet.models.checkpoints import ModelError
from tests.messages import raises
from tests.models.conftest import CHECKPOINT

BOT = "nnUNetTrainerUMambaBot"
load_predictor = functools.partial(predicting.load_predictor, device="cpu")


@pytest.mark.parametrize("variable", [None, "", "/somewhere/else"])
def test_the_trainer_is_found_whatever_nnunet_exttrainer_says(trained, variable, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", variable or "")
    if variable is None:
        monkeypatch.delenv("nnUNet_extTrainer")
    _, folder = trained(BOT)
    assert load_predictor(folder).trainer_name == BOT


def test_settings_reach_the_predictor(trained):
    _, folder = trained(BOT)
    predictor = load_predictor(folder)
    assert predictor.images_per_call == 1  # as nnU-Net: more is no faster on a CPU
    predictor = load_predictor(folder, images_per_call=4, mirroring=False)
    assert (predictor.images_per_call, predictor.use_mirroring) == (4, False)


def test_predict_hands_every_setting_on(tmp_path, monkeypatch):
    given = {
        "folds": (1,),
        "checkpoint": "checkpoint_best.pth",
        "device": "cpu",
        "mirroring": False,
        "images_per_call": 2,
    }

    def stop(_, **settings):
        assert settings == given
        raise ModelError("far enough")

    monkeypatch.setattr(predicting, "load_predictor", stop)
    with raises(ModelError, "far enough"):
        swin_umamba_nnunet.predict(tmp_path, tmp_path, tmp_path / "out", **given)


def test_what_is_not_understood_is_refused_before_anything_is_read(tmp_path):
    with raises(ModelError, "images_per_call is 0"):
        load_predictor(tmp_path, images_per_call=0)


def test_models_that_cannot_be_loaded_are_told_in_a_sentence(trained, tmp_path):
    _, folder = trained(BOT)
    plans, checkpoint = folder / "plans.json", folder / CHECKPOINT
    good = checkpoint.read_bytes()

    def refused(match):
        with pytest.raises(ModelError, match=match):
            load_predictor(folder)

    for deep in ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' * 200 + "1" + "}" * 200):
        plans.write_text(deep)
        refused(f"{plans} nests deeper than")
    plans.write_text("[1]")
    refused(f"{plans} holds a list")
    plans.write_text("{}")
    refused(f"{folder} holds no model that nnU-Net can load")
    for changes, match in (
        ({"trainer_name": torch.zeros(3)}, f"{checkpoint} names its trainer by a Tensor"),
        ({"trainer_name": "nnUNetTrainerNowhere"}, f"{folder} holds no model .*nnUNetTrainerNowhere"),
        ({"network_weights": {"a": torch.zeros(1)}}, f"{folder} holds no model that nnU-Net can load"),
    ):
        trained(BOT, **changes)
        refused(match)
    checkpoint.write_bytes(good[: len(good) // 2])
    refused(f"{checkpoint} is truncated or damaged")


def test_what_is_not_trained_is_told_with_the_command_that_does(trained, tmp_path):
    folder = tmp_path / "Dataset001_X" / f"{BOT}__myPlans__2d"
    train = f"nnUNetv2_train Dataset001_X 2d 0 -tr {BOT} -p myPlans"
    with raises(ModelError, "fold_0/checkpoint_final.pth", "plans.json", train):
        load_predictor(folder)
    folder.parent.mkdir()
    trained(BOT)[1].rename(folder)
    (folder / CHECKPOINT).rename(folder / CHECKPOINT.with_name("checkpoint_latest.pth"))
    (folder / CHECKPOINT.with_name("checkpoint_best.pth")).touch()
    facts = ("lacks fold_0/checkpoint_final.pth;", train, " --c ", "--checkpoint checkpoint_latest.pth")
    with raises(ModelError, *facts):
        load_predictor(folder)


def test_an_array_of_other_channels_is_told(trained):
    _, folder = trained(BOT)
    predictor = load_predictor(folder)
    for shape, match in (((2, 1, 32, 40), "has 2 channels, but the model is for 1"), ((32, 40), r"shape \(32, 40\)")):
        with pytest.raises(ModelError, match=match):
            predictor.predict_single_npy_array(np.zeros(shape, np.float32), {"spacing": [1.0, 1.0, 1.0]})
