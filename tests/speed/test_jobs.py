"""Groups of jobs in processes of their own, rehearsed on a CPU: a crash, a hang, wrong values, a GPU that is lost."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from tests.messages import assert_names
from tests.speed.jobs import (
    Group,
    Job,
    MissingPackageError,
    failed,
    is_failure,
    name_of,
    problem_of,
    run_group,
    work_through,
)
from tests.speed.made_up import network_figure


def check(name, passed=None):
    return {"name": name, "passed": passed, "detail": ""}


def lose_the_gpu():
    """As torch is after an illegal access, which is told late: the job itself seems fine."""

    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize))


RUN = {
    "fine": lambda: None,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "hang": threading.Event().wait,
    "raises": lambda: int("off by\n  one"),
    "loss": lose_the_gpu,
    "wrong": lambda: None,
}
LIMITS = {"hang": (0.0, 0.2), "late": (1e9,)}


def planted(send, done, end, *names):
    """In the group's process: jobs of these kinds; what is behind a dot tells two of a kind apart."""

    def run(name, kind):
        RUN.get(kind, RUN["hang"])()  # so does what waits, but nobody loses patience
        yield check(name, kind != "wrong")

    kinds = {name: name.partition(".")[0] for name in names}
    jobs = [Job(check(n), lambda n=n, k=k: run(n, k), *LIMITS.get(k, (0.0,))) for n, k in kinds.items()]
    work_through(jobs, send, done, end)


def unable(send, done, end):
    raise ImportError("no such module here")


@pytest.fixture
def run(tmp_path):
    """Runs a group -> [(job, result, or None for a note that all is well)], what was not reached."""

    def run(*names, work="planted", seconds=300.0, stop_at=None):
        kept, stop = [], threading.Event()

        def keep(name, result):
            kept.append((name, result))
            if name == stop_at:
                stop.set()

        group = Group("group", f"{__name__}:{work}", names)
        return kept, run_group(group, {"fine.before"}, time.monotonic() + seconds, tmp_path / "log", keep, stop)

    return run


def test_what_breaks_costs_itself_and_the_next_goes_on(run, tmp_path):
    kept, left = run("fine.before", "crash", "fine", "hang", "late", "raises", "exit", "wrong", "loss", "fine.last")
    results = {name: result for name, result in kept if result}
    assert list(results) == ["crash", "fine", "hang", "raises", "exit", "wrong", "loss", "fine.last"]
    assert [name for name, result in kept if result is None] == ["fine", "loss", "fine.last"]
    assert [name for name, result in results.items() if is_failure(result)] == [
        "crash",
        "hang",
        "raises",
        "exit",
        "wrong",
    ]
    for name, fact in {"crash": "SIGSEGV", "hang": "0.2 s", "raises": r"'off by\n one'", "exit": "exit code 3"}.items():
        assert_names(results[name]["detail"], fact)
    assert left == ["late"]
    assert_names((tmp_path / "log").read_text(), "Segmentation fault")


def test_stopped_it_blames_nobody_and_names_what_is_left(run):
    kept, left = run("fine", "wait", "fine.last", stop_at="fine")
    assert [name for name, result in kept if result] == ["fine"]
    assert left == ["wait", "fine.last"]
    assert run("fine", seconds=0.0) == ([], ["group"])


def test_a_group_that_cannot_begin_says_why(run):
    ((name, result),), left = run(work="unable")
    assert (name, is_failure(result), left) == ("group", True, [])
    assert_names(result["detail"], "ImportError", "no such module here")


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


def test_what_stands_for_a_figure_has_its_name():
    figure = network_figure(milliseconds=3.0)
    assert name_of(figure) == name_of(failed(network_figure(), "out of memory: 3 GB")) == Job(figure, list).name
