"""The local launcher: one run after another or one per GPU.  What goes wrong in one: tests/cli/test_benchmark.py."""

import threading
from dataclasses import replace

import pytest

from swin_umamba_nnunet.benchmark import run_here
from swin_umamba_nnunet.benchmark import runner as under_test


class Runner:
    """In place of `run_job`: notes how many run at the same time, on which GPUs; each waits in the `gate`."""

    def __init__(self):
        self.now, self.most, self.gpus = [], 0, {}
        self.lock, self.gate = threading.Lock(), lambda job, stop: None

    def __call__(self, job, gpus, stop, rerun, listener):
        listener(job, "training", ["nnUNetv2_train"])
        with self.lock:
            self.now += gpus or [None]
            assert len({*self.now}) == len(self.now), "two on one GPU"
            self.most, self.gpus[job.seed] = max(self.most, len(self.now)), gpus
        self.gate(job, stop)
        with self.lock:
            self.now = [gpu for gpu in self.now if gpu not in (gpus or [None])]
        return "done"


@pytest.fixture
def runner(monkeypatch):
    monkeypatch.setattr(under_test, "run_job", Runner())
    return under_test.run_job


@pytest.fixture
def jobs(plan):
    """Four runs of one row."""
    return plan(trainers=["One"], seeds=[0, 1, 2, 3]).jobs


def test_one_per_gpu(jobs, runner):
    barrier = threading.Barrier(2, timeout=20)
    runner.gate = lambda job, stop: barrier.wait()  # passes only if two run at once
    outcomes = run_here(jobs, gpus=(3, 5))
    assert set(outcomes.values()) == {"done"}
    assert runner.most == 2
    assert {gpu for gpus in runner.gpus.values() for gpu in gpus} == {3, 5}


def test_a_run_of_two_gpus_waits_for_both(jobs, runner):
    first, second, *others = jobs
    outcomes = run_here([first, replace(second, row=replace(second.row, num_gpus=2)), *others], gpus=(0, 1))
    assert set(outcomes.values()) == {"done"}
    assert sorted(runner.gpus[1]) == [0, 1]


def test_ctrl_c_ends_what_runs(jobs, runner):
    started, heard = threading.Event(), []

    def until_stopped(job, stop):
        started.set()
        assert stop.wait(20)

    def tick():
        if started.is_set():
            raise KeyboardInterrupt

    runner.gate = until_stopped
    with pytest.raises(KeyboardInterrupt):
        run_here(jobs, tick=tick, listener=lambda job, said, command: heard.append((job.seed, said)))
    assert heard == [(0, "training"), (0, "done")]  # the second was never begun
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("seed_0")]
