"""Running the cells on this machine: one after another, or one per GPU."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from swin_umamba_nnunet.benchmark.commands import Task
from swin_umamba_nnunet.benchmark.runner import run_cell

# Called with ("start", task, "") and ("end", task, outcome)
Listener = Callable[[str, Task, str], None]


class LocalRun:
    """Cells on this machine.

    An outcome is one of those of `runner.run_cell`, or "error: ..." for what should not happen (a full disk).
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        gpus: Sequence[int] = (),
        rerun: bool = False,
        listener: Listener | None = None,
        tick: Callable[[], None] | None = None,
    ) -> None:
        """Take over what is to be done.

        Args:
            tasks: in order.
            gpus: run as many cells at a time as these GPUs take; () for one cell at a time.
            rerun: start cells anew whose inputs have changed.
            listener: hears of every start and end, in the thread of the cell.
            tick: called several times a second in the thread of `run`.
        """
        self.tasks, self.rerun = list(tasks), rerun
        self.outcomes: dict[str, str] = {}
        self._listener = listener or (lambda event, task, outcome: None)
        self._tick = tick or (lambda: None)
        self._stop = threading.Event()
        self._free = list(gpus)
        self._by_gpu = bool(gpus)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    def run(self) -> dict[str, str]:
        """Run all; returns name of cell -> outcome.  Ctrl-C ends the children first and is then raised."""
        try:
            for task in self.tasks:
                self._start(task)
            self._wait_for(lambda: not any(thread.is_alive() for thread in self._threads))
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        return self.outcomes

    def _start(self, task: Task) -> None:
        wanted = task.cell.row.num_gpus
        if self._by_gpu:
            self._wait_for(lambda: len(self._free) >= wanted)
            with self._changed:
                gpus = tuple(self._free.pop(0) for _ in range(wanted))
        else:
            self._wait_for(lambda: not any(thread.is_alive() for thread in self._threads))
            gpus = ()
        thread = threading.Thread(target=self._work, args=(task, gpus), name=task.cell.name)
        self._threads.append(thread)
        thread.start()

    def _work(self, task: Task, gpus: tuple[int, ...]) -> None:
        self._listener("start", task, "")
        outcome = "error: ended without an outcome"
        try:
            outcome = run_cell(task, gpus, self._stop, self.rerun)
        except Exception as error:  # noqa: BLE001 (one cell must not stop the others)
            outcome = f"error: {type(error).__name__}: {error}"
        finally:
            with self._changed:
                self.outcomes[task.cell.name] = outcome
                self._free += gpus
                self._changed.notify_all()
            self._listener("end", task, outcome)

    def _wait_for(self, condition: Callable[[], Any]) -> None:
        # in short waits, because a wait without end in the main thread would not hear Ctrl-C on every platform
        while not condition():
            self._tick()
            with self._changed:
                self._changed.wait(0.2)
