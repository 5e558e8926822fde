"""The local launcher: one cell after another or one per GPU.  What goes wrong in one: tests/cli/test_benchmark.py."""

import threading

import pytest

from swin_umamba_nnunet.benchmark import run_here
from swin_umamba_nnunet.benchmark import runner as under_test


class Runner:
    """In place of `run_job`: notes which cells run at the same time on which GPUs."""

    def __init__(self, monkeypatch):
        self.now, self.most, self.gpus = [], 0, {}
        self.lock = threading.Lock()
        self.gate = None
        monkeypatch.setattr(under_test, "run_job", self)

    def __call__(self, job, gpus, stop, rerun, listener):
        listener(job, "training", ["nnUNetv2_train"])
        with self.lock:
            clash = set(gpus) & {gpu for _, used in self.now for gpu in used}
            self.now.append((job.name, gpus))
            self.most = max(self.most, len(self.now))
            self.gpus[job.seed] = gpus
        assert not clash
        if self.gate is not None:
            self.gate(job, stop)
        with self.lock:
            self.now.remove((job.name, gpus))
        return "done"


@pytest.fixture
def runner(monkeypatch):
    return Runner(monkeypatch)


def test_one_after_another(make_job, runner):
    jobs = [make_job(seed=seed) for seed in range(3)]
    heard = []
    outcomes = run_here(jobs, listener=lambda job, said, command: heard.append((said, job.seed)))
    assert set(outcomes.values()) == {"done"}
    assert runner.most == 1
    assert heard == [(event, seed) for seed in range(3) for event in ("training", "done")]
    assert runner.gpus == {0: (), 1: (), 2: ()}


def test_one_per_gpu(make_job, runner):
    barrier = threading.Barrier(2, timeout=20)
    runner.gate = lambda job, stop: barrier.wait()  # passes only if two run at once
    run_here([make_job(seed=seed) for seed in range(4)], gpus=(3, 5))
    assert runner.most == 2
    assert {gpu for gpus in runner.gpus.values() for gpu in gpus} == {3, 5}


def test_a_cell_of_two_gpus_waits_for_both(make_job, runner):
    jobs = [make_job(seed=0), make_job(seed=1, num_gpus=2), make_job(seed=2)]
    run_here(jobs, gpus=(0, 1))
    assert sorted(runner.gpus[1]) == [0, 1]


def test_ctrl_c_ends_what_runs(make_job, runner):
    started = threading.Event()

    def until_stopped(job, stop):
        started.set()
        assert stop.wait(20)

    runner.gate = until_stopped

    def tick():
        if started.is_set():
            raise KeyboardInterrupt

    heard = []
    jobs = [make_job(seed=seed) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        run_here(jobs, tick=tick, listener=lambda job, said, command: heard.append((job.seed, said)))
    assert heard == [(0, "training"), (0, "done")]  # the second was never begun
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("seed_0")]
