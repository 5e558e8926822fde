"""`swin-umamba evaluate`: from the command line to the table."""

import json
import subprocess
import sys

import pytest

from swin_umamba_nnunet.cli import main
from tests.evaluation.files import write_folders

LABELS = {"labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}}


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


def evaluate(folders, *arguments):
    return main(["evaluate", "-gt", str(folders[0]), "-pred", str(folders[1]), "-np", "1", "--resamples", "50",
                 *map(str, arguments)])  # fmt: skip


def test_table_and_files(folders, tmp_path, capsys):
    assert evaluate(folders, "--labels", "liver=1", "both=2,3", "-o", tmp_path / "out", "--tolerance", 1, "both=3") == 0
    said = capsys.readouterr()
    assert 'Convention "plain"' in said.out
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[:2] for row in rows if row[1:2] == ["NSD"]] == [["liver", "NSD"], ["both", "NSD"], ["(all)", "NSD"]]
    assert "tolerance 1 px" in said.out
    assert "tolerance 3 px" in said.out
    assert "ddof = 1" in said.out
    assert "50 resamples" in said.out
    assert "checking files" in said.err  # progress
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.csv", "summary.json"}


def test_quirks_are_named(folders, capsys):
    assert evaluate(folders, "--protocol", "endoscopy") == 0
    said = capsys.readouterr().out
    assert "slab one voxel thick" in said
    assert "no boundary score" in said
    assert said.index('Convention "endoscopy"') < said.index('Convention "plain"')


def test_dataset_by_number(folders, tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw"
    (raw / "Dataset007_Organs").mkdir(parents=True)
    (raw / "Dataset007_Organs/dataset.json").write_text(json.dumps(LABELS))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    for name in ("7", "007", "Dataset007_Organs"):
        assert evaluate(folders, "--dataset", name) == 0
        assert "kidney" in capsys.readouterr().out
    assert evaluate(folders, "--dataset", "8") == 2
    assert "no Dataset008_*/dataset.json in" in capsys.readouterr().err
    (raw / "Dataset007_Twice").mkdir()
    (raw / "Dataset007_Twice/dataset.json").write_text("{}")
    assert evaluate(folders, "--dataset", "7") == 2
    assert "not unique" in capsys.readouterr().err


def test_dataset_without_nnunet_raw(folders, monkeypatch, capsys):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    assert evaluate(folders, "--dataset", "7") == 2
    assert "nnUNet_raw" in capsys.readouterr().err


def test_bad_input_is_one_sentence(folders, capsys):
    (folders[1] / "case_1.png").unlink()
    assert evaluate(folders) == 2
    said = capsys.readouterr()
    assert said.err.startswith("swin-umamba evaluate: 1 case without a prediction")
    assert "Traceback" not in said.err
    assert said.out == ""
    assert evaluate(folders, "--allow-missing") == 0
    assert "Left out, no prediction (1): case_1" in capsys.readouterr().out


def test_undefined_and_infinite_are_counted(folders, capsys):
    assert evaluate(folders, "--labels", "1", "9") == 0
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if line.startswith("9 ") and "Dice" in line)
    assert row[2] == "undefined"
    assert "In no file" in said
    assert "undefined score as 1" in said


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom swin_umamba_nnunet.cli import main\n"
        "try:\n    main(['evaluate', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'nnunetv2', 'scipy', 'SimpleITK'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--protocol" in result.stdout
