"""`swin-umamba evaluate`: from the command line to the table."""

import errno
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.files import blobs, write_folders, write_image
from tests.jsons import dump
from tests.messages import assert_names

LABELS = {"labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}}


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


@pytest.fixture
def evaluate(folders, told):
    """A function (options="", code=0) -> what the verb said of the two folders."""

    def evaluate(options="", code=0):
        words = shlex.split(f"evaluate -np 1 --resamples 50 {options}")
        return told(code, *words, "-gt", folders[0], "-pred", folders[1])

    return evaluate


def test_table_and_files(evaluate, tmp_path):
    said = evaluate(f"--labels liver=1 both=2,3 -o {tmp_path}/out --tolerance 1 both=3")
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[:2] for row in rows if row[1:2] == ["NSD"]] == [["liver", "NSD"], ["both", "NSD"], ["(all)", "NSD"]]
    assert_names(said.out, 'Convention "plain"', "tolerance 1 px", "tolerance 3 px", "ddof = 1", "50 resamples")
    assert_names(said.out, tmp_path / "out", "summary.json")
    assert "checking files" in said.err  # progress
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.csv", "summary.json"}
    assert "-o FOLDER" not in said.out


def test_the_numbers_come_before_what_they_mean(evaluate):
    said = evaluate("--protocol endoscopy").out
    tables = ["endoscopy\n\nclass", "plain\n\nclass", "Worst cases by DSC"]
    meaning = ["What the numbers mean", 'Convention "endoscopy"', 'Convention "plain"', "-o FOLDER"]
    places = [said.index(part) for part in (*tables, *meaning)]
    assert places == sorted(places)
    assert_names(said, "0 to 1", "pixels", "slab one voxel thick", "no boundary score")


def test_the_worst_cases_are_named_with_a_command_that_draws_them(tmp_path, told, monkeypatch):
    truth, predictions = write_folders(tmp_path / "with space", n_cases=5)
    for case, moved in (("case_3", 6), ("case_1", 2)):
        write_image(predictions / f"{case}.png", np.roll(blobs(int(case[-1])), moved, axis=-1))
    said = told(0, *["evaluate", "--labels", "liver=1", "both=2,3", "-np", "1", "-gt"], truth, "-pred", predictions).out
    lines = said[said.index("Worst cases by Dice") :].splitlines()[1:4]
    assert [line.split()[0] for line in lines[:2]] == ["case_3", "case_1"]
    assert "class " in lines[0]
    command = said.splitlines()[-1].partition("   ")[2]
    shutil.copytree(truth, tmp_path / "IMAGES")  # any images will do
    monkeypatch.chdir(tmp_path)
    assert "Wrote 3 pictures" in told(0, *shlex.split(command)[1:]).out


def test_a_full_disk_loses_no_scores(evaluate, tmp_path, capsys, monkeypatch):
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
    said = evaluate(f"-o {tmp_path}/out", code=2)
    assert_names(shown_first[0], "(all)", "Worst cases")
    assert_names(said.err, "No space left on device", tmp_path / "out", "metrics.csv", "summary.json")
    assert "Written" not in said.out
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_an_output_that_is_a_full_device_is_refused_before_anything_is_scored(evaluate):
    said = evaluate("-o /dev/full", code=2).err
    assert "/dev/full" in said
    assert "scoring" not in said


def test_dataset_by_number(evaluate, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert_names(evaluate("--dataset 7", 2).err, "--dataset 7", "nnUNet_raw", "--dataset-json")
    raw = tmp_path / "raw"
    (raw / "Dataset007_Organs").mkdir(parents=True)
    dump(raw / "Dataset007_Organs/dataset.json", LABELS)
    monkeypatch.setenv("nnUNet_raw", str(raw))
    for name in ("7", "007", "Dataset007_Organs"):
        assert "kidney" in evaluate(f"--dataset {name}").out
    assert_names(evaluate("--dataset 8", 2).err, "--dataset 8", "Dataset008_*/dataset.json", raw, "--dataset-json")
    (raw / "Dataset007_Twice").mkdir()
    (raw / "Dataset007_Twice/dataset.json").write_text("{}")
    assert_names(evaluate("--dataset 7", 2).err, "--dataset 7", "Dataset007_Organs, Dataset007_Twice", "give one")


def test_bad_input_is_one_sentence(evaluate, folders):
    (folders[1] / "case_1.png").unlink()
    (folders[0] / "case_2.png").unlink()
    said = evaluate(code=2)
    assert said.err.startswith("swin-umamba evaluate: 1 case ")
    assert_names(said.err, *folders, "case_1", "case_2", "--allow-missing")
    assert said.out == ""
    facts = ("prediction (1): case_1", "ground truth (1): case_2", "1 cases")
    assert_names(evaluate("--allow-missing").out, *facts)


def test_undefined_and_infinite_are_counted(evaluate):
    said = evaluate("--labels 1 9").out
    row = next(line.split() for line in said.splitlines() if line.startswith("9 ") and "Dice" in line)
    assert row[2] == "undefined"
    assert_names(said, "In no file", "undefined score as 1")
