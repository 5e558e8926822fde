"""`swin-umamba doctor`: what it says about healthy and about broken installations."""

import os
import subprocess
from pathlib import Path

import pytest

from swin_umamba_nnunet import _autoregister, cli, trainers
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli import doctor


@pytest.fixture
def finder(monkeypatch):
    """nnU-Net's finder, answered for: set `finder.stderr` to the message it fails with."""

    class Finder:
        stdout, stderr = "Searching in: /somewhere\n/found/here\n", ""

        def __call__(self, command, **kwargs):
            return subprocess.CompletedProcess(command, 1 if self.stderr else 0, self.stdout, self.stderr)

    monkeypatch.delenv(_autoregister.SWITCH, raising=False)
    monkeypatch.delenv("SWIN_UMAMBA_BACKEND", raising=False)
    finder = Finder()
    monkeypatch.setattr(doctor.subprocess, "run", finder)
    return finder


def test_healthy(finder, capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "nnunetv2" in text
    assert "reference  available" in text
    assert "yes, in /found/here\n" in text
    assert "All is well" in text


def test_trainers_not_found_gives_the_export_line(finder, capsys, monkeypatch):
    monkeypatch.setenv(_autoregister.VARIABLE, "/my/trainers")
    finder.stderr = "RuntimeError: Could not find requested nnunet trainer nnUNetTrainerSwinUMamba in ..."
    assert cli.main(["doctor"]) == 1
    assert f"export nnUNet_extTrainer=/my/trainers{os.pathsep}{_autoregister.FOLDER}" in capsys.readouterr().out


def test_registration_switched_off_is_said(finder, capsys, monkeypatch):
    monkeypatch.setenv(_autoregister.SWITCH, "1")
    finder.stderr = "RuntimeError: Could not find requested nnunet trainer nnUNetTrainerSwinUMamba in ..."
    assert cli.main(["doctor"]) == 1
    assert f"{_autoregister.SWITCH} is set" in capsys.readouterr().out


def test_a_switch_set_to_0_is_not_blamed(finder, capsys, monkeypatch):
    monkeypatch.setenv(_autoregister.SWITCH, "0")
    finder.stderr = "RuntimeError: Could not find requested nnunet trainer nnUNetTrainerSwinUMamba in ..."
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert f"{_autoregister.SWITCH} is set" not in text
    assert "export nnUNet_extTrainer=" in text


@pytest.mark.parametrize("foreign", [False, True])
def test_where_the_trainers_were_found_is_nnunets_answer(tmp_path, capsys, monkeypatch, foreign):
    folder = Path(trainers.__file__).parent
    if foreign:
        (tmp_path / "my_trainers.py").write_text(
            "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n\n\n"
            f"class {TRAINERS[0].name}(nnUNetTrainer):\n    pass\n"
        )
    before = [str(tmp_path)] if foreign else []
    monkeypatch.setenv(_autoregister.VARIABLE, os.pathsep.join([*before, _autoregister.FOLDER]))
    assert list(doctor._trainers_found()) == []
    expected = "a module named my_trainers" if foreign else folder
    assert f"yes, in {expected}\n" in capsys.readouterr().out


def test_an_import_error_in_the_finder_is_passed_on(finder, capsys):
    finder.stderr = "Traceback\nModuleNotFoundError: No module named 'acvl_utils'"
    assert cli.main(["doctor"]) == 1
    assert "No module named 'acvl_utils'" in capsys.readouterr().out


def test_a_backend_that_does_not_exist(finder, capsys, monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "nonsense")
    assert cli.main(["doctor"]) == 1
    assert "'nonsense', which does not exist" in capsys.readouterr().out
