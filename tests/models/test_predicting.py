"""Prediction from a program, whatever its environment variables are."""

import pytest

from swin_umamba_nnunet.models import predicting
from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.models.predicting import CUDA_GRAPHS_VARIABLE, load_predictor
from tests.models.test_exporting import model  # noqa: F401


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
@pytest.mark.parametrize("variable", [None, "", "/somewhere/else"])
def test_the_trainer_is_found_whatever_nnunet_exttrainer_says(model, variable, monkeypatch):  # noqa: F811
    monkeypatch.setenv("nnUNet_extTrainer", variable or "")
    if variable is None:
        monkeypatch.delenv("nnUNet_extTrainer")
    _, folder = model("nnUNetTrainerUMambaBot")
    assert load_predictor(folder, device="cpu").trainer_name == "nnUNetTrainerUMambaBot"


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
def test_settings_reach_the_predictor_and_graphs_need_a_gpu(model, monkeypatch, caplog):  # noqa: F811
    _, folder = model("nnUNetTrainerUMambaBot")
    predictor = load_predictor(folder, device="cpu")
    assert predictor.images_per_call == 1  # as nnU-Net: more is no faster on a CPU
    assert not caplog.records
    monkeypatch.setenv(CUDA_GRAPHS_VARIABLE, "1")
    predictor = load_predictor(folder, device="cpu", images_per_call=4, mirroring=False)
    assert (predictor.images_per_call, predictor.use_mirroring, predictor._cuda_graphs) == (4, False, False)
    assert "CUDA graphs were asked for, but the prediction runs on cpu: predicting without" in caplog.text


def test_predict_hands_every_setting_on(tmp_path, monkeypatch):
    given = {"folds": (1,), "checkpoint": "checkpoint_best.pth", "device": "cpu", "mirroring": False,
             "images_per_call": 2, "cuda_graphs": False}  # fmt: skip

    def stop(_, **settings):
        assert settings == given
        raise ModelError("far enough")

    monkeypatch.setattr(predicting, "load_predictor", stop)
    with pytest.raises(ModelError, match="far enough"):
        predicting.predict(tmp_path, tmp_path, tmp_path / "out", **given)


@pytest.mark.parametrize(("said", "wanted"), [("1", True), ("TRUE", True), ("t", True), ("0", False), ("", False)])
def test_the_environment_variable_for_graphs(said, wanted, monkeypatch):
    monkeypatch.setenv(CUDA_GRAPHS_VARIABLE, said)
    assert predicting._cuda_graphs_wanted() is wanted


def test_what_is_not_understood_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="images_per_call is 0; at least one"):
        load_predictor(tmp_path, images_per_call=0)
    monkeypatch.setenv(CUDA_GRAPHS_VARIABLE, "yes")
    with pytest.raises(ModelError, match="SWIN_UMAMBA_CUDA_GRAPHS is 'yes'; set it to 1 or 0"):
        load_predictor(tmp_path)
