"""`swin-umamba evaluate`: from the command line to the table."""

import errno
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from swin_umamba_nnunet.cli import main
from tests.evaluation.files import blobs, write_folders, write_image
from tests.messages import assert_names

LABELS = {"labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}}


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


def evaluate(folders, options=""):
    truth, predictions = map(str, folders)
    fast = "evaluate -np 1 --resamples 50"
    return main([*shlex.split(f"{fast} {options}"), "-gt", truth, "-pred", predictions])


def test_table_and_files(folders, tmp_path, capsys):
    assert evaluate(folders, f"--labels liver=1 both=2,3 -o {tmp_path}/out --tolerance 1 both=3") == 0
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


def test_the_numbers_come_before_what_they_mean(folders, capsys):
    assert evaluate(folders, "--protocol endoscopy") == 0
    said = capsys.readouterr().out
    tables = ["endoscopy\n\nclass", "plain\n\nclass", "Worst cases by DSC"]
    meaning = ["What the numbers mean", 'Convention "endoscopy"', 'Convention "plain"']
    places = [said.index(part) for part in (*tables, *meaning)]
    assert places == sorted(places)
    assert_names(said, "0 to 1", "pixels", "slab one voxel thick", "no boundary score")


def test_the_worst_cases_are_named_with_a_command_that_draws_them(tmp_path, capsys, monkeypatch):
    truth, predictions = write_folders(tmp_path / "with space", n_cases=5)
    for case, moved in (("case_3", 6), ("case_1", 2)):
        write_image(predictions / f"{case}.png", np.roll(blobs(int(case[-1])), moved, axis=-1))
    assert evaluate((truth, predictions), "--labels liver=1 both=2,3") == 0
    said = capsys.readouterr().out
    lines = said[said.index("Worst cases by Dice") :].splitlines()[1:4]
    assert [line.split()[0] for line in lines[:2]] == ["case_3", "case_1"]
    assert "class " in lines[0]
    command = said.splitlines()[-1].partition("   ")[2]
    shutil.copytree(truth, tmp_path / "IMAGES")  # any images will do
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert "Wrote 3 pictures" in capsys.readouterr().out


def test_what_is_written_is_said_and_what_is_not(folders, tmp_path, capsys):
    assert evaluate(folders) == 0
    assert "-o FOLDER" in capsys.readouterr().out
    assert evaluate(folders, f"-o {tmp_path}/out") == 0
    said = capsys.readouterr().out
    assert "-o FOLDER" not in said
    assert_names(said, tmp_path / "out", "summary.json")


def test_a_full_disk_loses_no_scores(folders, tmp_path, capsys, monkeypatch):
    """The table is out before anything is written; of the two files there are both or none."""
    (tmp_path / "out").mkdir()
    shown_first = []

    def full(self, text, *args, **kwargs):
        if "summary" not in self.name:
            return write_bytes(self, text.encode())
        shown_first.append(capsys.readouterr().out)
        raise OSError(errno.ENOSPC, "No space left on device")

    write_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_text", full)
    assert evaluate(folders, f"-o {tmp_path}/out") != 0
    said = capsys.readouterr()
    assert "(all)" in shown_first[0]
    assert "Worst cases" in shown_first[0]
    assert_names(said.err, "No space left on device", tmp_path / "out", "metrics.csv", "summary.json")
    assert "Written" not in said.out
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_an_output_that_is_a_full_device_is_refused_before_anything_is_scored(folders, capsys):
    assert evaluate(folders, "-o /dev/full") != 0
    said = capsys.readouterr()
    assert "/dev/full" in said.err
    assert "scoring" not in said.err


def test_dataset_by_number(folders, tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw"
    (raw / "Dataset007_Organs").mkdir(parents=True)
    (raw / "Dataset007_Organs/dataset.json").write_text(json.dumps(LABELS))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    for name in ("7", "007", "Dataset007_Organs"):
        assert evaluate(folders, f"--dataset {name}") == 0
        assert "kidney" in capsys.readouterr().out
    assert evaluate(folders, "--dataset 8") == 2
    assert_names(capsys.readouterr().err, "--dataset 8", "Dataset008_*/dataset.json", raw, "--dataset-json")
    (raw / "Dataset007_Twice").mkdir()
    (raw / "Dataset007_Twice/dataset.json").write_text("{}")
    assert evaluate(folders, "--dataset 7") == 2
    assert_names(capsys.readouterr().err, "--dataset 7", "Dataset007_Organs, Dataset007_Twice", "give one")


def test_dataset_without_nnunet_raw(folders, monkeypatch, capsys):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    assert evaluate(folders, "--dataset 7") == 2
    assert_names(capsys.readouterr().err, "--dataset 7", "nnUNet_raw", "--dataset-json")


def test_bad_input_is_one_sentence(folders, capsys):
    (folders[1] / "case_1.png").unlink()
    (folders[0] / "case_2.png").unlink()
    assert evaluate(folders) == 2
    said = capsys.readouterr()
    assert said.err.startswith("swin-umamba evaluate: 1 case ")
    assert_names(said.err, *folders, "case_1", "case_2", "--allow-missing")
    assert "Traceback" not in said.err
    assert said.out == ""
    assert evaluate(folders, "--allow-missing") == 0
    assert_names(capsys.readouterr().out, "prediction (1): case_1", "ground truth (1): case_2", "1 cases")


def test_undefined_and_infinite_are_counted(folders, capsys):
    assert evaluate(folders, "--labels 1 9") == 0
    said = capsys.readouterr().out
    row = next(line.split() for line in said.splitlines() if line.startswith("9 ") and "Dice" in line)
    assert row[2] == "undefined"
    assert "In no file" in said
    assert "undefined score as 1" in said
