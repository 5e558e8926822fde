"""`swin-umamba doctor`: what is installed, what can run here, whether nnU-Net finds the trainers; what to do if not."""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

from swin_umamba_nnunet import __version__, _autoregister
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli._demo import runner

DESCRIPTION = """\
Check this installation: versions, devices, which backend runs the selective scan and why the others do not, and
whether nnU-Net finds the trainers.  Ends with what to do about what is wrong; the exit code is 0 if nothing is, else 1.
"""

_PACKAGES = ("nnunetv2", "torch", "numba", "triton", "mamba-ssm", "nilearn")
# What nnUNetv2_train does to find a trainer, in an interpreter as fresh as its own.  The last line printed is where the
# class was defined; nnU-Net forgets a module that lies in an external folder itself, whose name must then do.
_FINDER = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
import os, sys
name = find(sys.argv[1]).__module__
file = getattr(sys.modules.get(name), "__file__", None)
print(os.path.dirname(file) if file else "a module named " + name)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb has no options."""


def run(args: argparse.Namespace) -> int:
    """Print the findings, then the advice; 1 if there is any."""
    problems = [advice for check in (_versions, _devices_and_backends, _trainers_found) for advice in check()]
    if not problems:
        print("\nAll is well.")
        return 0
    print("\nTo put right:")
    for advice in problems:
        print(f"  - {advice}")
    return 1


def _versions() -> Iterator[str]:
    print(f"swin_umamba_nnunet {__version__} on Python {platform.python_version()}, {platform.platform()}\n")
    for name in _PACKAGES:
        try:
            print(f"  {name:<12} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {name:<12} not installed")
            if name in ("nnunetv2", "torch", "numba"):
                yield f"{name} is missing; install this package again with pip, which brings it"


def _devices_and_backends() -> Iterator[str]:
    try:
        import torch

        from swin_umamba_nnunet import ops
    except ImportError as error:
        yield f"the networks cannot be imported: {error}"
        return
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"\n  CPU          {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    print(f"  CUDA         {', '.join(gpus) if gpus else 'no GPU found'}")
    for device in ["cpu", *(["cuda"] if gpus else [])]:
        print(f"\n  selective scan on {device}")
        for backend, state in ops.backend_report(device).items():
            print(f"    {backend:<10} {state}")
        try:
            print(f"    -> {ops.resolve_backend(None, device)} runs")
        except (ops.BackendUnavailableError, ValueError) as error:
            yield str(error)


def _trainers_found() -> Iterator[str]:
    print("\n  trainers found by nnU-Net")
    try:
        finder = [sys.executable, "-c", _FINDER, TRAINERS[0].name]
        done = subprocess.run(finder, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"Python could not be started to ask nnU-Net for the trainers: {error}"
        return
    if done.returncode == 0:
        print(f"    yes, in {done.stdout.strip().splitlines()[-1]}")
        return
    print("    no")
    last_line = (done.stderr.strip() or "no message").splitlines()[-1]
    if "Could not find requested nnunet trainer" not in done.stderr:
        yield f"nnU-Net failed while it looked for the trainers: {last_line}"
    elif _autoregister.switched_off():
        yield f"{_autoregister.SWITCH} is set, so nnU-Net is not told about the trainers; unset it"
    else:
        former = [folder for folder in os.environ.get(_autoregister.VARIABLE, "").split(os.pathsep) if folder]
        folders = os.pathsep.join([*former, _autoregister.FOLDER])
        line = runner.export_lines({_autoregister.VARIABLE: folders})[0]
        yield f"start-up lines do not run in this environment; add this line to your shell's profile:   {line}"
