"""Python in forks of a process that has already imported what it needs.

A command of nnU-Net's spends five seconds of CPU time on its imports, several times what a tiny training takes.  Where
starting from nothing proves nothing, tests run the command by an interpreter that is a tiny client: it passes its
arguments, variables, folder and standard streams to a warm process, which forks, and it ends as the fork ends.  Linux
only: elsewhere forking after the imports is not safe.
"""

import atexit
import contextlib
import importlib
import json
import multiprocessing.spawn
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

MODULES = (
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.model_sharing.entry_points",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "swin_umamba_nnunet.trainers",
    "swin_umamba_nnunet.cli",
    "swin_umamba_nnunet.ops._numba",
    "torch._dynamo",
)
AVAILABLE = sys.platform == "linux" and " " not in sys.executable  # which goes into a script's first line
CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    request = {{"arguments": sys.argv[1:], "cwd": os.getcwd(), "variables": dict(os.environ)}}
    message = json.dumps(request).encode() + b"\\n"
    sent = socket.send_fds(connection, [message], [0, 1, 2])
    connection.sendall(message[sent:])
    status = json.loads(connection.makefile().readline() or "254")
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class WarmPython:
    """A stand-in for the interpreter `python`, whose processes are forks of one that has imported `MODULES`.

    Its options are `-m module`, `-c code` or a file, and arguments.  Forks have the variables of their client, but the
    number of threads and the like was settled when the libraries were imported.

    Args:
        python: the interpreter.
        cwd: where the warm process runs; what is imported must be importable from there.
        variables: its environment.

    Attributes:
        path: of the stand-in.
    """

    def __init__(self, python: Path | str, cwd: Path, variables: dict[str, str]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="warm", dir="/tmp"))  # a socket's path has room for 100 characters
        self.path, self._folder = folder / "python", folder
        address = str(folder / "socket")
        self.path.write_text(CLIENT.format(python=Path(sys.executable).resolve(), address=address))
        self.path.chmod(0o700)
        command = [str(python), __file__, address, str(self.path)]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        atexit.register(self.close)
        deadline = time.monotonic() + 300
        while not (folder / "socket").exists():
            log_text = (folder / "log").read_text()
            assert self._process.poll() is None, f"the warm process ended:\n{log_text[-3000:]}"
            assert time.monotonic() < deadline, f"the warm process does not begin:\n{log_text[-3000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        """End the process; forks that still run go on."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serve(address: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the handlers
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        while os.getppid() == parent:  # else the tests were killed
            if not select.select([server], [], [], 1)[0]:
                continue
            connection, _ = server.accept()
            with connection:
                if os.fork() == 0:
                    server.close()
                    _handle(connection)


def _handle(connection: socket.socket) -> NoReturn:
    """Fork again, so that any way to end has a status; a client that is gone takes its fork with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not message.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:  # the client is gone
            os._exit(1)
        message += more
    request = json.loads(message)
    child = os.fork()
    with contextlib.suppress(OSError):  # both do it, so that neither can be too late
        os.setpgid(child, child)
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # new ones: the old remember of what kind their file was
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        _become(request["arguments"], request["cwd"], request["variables"])
    for stream in streams:
        os.close(stream)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")
            os._exit(0)
        if select.select([connection], [], [], 0.02)[0] and not connection.recv(1):
            os.killpg(child, signal.SIGKILL)  # with the workers it has, which would wait for it


def _become(arguments: list[str], cwd: str, variables: dict[str, str]) -> NoReturn:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    status = 1
    try:
        _settle()
        _run(*arguments)
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _settle() -> None:
    """What a new process does by itself: filters of warnings, the start-up line, random numbers of its own."""
    import numpy as np
    import torch

    from swin_umamba_nnunet import _autoregister

    for option in filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")):
        warnings._setoption(option)  # type: ignore[attr-defined]
    _autoregister.register()
    random.seed()
    np.random.seed()  # noqa: NPY002 (the state that nnU-Net's augmentation uses)
    torch.seed()


def _run(what: str, *arguments: str) -> None:
    while what in ("-W", "-X"):
        _, what, *arguments = arguments  # type: ignore[assignment]
    if what == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [what, *arguments]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # not the folder of this file
    for _name in MODULES:
        importlib.import_module(_name)
    multiprocessing.spawn.set_executable(sys.executable)  # it hands over descriptors, which the stand-in does not
    sys.executable = sys.argv[2]
    _serve(sys.argv[1])
