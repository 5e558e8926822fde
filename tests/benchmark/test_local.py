"""The local launcher: one cell after another or one per GPU; what goes wrong in one does not stop the others."""

import threading

import pytest

from swin_umamba_nnunet.benchmark import local
from swin_umamba_nnunet.benchmark.local import LocalRun


class Runner:
    """In place of `run_cell`: notes which cells run at the same time on which GPUs."""

    def __init__(self, monkeypatch):
        self.now, self.most, self.gpus, self.outcomes = [], 0, {}, {}
        self.lock = threading.Lock()
        self.gate = None
        monkeypatch.setattr(local, "run_cell", self)

    def __call__(self, task, gpus, stop, rerun):
        with self.lock:
            clash = set(gpus) & {gpu for _, used in self.now for gpu in used}
            self.now.append((task.cell.name, gpus))
            self.most = max(self.most, len(self.now))
            self.gpus[task.cell.seed] = gpus
        assert not clash
        if self.gate is not None:
            self.gate(task, stop)
        with self.lock:
            self.now.remove((task.cell.name, gpus))
        outcome = self.outcomes.get(task.cell.seed, "done")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def runner(monkeypatch):
    return Runner(monkeypatch)


def test_one_after_another(make_task, runner):
    tasks = [make_task(seed=seed) for seed in range(3)]
    heard = []
    outcomes = LocalRun(tasks, listener=lambda event, task, outcome: heard.append((event, task.cell.seed))).run()
    assert set(outcomes.values()) == {"done"}
    assert runner.most == 1
    assert heard == [(event, seed) for seed in range(3) for event in ("start", "end")]
    assert runner.gpus == {0: (), 1: (), 2: ()}


def test_one_per_gpu(make_task, runner):
    barrier = threading.Barrier(2, timeout=20)
    runner.gate = lambda task, stop: barrier.wait()  # passes only if two run at once
    LocalRun([make_task(seed=seed) for seed in range(4)], gpus=(3, 5)).run()
    assert runner.most == 2
    assert {gpu for gpus in runner.gpus.values() for gpu in gpus} == {3, 5}


def test_a_cell_of_two_gpus_waits_for_both(make_task, runner):
    tasks = [make_task(seed=0), make_task(seed=1, num_gpus=2), make_task(seed=2)]
    LocalRun(tasks, gpus=(0, 1)).run()
    assert sorted(runner.gpus[1]) == [0, 1]


def test_failures_do_not_stop_the_others(make_task, runner):
    runner.outcomes = {0: "failed", 1: OSError("disk full")}
    tasks = [make_task(seed=seed) for seed in range(3)]
    outcomes = LocalRun(tasks).run()
    assert [outcomes[task.cell.name] for task in tasks] == ["failed", "error: OSError: disk full", "done"]


def test_ctrl_c_ends_what_runs(make_task, runner):
    started = threading.Event()

    def until_stopped(task, stop):
        started.set()
        assert stop.wait(20)

    runner.gate = until_stopped

    def tick():
        if started.is_set():
            raise KeyboardInterrupt

    run = LocalRun([make_task(seed=seed) for seed in range(2)], tick=tick)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert [name[-6:] for name in run.outcomes] == ["seed_0"]  # the second was never begun
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("seed_0")]
