"""Child processes: logged, stoppable at any moment, never left behind by whoever started them."""

import codecs
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from swin_umamba_nnunet.benchmark.files import BenchmarkError, Record, now, read_json, write_json

_POSIX = os.name == "posix"
_COLOURS = re.compile("\x1b\\[[0-9;?]*[ -/]*[@-~]")  # and movements of the cursor, which say nothing in a log
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_STOP = 10.0


def _signals(*names: str) -> list[signal.Signals]:
    return [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has few


# By these somebody ends a child; SIGKILL is not among them, which is what running out of memory looks like.
_OUTSIDE = _signals("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Interrupted(Exception):
    """The child was ended from outside before it was done; nothing is wrong with it."""


def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    stop: threading.Event | None = None,
    echo: bool = False,
) -> int:
    """Run a command with everything it prints appended to `log`, and return its exit code (negative for a signal).

    The child has a process group of its own, so that Ctrl-C reaches this process alone, which then ends child and
    grandchildren in order.

    Args:
        command: argument list; no shell reads it.
        environment: variables over those of this process.
        log: file.
        stop: ends the child when it is set.
        echo: show what it prints on stdout too.

    Raises:
        Interrupted: `stop` was set, or somebody ended the child.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file, open(log, "rb") as said:
        file.write(f"\n[{now()}] $ {shlex.join(command)}\n".encode())
        file.flush()
        said.seek(0, os.SEEK_END)

        def show() -> None:
            if echo:
                sys.stdout.write(decoder.decode(said.read()))
                sys.stdout.flush()

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
                show()
        finally:
            _end(process)
        show()
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
            text = _COLOURS.sub("", file.read().decode("utf-8", "replace"))
    except FileNotFoundError:
        return ""
    said = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in said if line][-lines:])


def ask(request: Record, environment: Mapping[str, str] | None = None) -> Record:
    """What `probe` answers to a request, in a child process: this one imports no torch, and outlives what fails there.

    Raises:
        BenchmarkError: the child has failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered, log = (Path(folder, name) for name in ("request.json", "answer.json", "log"))
        write_json(asked, request)
        command = [sys.executable, "-m", "swin_umamba_nnunet.benchmark.probe", str(asked), str(answered)]
        code = run_child(command, {**(environment or {}), "nnUNet_wandb_enabled": "0"}, log)
        if code != 0 or (answer := read_json(answered)) is None:
            raise BenchmarkError(f"looking at the trainers failed with exit code {code}:\n{tail(log)}")
        return answer


def _end(process: subprocess.Popen) -> None:
    """End a child that leads a process group of its own, and all it started, if they still run: politely first."""
    try:
        if process.poll() is None:
            _send(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_STOP)
    finally:  # also if a second Ctrl-C or SIGTERM ends the waiting
        if _POSIX:
            _send(process, signal.SIGKILL)  # workers that outlived their parent
        elif process.poll() is None:
            process.kill()
    process.wait()


def _send(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if _POSIX:
            os.killpg(process.pid, number)
        else:
            process.terminate()


def end_with_parent() -> None:
    """For a child: end this process and its workers when the one that started it is gone, however that ended.

    Else a training whose runner was killed would go on, and the next runner would start a second one beside it.  Does
    nothing on Windows.
    """
    if not _POSIX:
        return
    # SLURM sends these to every process of a job to say that time is nearly up; the runner acts on them.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if os.getpgid(0) == os.getpid():  # a group of our own, as the runner gives us: augmentation workers too
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A closed terminal or `kill` ends this process as Ctrl-C does, children included: by SystemExit(128 + signal)."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    # nohup ignores SIGHUP, and that is to stay so; None is a handler that Python cannot bring back
    numbers = [one for one in _signals("SIGTERM", "SIGHUP") if signal.getsignal(one) not in (signal.SIG_IGN, None)]
    try:
        former = {number: signal.signal(number, leave) for number in numbers}
    except ValueError:  # not in the main thread: signals are someone else's business
        former = {}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def command_line(command: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(command) if _POSIX else subprocess.list2cmdline(command)


def export_lines(variables: Mapping[str, str]) -> list[str]:
    """The lines that give a shell of the user's the same variables."""
    said = ((name, shlex.quote(value) if _POSIX else value) for name, value in variables.items())
    return [f"{'export' if _POSIX else 'set'} {name}={value}" for name, value in said]
