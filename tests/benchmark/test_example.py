"""The example benchmark can be run again, and what is kept of it belongs to its configuration."""

import math
import runpy
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

import swin_umamba_nnunet.benchmark
from swin_umamba_nnunet.benchmark.config import build_config, read_file
from swin_umamba_nnunet.benchmark.report import statistics
from swin_umamba_nnunet.benchmark.report.collect import lower_is_better

FOLDER = Path(swin_umamba_nnunet.benchmark.__file__).parent / "example"


def config():
    return build_config(read_file(FOLDER / "example.toml"))


def test_its_trainers_are_there_and_of_one_length():
    module = runpy.run_path(str(FOLDER / "trainers" / "short_trainers.py"))
    rows = [module[row.name] for row in config().trainers]
    assert len(rows) == 7
    assert {row.num_epochs for row in rows if hasattr(row, "num_epochs")} == {module["EPOCHS"]}


def test_its_results_are_of_its_rows_and_seeds():
    runs = pd.read_csv(FOLDER / "runs.csv")
    assert {*runs["label"]} == {row.label for row in config().rows}
    assert {*runs["seed"].dropna()} == {*config().seeds}  # a human has none
    assert "<html" in (FOLDER / "report.html").read_text(encoding="utf-8")[:500]


def test_its_statistics_are_those_of_its_tables():
    """What the tables hold, made again from what else they hold: corrections, least p, ranks."""
    lines = pd.read_csv(FOLDER / "comparisons.csv", dtype=str)  # which keeps every digit
    kinds = {item.name: item.type for item in fields(statistics.Comparison) if item.name in lines}
    for _, family in lines.astype(kinds).groupby(["dataset", "metric"]):
        found = [statistics.Comparison(**line) for line in family[[*kinds]].to_dict("records")]
        again = statistics.correct([replace(item, p_holm=math.nan, p_least=math.nan) for item in found])
        assert [(item.p_holm, item.p_least) for item in again] == [(item.p_holm, item.p_least) for item in found]
    results = pd.read_csv(FOLDER / "results.csv")
    for (_, metric), table in results[results["comparable"]].groupby(["dataset", "metric"]):
        table = table[table["rank"].notna()]
        assert (table["mean"].rank(ascending=lower_is_better(metric)) == table["rank"]).all()
    runs = pd.read_csv(FOLDER / "runs.csv")
    done = runs[runs["state"] == "done"].groupby(["dataset", "label"]).size()
    for line in results.itertuples():
        assert done.get((line.dataset, line.label), 0) == line.done
