"""Prediction from a program, whatever its environment variables are."""

import pytest

from swin_umamba_nnunet.models.predicting import load_predictor
from tests.models.test_exporting import model  # noqa: F401


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
@pytest.mark.parametrize("variable", [None, "", "/somewhere/else"])
def test_the_trainer_is_found_whatever_nnunet_exttrainer_says(model, variable, monkeypatch):  # noqa: F811
    monkeypatch.setenv("nnUNet_extTrainer", variable or "")
    if variable is None:
        monkeypatch.delenv("nnUNet_extTrainer")
    _, folder = model("nnUNetTrainerUMambaBot")
    assert load_predictor(folder, device="cpu").trainer_name == "nnUNetTrainerUMambaBot"
