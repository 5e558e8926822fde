"""The example benchmark can be run again, and what is kept of it belongs to its configuration."""

import csv
import importlib.util
from pathlib import Path

import swin_umamba_nnunet.benchmark
from swin_umamba_nnunet.benchmark.matrix.config import build_config, read_file

FOLDER = Path(swin_umamba_nnunet.benchmark.__file__).parent / "example"


def config():
    return build_config(read_file(FOLDER / "example.toml"))


def test_its_trainers_are_there_and_of_one_length():
    spec = importlib.util.spec_from_file_location("short_trainers", FOLDER / "trainers" / "short_trainers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [getattr(module, row.name) for row in config().trainers]
    assert len(rows) == 6
    assert {row.num_epochs for row in rows if hasattr(row, "num_epochs")} == {module.EPOCHS}


def test_its_results_are_of_its_rows_and_seeds():
    with open(FOLDER / "cells.csv", newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert {cell["label"] for cell in cells} == {row.label for row in config().trainers}
    assert {int(cell["seed"]) for cell in cells} == set(config().seeds)
    assert "<html" in (FOLDER / "report.html").read_text(encoding="utf-8")[:500]
