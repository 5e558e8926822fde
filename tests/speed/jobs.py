"""Jobs of which any may fail, and groups of them in processes of their own, where one may also crash or hang.

A group's process tells what it does as it goes; what ends it costs the job it was at, and another process goes on with
the next.  Imports no torch: the process that watches must not wait for the one that is watched.
"""

import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.process import end_with_parent
from tests.speed.record import Figure

LONG = 300  # characters of an error that are kept
START_SECONDS = 120.0  # in which a process has to have imported torch and found its jobs
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_SPAWN = multiprocessing.get_context("spawn")
Result = Figure | dict[str, Any]  # a dict is a check: name, passed, detail, and its group
Send = Callable[[tuple[Any, ...]], None]


class MissingPackageError(RuntimeError):
    """A measurement needs a package that is not installed."""


@dataclass(frozen=True)
class Job:
    """One or a few results that are had together.

    Attributes:
        stands_for: the figure or check that is written if it fails, with the problem filled in.
        run: yields the results.
        seconds: that must be left for it to begin.
        limit: seconds after which it counts as hanging, where it runs in a process of its own.
    """

    stands_for: Result
    run: Callable[[], Iterable[Result]]
    seconds: float = 10.0
    limit: float = 60.0

    @property
    def name(self) -> str:
        """For the reader."""
        return name_of(self.stands_for)

    def results(self) -> Iterator[Result]:
        """What it yields; if it fails, at last what says why."""
        try:
            yield from self.run()
        except Exception as error:  # one that cannot be had must not cost the others
            yield failed(self.stands_for, problem_of(error))


def name_of(result: Result) -> str:
    """Of a figure without its numbers, or of a check."""
    if isinstance(result, dict):
        return str(result["name"])
    return replace(result, problem=None).line().rpartition(": ")[0]


def failed(result: Result, problem: str) -> Result:
    """The same with a problem in place of numbers."""
    return (
        result | {"passed": False, "detail": problem} if isinstance(result, dict) else replace(result, problem=problem)
    )


def is_failure(result: Result) -> bool:
    """Whether it says that something is wrong."""
    return result["passed"] is False if isinstance(result, dict) else bool(result.problem)


def problem_of(error: BaseException) -> str:
    """One clause about what went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingPackageError):
        return text
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return "out of memory"
    return f"{type(error).__name__}: {text}"[:LONG]


def tidy() -> bool:
    """Give back memory of the GPU; whether it still answers: after an illegal access nothing works in a process."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    with suppress(RuntimeError):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return True
    return False


@dataclass(frozen=True)
class Group:
    """Jobs that share a process as long as none of them breaks it.

    Attributes:
        name: for the reader.
        work: "module:function", called there with (send, names of jobs to leave out, end, *settings); `work_through`
            says what it sends.
        settings: what can be pickled.
    """

    name: str
    work: str
    settings: tuple[Any, ...] = ()


def work_through(jobs: Sequence[Job], send: Send, done: Collection[str], end: float) -> None:
    """In a group's process: the jobs in order, those that have the time for it until `end` of time.monotonic()."""
    send(("jobs", {job.name: job.stands_for for job in jobs}))
    for job in jobs:
        if job.name in done or end - time.monotonic() < job.seconds:
            continue
        send(("begin", job.name, job.limit))
        for result in job.results():
            send(("result", result))
        finish(send)


def finish(send: Send) -> None:
    """A job is done; a process that has lost its GPU is done too, and the next one goes on."""
    fine = tidy()
    send(("end",))
    if not fine:
        os._exit(1)


def run_group(
    group: Group,
    done: Collection[str],
    end: float,
    log: Path,
    keep: Callable[[str, Result | None], None],
    stop: threading.Event,
) -> list[str]:
    """Work through a group, in as many processes as it takes, until `end` of time.monotonic() or `stop`.

    Args:
        group: whose.
        done: names of jobs that are left out.
        end: when the process is ended, whatever it does.
        log: what the processes print is added to it.
        keep: called with (name of the job, result) for each, and with (name, None) after a job without a failure.
        stop: set by whoever wants it to end now.

    Returns:
        Names of the jobs that were not reached.
    """
    done, known = set(done), {group.name: {"name": group.name, "group": group.name}}
    running, going_on = None, True
    while going_on and time.monotonic() < end and not stop.is_set():
        going_on = False
        for kind, *said in _events(group, done, end, log, stop):
            if kind == "jobs":
                (known,) = said
            elif kind == "begin":
                running, fine = said[0], True
            elif kind == "result":
                fine = fine and not is_failure(said[0])
                keep(running, said[0])
            elif kind == "end":
                if fine:
                    keep(running, None)
                done.add(running)
                running, going_on = None, True
            elif kind == "done":
                going_on = False
            elif kind == "broken" and (running or not going_on):  # not one that ended itself between two jobs
                name = running or group.name
                keep(name, failed(known.get(name, {"name": name, "group": group.name}), said[0]))
                done.add(name)
                running, going_on = None, running is not None
    return [name for name in known if name not in done]


def _events(
    group: Group, done: Collection[str], end: float, log: Path, stop: threading.Event
) -> Iterator[tuple[Any, ...]]:
    """What one process says, and if it does not end as it should ("broken", how); it is gone afterwards."""
    here, there = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_child, args=(there, group, done, end, log))
    process.start()
    there.close()
    doing, limit = "start", START_SECONDS
    due = time.monotonic() + limit
    try:
        while True:
            while not here.poll(max(0.0, min(0.5, due - time.monotonic(), end - time.monotonic()))):
                if stop.is_set() or time.monotonic() >= end:
                    return
                if time.monotonic() >= due:
                    yield "broken", f"did not {doing} within {limit:g} s; its process was ended"
                    return
            try:
                event = here.recv()
            except EOFError:
                process.join()
                yield "broken", f"its process {_ending(process.exitcode)}"
                return
            yield event
            if event[0] in ("done", "broken"):
                return
            if event[0] != "result":
                doing, limit = ("finish", event[2]) if event[0] == "begin" else ("go on", START_SECONDS)
            due = time.monotonic() + limit
    finally:
        process.kill()
        process.join()
        here.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _child(pipe: Any, group: Group, done: Collection[str], end: float, log: Path) -> None:
    with open(log, "ab", buffering=0) as file:  # what libraries print from C too
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    faulthandler.enable()
    if os.name == "posix":
        os.setpgrp()  # Ctrl-C in a terminal is for the parent to decide about
    end_with_parent()
    module, _, function = group.work.partition(":")
    try:
        getattr(importlib.import_module(module), function)(pipe.send, done, end, *group.settings)
        pipe.send(("done",))
    except BaseException as error:
        traceback.print_exc()
        pipe.send(("broken", problem_of(error)))
    pipe.close()
