"""The example benchmark can be run again, and what is kept of it belongs to its configuration."""

import csv
import html
import importlib.util
from pathlib import Path

import swin_umamba_nnunet.benchmark
from swin_umamba_nnunet.benchmark.config import build_config, read_file
from swin_umamba_nnunet.benchmark.fairness import identify
from swin_umamba_nnunet.benchmark.report import pitfalls
from swin_umamba_nnunet.benchmark.report.collect import Benchmark, Row

FOLDER = Path(swin_umamba_nnunet.benchmark.__file__).parent / "example"


def config():
    return build_config(read_file(FOLDER / "example.toml"))


def short_trainers():
    spec = importlib.util.spec_from_file_location("short_trainers", FOLDER / "trainers" / "short_trainers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_trainers_are_there_and_of_one_length():
    module = short_trainers()
    rows = [getattr(module, row.name) for row in config().trainers]
    assert len(rows) == 6
    assert {row.num_epochs for row in rows if hasattr(row, "num_epochs")} == {module.EPOCHS}


def test_its_results_are_of_its_rows_and_seeds():
    with open(FOLDER / "cells.csv", newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert {cell["label"] for cell in cells} == {row.label for row in config().trainers}
    assert {int(cell["seed"]) for cell in cells} == set(config().seeds)
    assert "<html" in (FOLDER / "report.html").read_text(encoding="utf-8")[:500]


def test_its_checklist_knows_nnunet_and_the_controls_behind_their_subclasses():
    """What the page says about them is what the checklist says today; all plans are those of nnU-Net's own planner."""
    module = short_trainers()
    rows = []
    for row in config().trainers:
        recorded = {
            "name": row.name, "stock_network": row.name == "nnUNetTrainerShort",
            "ancestors": [f"{each.__module__}.{each.__name__}" for each in getattr(module, row.name).__mro__],
            "network_classes": ["dynamic_network_architectures.architectures.unet.PlainConvUNet"],
        }  # fmt: skip
        rows.append(Row(row.key, row.label, row.name, row.plans, row.configuration, identity=identify(recorded)))
    benchmark = Benchmark(FOLDER, {}, tuple(rows), ())
    page = html.unescape((FOLDER / "report.html").read_text(encoding="utf-8"))
    for item, verdict, said in (
        (pitfalls._baselines(benchmark), "caution", "nnU-Net is a row; its residual encoder"),
        (pitfalls._controls(benchmark), "in order", "Present: U-Mamba Enc, no Mamba for U-Mamba Enc; Swin"),
    ):
        assert item.verdict == verdict
        assert item.answer.startswith(said)
        line = page[page.index(item.question) :].partition("</tr>")[0]
        assert item.answer in line
        assert item.verdict in line
