"""A list of measurements of which some fail; calls that take turns."""

from dataclasses import replace

import pytest

from tests.speed.made_up import document, network_figure
from tests.speed.measure import Clock, Job, MissingPackageError, interleaved, problem_of, run_jobs
from tests.speed.record import read_document


def job(name, *errors, seconds=0.0):
    def run():
        yield network_figure(name, milliseconds=1.0)
        for error in errors:
            raise error

    return Job(network_figure(name), run, seconds)


def run(jobs, tmp_path, budget=None):
    said, content, file = [], document([], "cpu"), tmp_path / "figures.json"
    finished = run_jobs(jobs, Clock("cpu", budget), content, file, said.append)
    return finished, read_document(file), said


def test_one_that_fails_costs_neither_the_others_nor_its_own_first_figure(tmp_path):
    finished, content, said = run([job("a"), job("b", RuntimeError("CUDA out of memory. Tried")), job("c")], tmp_path)
    assert finished
    found = [(f.what, f.problem) for f in content["figures"]]
    assert found == [("a", None), ("b", None), ("b", "out of memory"), ("c", None)]
    assert said[2].startswith("[2/3] b, fused")
    assert said[2].endswith("NOT MEASURED, out of memory")


def test_interrupted_keeps_what_there_is(tmp_path):
    finished, content, said = run([job("a"), job("b", KeyboardInterrupt()), job("c")], tmp_path)
    assert not finished
    assert "interrupted at [2/3]" in said[-1]
    assert [f.what for f in content["figures"]] == ["a", "b"]
    assert [name.split(",")[0] for name in content["not_run"]] == ["b", "c"]


def test_the_file_is_there_after_every_job(tmp_path):
    seen = []
    jobs = [job("a"), Job(network_figure("look"), lambda: seen.append(read_document(tmp_path / "figures.json")) or ())]
    run(jobs, tmp_path)
    assert [f.what for f in seen[0]["figures"]] == ["a"]


def test_what_has_no_time_left_is_named_and_shorter_ones_still_run(tmp_path):
    _, content, said = run([job("long", seconds=100.0), job("short", seconds=1.0)], tmp_path, budget=50.0)
    assert [f.what for f in content["figures"]] == ["short"]
    assert [name.split(",")[0] for name in content["not_run"]] == ["long"]
    assert "--budget" in said[-1]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (MissingPackageError("UMambaBot is shaped by"), "UMambaBot is shaped by"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
    ],
)
def test_problems_in_one_clause(error, words):
    assert problem_of(error) == words


def test_calls_take_turns():
    order: list = []
    figures = [replace(network_figure(name), backend=None) for name in "ab"]
    times = interleaved({figure: lambda f=figure: order.append(f.what) for figure in figures}, 0)
    assert order == ["a", "b"] * 4
    assert [f.what for f in times if f.milliseconds >= 0] == ["a", "b"]
