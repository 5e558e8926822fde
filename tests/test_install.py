"""Right after installation, wheel or editable, nnU-Net finds the trainers with nothing exported."""

import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from swin_umamba_nnunet import _autoregister, catalogue
from tests.installed import ROOT
from tests.workspace import built_wheel, installed_editable, installed_wheel

FOLDER = Path("swin_umamba_nnunet", "nnunet_ext")
PRINT_VARIABLE = "import os; print(os.environ.get('nnUNet_extTrainer', 'unset'))"
FIND = """
import json, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
classes = [find(name) for name in {names}]
print(json.dumps([[c.__name__, getattr(sys.modules.get(c.__module__), '__file__', '')] for c in classes]))
"""


@pytest.fixture(scope="module")
def from_wheel(tmp_path_factory):
    return installed_wheel(tmp_path_factory)


def variable(environment, **variables):
    result = environment.run("-c", PRINT_VARIABLE, **variables)
    assert result.stderr == ""
    return result.stdout.strip().split(os.pathsep)


def find(environment, *names, **variables):
    """(name, file) of classes, looked up by nnU-Net's finder in a process of its own.

    The finder forgets modules of an external folder, so a class defined right there has no file.
    """
    result = environment.run("-c", FIND.format(names=names), **variables)
    assert result.returncode == 0, result.stderr
    return [(name, Path(file)) for name, file in json.loads(result.stdout.splitlines()[-1])]


def test_wheel_has_one_start_up_line_and_no_strangers(tmp_path_factory):
    names = zipfile.ZipFile(built_wheel(tmp_path_factory)).namelist()
    assert [name for name in names if name.endswith(".pth")] == ["swin_umamba_nnunet_autoregister.pth"]
    assert {name.split("/")[0].split("-")[0] for name in names} == {
        "swin_umamba_nnunet",
        "swin_umamba_nnunet_autoregister.pth",
    }
    assert [name for name in names if "/nnunet_ext/" in name] == [(FOLDER / "swin_umamba_nnunet_ext.py").as_posix()]
    for ending in (".py", ".md", ".png", ".csv", ".css", ".j2"):
        package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "swin_umamba_nnunet").rglob(f"*{ending}")}
        example = {name for name in package if "/benchmark/example/" in name}  # the repository's
        assert {name for name in names if name.endswith(ending)} == package - example


def test_found_from_a_wheel_beside_the_users_own(from_wheel, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMamba\n"
        "class MyTrainer(nnUNetTrainerSwinUMamba): pass\n"
    )
    own = str(tmp_path)
    ours = [record.name for record in catalogue.TRAINERS] + ["nnUNetTrainerSwinUMambaD_first100"]
    names = ["MyTrainer", *ours, "nnUNetTrainer_5epochs", "MyTrainer"]
    found = find(from_wheel, *names, nnUNet_extTrainer=own)
    assert [name for name, _ in found] == names
    assert all(file.is_relative_to(from_wheel.venv.resolve()) for name, file in found if name in ours)
    first, second = variable(from_wheel, nnUNet_extTrainer=own)
    assert first == own
    assert second.endswith(str(FOLDER))
    assert variable(from_wheel) == [second]


def test_found_from_an_editable_install(tmp_path_factory):
    editable = installed_editable(tmp_path_factory)
    ((name, file),) = find(editable, "nnUNetTrainerSwinUMambaDScratch_5epochs")
    assert name == "nnUNetTrainerSwinUMambaDScratch_5epochs"
    assert file.is_relative_to(ROOT)
    assert variable(editable) == [str(ROOT / FOLDER)]


def test_switched_off(from_wheel):
    assert variable(from_wheel, SWIN_UMAMBA_NO_AUTOREGISTER="1") == ["unset"]
    assert variable(from_wheel, SWIN_UMAMBA_NO_AUTOREGISTER="1", nnUNet_extTrainer="mine") == ["mine"]


def test_start_up_imports_nothing_heavy(from_wheel):
    code = "import sys; print([m for m in sys.modules if m.split('.')[0] in {'torch', 'numpy', 'nnunetv2', 'numba'}])"
    assert from_wheel.run("-c", code).stdout.strip() == "[]"


def test_start_up_line_is_silent_where_the_package_is_broken(tmp_path):
    (tmp_path / "swin_umamba_nnunet.py").write_text("raise SyntaxError('half-removed')")
    line = (ROOT / "swin_umamba_nnunet" / "_autoregister.pth").read_text()
    assert len(line.splitlines()) == 1
    assert line.startswith("import ")  # what Python runs of such a file
    result = subprocess.run(
        [sys.executable, "-c", line], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("before", [[], ["/a"], ["/a", "/b"]])
def test_register_appends_once(before, monkeypatch):
    """To an empty variable too; where there is none: `test_found_from_a_wheel_beside_the_users_own`."""
    monkeypatch.delenv(_autoregister.SWITCH, raising=False)
    monkeypatch.setenv(_autoregister.VARIABLE, os.pathsep.join(before))
    for _ in range(2):
        assert _autoregister.register() is True
        assert os.environ[_autoregister.VARIABLE].split(os.pathsep) == [*before, _autoregister.FOLDER]


def test_importing_the_trainers_registers_again(monkeypatch):
    from swin_umamba_nnunet import trainers

    monkeypatch.delenv(_autoregister.SWITCH, raising=False)
    monkeypatch.setenv(_autoregister.VARIABLE, "/assigned/while/python/runs")
    importlib.reload(trainers)
    assert os.environ[_autoregister.VARIABLE].split(os.pathsep)[1:] == [_autoregister.FOLDER]
