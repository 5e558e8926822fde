"""Child processes of a cell: logged, stoppable at any moment, never left behind."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from swin_umamba_nnunet.benchmark.files import now

_POSIX = os.name == "posix"
_COLOURS = re.compile("\x1b\\[[0-9;?]*[ -/]*[@-~]")  # and movements of the cursor, which say nothing in a log
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 10.0
# By these somebody ends a child; SIGKILL is not among them, which is what running out of memory looks like.
_OUTSIDE = {
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has two of them
}


class Interrupted(Exception):
    """The child was ended from outside before it was done; nothing is wrong with it."""


def run_child(
    command: Sequence[str], environment: Mapping[str, str], log: Path, stop: threading.Event | None = None
) -> int:
    """Run a command with everything it prints appended to `log`, and return its exit code (negative for a signal).

    The child has a process group of its own, so that Ctrl-C reaches this process alone, which then ends child and
    grandchildren in order.

    Args:
        command: argument list; no shell reads it.
        environment: variables over those of this process.
        log: file.
        stop: ends the child when it is set.

    Raises:
        Interrupted: `stop` was set, or somebody ended the child.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        file.write(f"\n[{now()}] $ {shlex.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=_POSIX,
        )
        try:
            while process.poll() is None:
                if stop is not None and stop.is_set():
                    raise Interrupted
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_SECONDS_BETWEEN_LOOKS)
        finally:
            end_process(process)
    if -process.returncode in _OUTSIDE:
        raise Interrupted
    return process.returncode


def describe_exit(code: int) -> str:
    """What an exit code says."""
    if _POSIX and code == -signal.SIGKILL:
        return "was killed (SIGKILL), as happens when memory runs out"
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"


def tail(log: Path, lines: int = 25, max_bytes: int = 20_000) -> str:
    """The last lines of a log that say something; progress bars rewritten in place count as their last state."""
    try:
        with open(log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - max_bytes))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    text = _COLOURS.sub("", text)
    said = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in said if line][-lines:])


def end_process(process: subprocess.Popen) -> None:
    """End a child that leads a process group of its own, and all it started, if they still run: politely first."""
    try:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_STOP)
    finally:  # also if a second Ctrl-C or SIGTERM ends the waiting
        if _POSIX:
            _signal(process, signal.SIGKILL)  # workers that outlived their parent
        elif process.poll() is None:
            process.kill()
    process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if _POSIX:
            os.killpg(process.pid, number)
        else:
            process.terminate()
