"""Jobs of which any may fail, and groups of them in processes of their own, where one may also crash or hang.

A group's process tells what it does as it goes; what ends it costs the job it was at, and another process goes on with
the next.  Imports no torch: the process that watches must not wait for the one that is watched.
"""

import faulthandler
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from swin_umamba_nnunet.benchmark.process import end_with_parent
from tests.speed.record import Check, Figure

LONG = 300  # characters of an error that are kept
START_SECONDS = 120.0  # in which a process has to have imported torch and found its jobs
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Job:
    """One or a few results that are had together.

    Attributes:
        stands_for: the figure or check that is written if it fails, with the problem filled in.
        run: yields the results.
        seconds: that must be left for it to begin.
        limit: seconds after which it counts as hanging.
    """

    stands_for: Figure | Check
    run: Callable[[], Iterable[Figure | Check]]
    seconds: float = 10.0
    limit: float = 60.0


def problem_of(error):
    """One clause about what went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return "out of memory"
    return f"{type(error).__name__}: {text}"[:LONG]


def tidy():
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
    settings: tuple = ()


def work_through(jobs, send, done, end):
    """In a group's process: the jobs in order, those that have the time for it until `end` of time.monotonic()."""
    send(("jobs", {job.stands_for.name: job.stands_for for job in jobs}))
    for job in jobs:
        if job.stands_for.name in done or end - time.monotonic() < job.seconds:
            continue
        send(("begin", job.stands_for.name, job.limit))
        try:
            for result in job.run():
                send(("result", result))
        except Exception as error:  # one that cannot be had must not cost the others
            send(("result", replace(job.stands_for, problem=problem_of(error))))
        finish(send)


def finish(send):
    """A job is done; a process that has lost its GPU is done too, and the next one goes on."""
    fine = tidy()
    send(("end",))
    if not fine:
        os._exit(1)


def run_group(group, done, end, log, keep, stop):
    """Work through a group, in as many processes as it takes, until `end` of time.monotonic() or `stop`.

    Args:
        group: whose.
        done: names of jobs that are left out.
        end: when the process is ended, whatever it does.
        log: file; what the processes print is added to it.
        keep: called with (name of the job, result) for each, and with (name, None) after a job without a failure.
        stop: a threading.Event, set by whoever wants it to end now.

    Returns:
        Names of the jobs that were not reached.
    """
    done, known = set(done), {group.name: Check(group.name, group.name)}
    running, going_on = None, True
    while going_on and time.monotonic() < end and not stop.is_set():
        going_on = False
        for kind, *said in _events(group, done, end, log, stop):
            if kind == "jobs":
                (known,) = said
            elif kind == "begin":
                running, fine = said[0], True
            elif kind == "result":
                fine = fine and not said[0].problem
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
                keep(name, replace(known.get(name, Check(name, group.name)), problem=said[0]))
                done.add(name)
                running, going_on = None, running is not None
    return [name for name in known if name not in done]


def _events(group, done, end, log, stop):
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


def _ending(code):
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _child(pipe, group, done, end, log):
    with open(log, "ab", buffering=0) as file:  # what libraries print from C too
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    faulthandler.enable()
    if os.name == "posix":
        os.setpgrp()  # Ctrl-C in a terminal is for the parent to decide about
    end_with_parent()
    try:
        pkgutil.resolve_name(group.work)(pipe.send, done, end, *group.settings)
        pipe.send(("done",))
    except BaseException as error:
        traceback.print_exc()
        pipe.send(("broken", problem_of(error)))
    pipe.close()
