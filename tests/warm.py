"""Commands in forks of a process that has already imported what they need.

A command of nnU-Net's spends five seconds of CPU time on its imports, several times what a tiny training takes.  Where
a process of its own proves nothing, tests run the command in a fork of a warm process instead: its own environment
variables, arguments, output and exit status, but no second import.  POSIX only.
"""

import atexit
import contextlib
import importlib
import json
import os
import random
import runpy
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

MODULES = (
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.model_sharing.entry_points",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "swin_umamba_nnunet.trainers",
    "swin_umamba_nnunet.cli",
    "swin_umamba_nnunet.ops._numba",
)


class WarmProcess:
    """Runs Python in forks of one process of `python` that has imported `MODULES`.

    Args:
        python: the interpreter.
        cwd: where the warm process runs; what is imported must be importable from there.
        variables: its environment.  A fork has the variables it is given, but the number of threads and the like was
            settled when the libraries were imported.
    """

    def __init__(self, python: Path | str, cwd: Path, variables: dict[str, str]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="warm"))  # a socket's path has room for 100 characters
        self._address = str(self._folder / "socket")
        command = [str(python), __file__, self._address]
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        atexit.register(self.close)

    def run(
        self, what: Sequence[str], arguments: Sequence[str], cwd: Path, variables: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess:
        """What `python WHAT ARGUMENTS` does.

        Args:
            what: ("module", "function") of an entry point, ("-m", "module") or ("-c", "code").
        """
        deadline = time.monotonic() + timeout_s
        with tempfile.TemporaryDirectory(dir=self._folder) as folder, socket.socket(socket.AF_UNIX) as connection:
            outputs = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            request = {"what": what, "arguments": arguments, "cwd": str(cwd), "variables": variables}
            connection.settimeout(timeout_s)
            self._connect(connection, deadline)
            connection.sendall(json.dumps({**request, "outputs": outputs}).encode() + b"\n")
            status = json.loads(connection.makefile().readline() or "null")
            stdout, stderr = (Path(path).read_text("utf-8", "replace") for path in outputs)
        assert status is not None, f"the warm process lost {what} {arguments}:\n{stdout[-2000:]}{stderr[-2000:]}"
        return subprocess.CompletedProcess([*what, *arguments], status, stdout, stderr)

    def _connect(self, connection: socket.socket, deadline: float) -> None:
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # it is still importing
                return connection.connect(self._address)
            log = (self._folder / "log").read_text()
            assert self._process.poll() is None, f"the warm process ended:\n{log[-3000:]}"
            assert time.monotonic() < deadline, f"the warm process does not answer:\n{log[-3000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        """End the process; forks that still run go on."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 64
    max_children = 64
    parent = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:  # the tests were killed
            os._exit(1)


class _Handler(socketserver.StreamRequestHandler):
    """In a fork of its own for each request, which forks again, so that any way to end has a status."""

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        child = os.fork()
        if child == 0:
            _become(request)
        _, status = os.waitpid(child, 0)
        self.wfile.write(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def _become(request: dict[str, Any]) -> NoReturn:
    for number, path in enumerate((os.devnull, *request["outputs"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["cwd"])
    status = 1
    try:
        _settle()
        status = _call(request["what"], request["arguments"])
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
    """What a new process does by itself: the package's start-up line, random numbers of its own."""
    import numpy as np
    import torch

    from swin_umamba_nnunet import _autoregister

    _autoregister.register()
    random.seed()
    np.random.seed()  # noqa: NPY002 (the state that nnU-Net's augmentation uses)
    torch.seed()


def _call(what: Sequence[str], arguments: Sequence[str]) -> int:
    sys.argv = ["warm", *arguments]
    if what[0] == "-m":
        runpy.run_module(what[1], run_name="__main__", alter_sys=True)
        return 0
    if what[0] == "-c":
        exec(what[1], {"__name__": "__main__"})
        return 0
    return getattr(importlib.import_module(what[0]), what[1])() or 0


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # not the folder of this file
    for _name in MODULES:
        importlib.import_module(_name)
    with _Server(sys.argv[1], _Handler) as _server:
        _server.serve_forever(poll_interval=0.5)
