"""Status: read from the folder alone."""

from pathlib import Path

import pytest

from swin_umamba_nnunet.benchmark import BenchmarkError
from swin_umamba_nnunet.benchmark.report.collect import read_benchmark
from swin_umamba_nnunet.benchmark.status import read_status, render
from tests.jsons import dump, edit
from tests.messages import assert_names


@pytest.fixture
def prepared(plan):
    prepared = plan(seeds=[0, 1, 2])
    prepared.write()
    return prepared


def measure(run, epoch):
    curves = {"epoch_start_timestamps": [0.0] * epoch, "epoch_end_timestamps": [60.0] * epoch}
    run.folder.mkdir(parents=True, exist_ok=True)
    dump(run.measured, {"epoch": epoch, "epochs": 10, "curves": curves, "updated": 0.0})


def test_every_state(prepared):
    runs = prepared.jobs
    runs[0].write({"state": "done"})
    measure(runs[0], 10)
    runs[1].write({"state": "failed", "error": {"step": "predict", "reason": "predict failed with exit code 1"}})
    runs[2].write({"state": "running", "step": "train", "host": "node7", "slurm_job": "12_3"})
    measure(runs[2], 4)
    runs[3].write({"state": "running", "host": "node8"})  # its runner is gone
    runs[4].write({"state": "waiting", "interrupted": True})
    runs[5].write({"state": "running"})
    Path(runs[5].lock().lock_file).mkdir()  # nobody can take it, as in the folder of another user
    with runs[2].lock():
        statuses = read_status(prepared.config.output)
        table = render(statuses)
    states = "done failed running interrupted interrupted running"
    assert [status.state for status in statuses] == states.split()
    assert statuses[2].left == 6 * 60.0
    assert statuses[4].left == 10 * 60.0  # at the speed of the same row
    assert statuses[5].left is None
    assert "on node7, job 12_3, no epoch for" in statuses[2].note
    assert_names(
        table,
        "running (train)",
        "4/10",
        "60.0",
        "6 min 00 s",
        "predict failed with exit code 1",
        "6 runs: ",
        "2 interrupted",
        "of training left with 2 at a time, and 3 runs of which no epoch has been timed",
    )


def test_all_done(prepared):
    """Looking has not taken a lock for good."""
    for job in prepared.jobs:
        job.write({"state": "running"})
        read_status(prepared.config.output)
        with job.lock().acquire(timeout=0):
            job.write({"state": "done"})
    assert "6 runs: 6 done; nothing left to train" in render(read_status(prepared.config.output))


FIRST_VERSION = """{
    "config": {
        "output": "/bench", "datasets": [901], "folds": [0], "seeds": [3], "slurm": {},
        "trainers": [{"name": "A", "plans": "P", "configuration": "2d", "label": "a", "num_gpus": 1, "slurm": {}}]
    },
    "cells": ["Dataset901_X/A__P__2d/fold_0/seed_3"],
    "rows": [
        {"name": "A", "plans": "P", "configuration": "2d", "label": "a", "num_gpus": 1, "slurm": {}, "weights": null}
    ]
}"""


def test_a_folder_as_the_first_version_wrote_it(tmp_path):
    """Its names and keys as they are on disk, not as this version calls them."""
    (tmp_path / "benchmark.json").write_text(FIRST_VERSION)
    folder = tmp_path / "cells/Dataset901_X/A__P__2d/fold_0/seed_3"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text('{"state": "failed", "attempts": 1, "error": {"step": "train", "reason": "why"}}')
    (folder / "training.json").write_text('{"epoch": 2, "epochs": 5}')
    (status,) = read_status(tmp_path)
    assert (status.state, status.note, status.epoch, status.epochs) == ("failed", "why", 2, 5)
    (run,) = read_benchmark(tmp_path).runs
    assert (run.folder, run.row.recorded["weights"], run.problem) == (folder, None, "failed: why")


def test_a_damaged_file_is_named(prepared):
    prepared.jobs[0].folder.mkdir(parents=True)
    (prepared.jobs[0].folder / "cell.json").write_text("{")
    with pytest.raises(BenchmarkError, match=r"cell\.json is damaged"):
        read_status(prepared.config.output)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content["config"]["trainers"][1].update(colour="red"), "row 2 of `trainers` has an unknown"),
        (lambda content: content["config"]["trainers"][0].update(plans="../a"), "`plans` is '../a'"),
        (lambda content: content.pop("config"), "names no cells and their configuration"),
        (lambda content: content["cells"].clear(), "names no cells and their configuration"),
        (lambda content: content["cells"].append(3), "names the cell 3"),
        (lambda content: content["cells"].append(content["cells"][0] + "x"), "seed_0x'"),
        (lambda content: content["cells"].append("../One__nnUNetPlans__2d/fold_0/seed_0"), "'../One"),
    ],
)
def test_a_file_of_another_version_is_one_sentence_for_status_and_report(prepared, change, named):
    file = prepared.config.output / "benchmark.json"
    edit(file, change)
    for read in (read_status, read_benchmark):
        with pytest.raises(BenchmarkError) as caught:
            read(prepared.config.output)
        said = str(caught.value)
        assert_names(said, named, "swin-umamba benchmark run")  # which writes it anew
        assert said.startswith(str(file))
        assert "\n" not in said
