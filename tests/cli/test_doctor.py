"""`swin-umamba doctor`: what it says about healthy and about broken installations."""

import os
import subprocess

import pytest

from swin_umamba_nnunet import _autoregister, cli
from swin_umamba_nnunet.cli import doctor


@pytest.fixture
def finder(monkeypatch):
    """nnU-Net's finder, answered for: set `finder.stderr` to the message it fails with."""

    class Finder:
        stderr = ""

        def __call__(self, command, **kwargs):
            return subprocess.CompletedProcess(command, 1 if self.stderr else 0, "", self.stderr)

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


def test_an_import_error_in_the_finder_is_passed_on(finder, capsys):
    finder.stderr = "Traceback\nModuleNotFoundError: No module named 'acvl_utils'"
    assert cli.main(["doctor"]) == 1
    assert "No module named 'acvl_utils'" in capsys.readouterr().out


def test_a_backend_that_does_not_exist(finder, capsys, monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "nonsense")
    assert cli.main(["doctor"]) == 1
    assert "'nonsense', which does not exist" in capsys.readouterr().out
