"""Python in forks of a process that has already imported what it needs.

A command of nnU-Net's spends five seconds of CPU time on its imports, several times what a tiny training takes.  Where
starting from nothing proves nothing, tests run the command by an interpreter that is a tiny client: it passes its
arguments, variables, folder and standard streams to a warm process, which forks, and it ends as the fork ends.  What
a fork would spawn, it forks too.  One warm process serves all workers of a run.  Linux only: elsewhere forking after
the imports is not safe.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.context
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
import traceback
import warnings
from pathlib import Path

from filelock import FileLock

MODULES = (
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.model_sharing.entry_points",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "swin_umamba_nnunet.trainers",
    "swin_umamba_nnunet.cli",
    "swin_umamba_nnunet.ops._numba",
    "torch._dynamo",
    "timm",  # nnU-Net's search for a trainer imports it
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


ROOT = Path(__file__).resolve().parents[1]
SHARED = "SWIN_UMAMBA_TESTS_WARM_PYTHON"  # holds the path of the stand-in of this run, for its workers


@functools.cache
def warm_python():
    """Path of the stand-in for this interpreter, whose processes are forks of one that has imported `MODULES`.

    Where forks are not safe, it is the interpreter itself.
    Its options are `-m module`, `-c code` or a file, and arguments.  Forks have the variables of their client, but the
    number of threads and the like was settled when the libraries were imported, which the first client waits for.
    """
    if not AVAILABLE or SHARED in os.environ:
        return os.environ.get(SHARED, sys.executable)
    folder = Path(tempfile.mkdtemp(prefix="warm", dir="/tmp"))  # a socket's path has room for 100 characters
    path, address = folder / "python", str(folder / "socket")
    path.write_text(CLIENT.format(python=Path(sys.executable).resolve(), address=address))
    path.chmod(0o700)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(64)
    process = subprocess.Popen(
        [sys.executable, __file__, str(server.fileno()), str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "nnUNet_def_n_proc": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[server.fileno()],
    )
    server.close()

    def close():  # forks that still run go on
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(close)
    return str(path)


def lock(python):
    """Held until the warm process whose stand-in that is has its imports, and with them compiled the kernels."""
    return FileLock(f"{python}.lock")


def _serve(server):
    parent = os.getppid()
    with lock(sys.executable):
        _prepare()
    gc.freeze()  # else a collection in a fork writes to, and so copies, every page
    while os.getppid() == parent:  # else the tests were killed
        with contextlib.suppress(ChildProcessError):  # their time counts as that of the tests
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not select.select([server], [], [], 1)[0]:
            continue
        connection, _ = server.accept()
        with connection:
            if os.fork() == 0:
                server.close()
                _handle(connection)
    sys.exit()


def _prepare():
    """Import what forks need, and spare them what nnU-Net spends on a dataset of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's
        for name in MODULES:
            importlib.import_module(name)
    import matplotlib
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    # a hundred million intensities, drawn with replacement from however few there are
    DatasetFingerprintExtractor.num_foreground_voxels_for_intensitystats = property(lambda _: 1e5, lambda *_: None)
    matplotlib.rcParams["savefig.dpi"] = 10  # of 16 million pixels, after each epoch


def _handle(connection):
    """Fork again, so that any way to end has a status; a client that is gone takes its fork with it."""
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


def _become(arguments, cwd, variables):
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


def _settle():
    """What a new process does by itself: filters of warnings, the start-up line, random numbers of its own.

    And what spawning would cost: the imports again, for each worker of nnU-Net's.
    """
    import numpy as np
    import torch

    from swin_umamba_nnunet import _autoregister

    for option in filter(None, os.environ.get("PYTHONWARNINGS", "").split(",")):
        warnings._setoption(option)  # type: ignore[attr-defined]
    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = contexts["fork"]
    _autoregister.register()
    random.seed()
    np.random.seed()  # noqa: NPY002 (the state that nnU-Net's augmentation uses)
    torch.seed()


def _run(what, *arguments):
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
    sys.executable = sys.argv[2]
    _serve(socket.socket(fileno=int(sys.argv[1])))
