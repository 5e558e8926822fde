"""One function over many cases in several processes: bounded, interruptible, and an error if a process dies."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

from swin_umamba_nnunet.evaluation.errors import EvaluationError

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST_PROCESSES = 8  # by default; each holds one case


class CaseWorkers:
    """Processes that live through several passes over the cases; use it in a `with` statement.

    The processes are spawned (safe beside threads and on every platform), so a script of one's own has to start them
    below `if __name__ == "__main__":`.

    Args:
        processes: how many; 1 works in this process. None takes one per core, 8 at most.
        n_cases: no more processes than cases.
        progress: show progress bars.
    """

    def __init__(self, processes: int | None, n_cases: int, progress: bool) -> None:
        if processes is not None and processes < 1:
            raise EvaluationError(f"processes {processes}: expected 1 or more")
        wanted = min(os.cpu_count() or 1, MOST_PROCESSES) if processes is None else processes
        self._processes = max(1, min(wanted, n_cases))
        self._progress = progress
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "CaseWorkers":
        if self._processes > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._processes, context, _leave_interrupt_to_parent)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._pool is None:
            return
        if kind is not None:  # do not wait for cases nobody asks for any more
            for process in list((getattr(self._pool, "_processes", None) or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
        """Results in the order of the items.

        Raises:
            EvaluationError: a process died.
            Exception: whatever `function` raises, at once.
        """
        bar = tqdm(total=len(items), desc=title, unit="case", disable=not self._progress)
        with bar:
            if self._pool is None:
                results = []
                for item in items:
                    results.append(function(item))
                    bar.update()
                return results
            try:
                futures = {self._pool.submit(function, item): index for index, item in enumerate(items)}
                found: dict[int, Result] = {}
                for future in as_completed(futures):
                    found[futures[future]] = future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise EvaluationError(
                    f"a worker process died while {title}, most likely for lack of memory; try again with fewer "
                    f"(--processes {max(1, self._processes // 2)})"
                ) from error
            return [found[index] for index in range(len(items))]


def _leave_interrupt_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
