"""Data-loader workers that die do not keep the training from ending.

batchgenerators asks its workers to stop and empties their queue.  A worker that was killed (when memory ran out, or by
Python itself when the training ends with an error) may leave half a batch in that queue or a lock taken, and whoever
waits for it waits for ever, holding the GPU.  Here nobody waits for workers that are not all alive any more.
"""

from collections.abc import Callable
from multiprocessing.process import BaseProcess
from operator import attrgetter
from queue import Empty
from typing import Any

from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer

SECONDS_TO_DIE = 5.0
SIGKILL = 9  # not in `signal` on Windows


class WorkerDiedError(RuntimeError):
    """A data-loader worker is gone."""


class _Ending:
    """What a loader of batchgenerators does once a worker is dead; the names are those of its unordered one."""

    _processes: list[BaseProcess]
    initialized: Any
    results_loop_queue: Any
    results_loop_thread: Any
    wait_time: float
    _start: Callable[[], None]

    def __next__(self) -> Any:
        if not self.initialized:
            self._start()
        # A worker that raised tells the thread that collects the batches, which then ends.
        while self.results_loop_thread.is_alive() and all(worker.is_alive() for worker in self._processes):
            try:
                item = self.results_loop_queue.get(timeout=self.wait_time)
            except Empty:
                continue
            self.results_loop_queue.task_done()
            return item
        workers = len(self._processes)
        killed = [-worker.exitcode for worker in self._processes if worker.exitcode is not None and worker.exitcode < 0]
        self._finish()
        what = "One or more background workers are no longer alive"
        if SIGKILL in killed:
            raise WorkerDiedError(
                f"{what} (killed, as happens when memory runs out); fewer than these {workers} need less: set "
                f"nnUNet_n_proc_DA={max(1, workers // 2)} and continue with --c"
            )
        ended = f" (ended by signal {killed[0]})" if killed else ""
        raise WorkerDiedError(f"{what}{ended}; please check the error message of the worker above")

    def _finish(self, *args: Any, **kwargs: Any) -> None:
        """The same where every worker is alive, otherwise without waiting for any."""
        workers = self._processes
        if all(worker.is_alive() for worker in workers):
            super()._finish(*args, **kwargs)  # type: ignore[misc]
            return
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(SECONDS_TO_DIE)
        # to batchgenerators this is a loader that never started, so nothing is waited for when it is collected either
        self._processes, self.initialized = [], False


class EndingLoader(_Ending, NonDetMultiThreadedAugmenter):
    """batchgenerators' loader of batches in whatever order they come, which is nnU-Net's, with that ending."""


class OrderedLoader(_Ending, MultiThreadedAugmenter):
    """batchgenerators' loader with a queue per worker: batch j comes from worker j mod n; with that ending."""

    initialized = property(attrgetter("was_initialized"), lambda self, value: setattr(self, "was_initialized", value))
    results_loop_queue = property(attrgetter("pin_memory_queue"))
    results_loop_thread = property(attrgetter("pin_memory_thread"))


class EndingLoaders(nnUNetTrainer.nnUNetTrainer):
    """The part of a trainer that makes its data loaders."""

    def augmenters(self) -> dict[str, Callable[..., Any]]:
        """What makes them, by the name of what nnU-Net would call instead."""
        return {"NonDetMultiThreadedAugmenter": EndingLoader}

    def get_dataloaders(self) -> tuple[Any, Any]:
        """As nnU-Net's, of `augmenters`."""
        # nnU-Net makes them in the middle of a long function, which also waits for the first batches.
        ours, module = self.augmenters(), vars(nnUNetTrainer)
        former = {name: module[name] for name in ours}
        module.update(ours)
        try:
            return super().get_dataloaders()
        finally:
            module.update(former)
