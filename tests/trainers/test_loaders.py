"""Data loaders whose workers die: an error and an end, never a training that waits for ever."""

import subprocess
import sys

import pytest

from tests.messages import assert_names

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and sends POSIX signals")

# Batches larger than a pipe, which nobody takes for a while: the workers stand in the middle of writing one.
SCRIPT = """
import multiprocessing, os, sys, time
import numpy as np
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer
from swin_umamba_nnunet.trainers import _loaders, _replay

class Batches:
    left = None
    def set_thread_id(self, number):
        self.thread_id = number
    def __iter__(self):
        return self
    def __next__(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise ValueError("this batch cannot be made")
        return {"data": np.zeros(500_000)}

class Loaders(nnUNetTrainer.nnUNetTrainer):
    def __init__(self):
        pass
    def get_dataloaders(self):
        batches = Batches()
        if sys.argv[1] == "raises":
            batches.left = 20  # more than anybody makes in advance
        make = nnUNetTrainer.NonDetMultiThreadedAugmenter  # as nnU-Net does
        loaders = [make(batches, None, n, n + 1, wait_time=0.002) for n in (2, 1)]
        if sys.argv[1] == "killed at once":
            loaders[0]._start()
            time.sleep(1)
            loaders[0]._processes[0].kill()
        for loader in loaders:
            next(loader)
        return tuple(loaders)

class Trainer(_loaders.EndingLoaders, Loaders):
    pass

class Seeded(_replay.Replay, Loaders):
    seed = current_epoch = local_rank = num_iterations_per_epoch = num_val_iterations_per_epoch = 0

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    training, validation = (Seeded if sys.argv[2] == "ordered" else Trainer)().get_dataloaders()
    time.sleep(1)
    if sys.argv[1] == "killed":
        training._processes[0].kill()
    if sys.argv[1] == "ends":
        for loader in (training, validation):
            assert len(next(loader)["data"]) == 500_000
            loader._finish()
        assert not multiprocessing.active_children()
        print("ended")
        sys.exit(0)
    while True:
        next(training)
"""


def run(what, order, python):
    return subprocess.run([python, "-c", SCRIPT, what, order], capture_output=True, encoding="utf-8", timeout=600)


@pytest.mark.parametrize(
    ("when", "order", "cold"),
    [("killed", "unordered", True), ("killed", "ordered", False), ("killed at once", "unordered", False)],
)
def test_a_worker_killed_while_it_writes_a_batch_is_an_error_and_the_process_ends(when, order, cold, warm_python):
    result = run(when, order, sys.executable if cold else warm_python)
    assert result.returncode == 1, result.stderr
    assert_names(result.stderr, "background workers", "(killed", "these 2 ", "nnUNet_n_proc_DA=1")


@pytest.mark.parametrize("order", ["unordered", "ordered"])
def test_a_worker_that_raises_is_an_error_with_its_message_and_the_process_ends(order, warm_python):
    result = run("raises", order, warm_python)
    assert result.returncode == 1, result.stderr
    assert "this batch cannot be made" in result.stdout + result.stderr
    assert "background workers" in result.stderr
    assert "(killed" not in result.stderr


@pytest.mark.parametrize("order", ["unordered", "ordered"])
def test_workers_that_live_end_as_batchgenerators_ends_them(order, warm_python):
    result = run("ends", order, warm_python)
    assert (result.returncode, result.stdout.split()[-1:]) == (0, ["ended"]), result.stderr
