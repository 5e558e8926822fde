"""The tests with other versions of Python, torch and nnU-Net, each in an environment of its own that is deleted after.

    python tests/versions.py oldest                      (the tests that touch torch's insides)
    python tests/versions.py newest --all                (every test)
    python tests/versions.py --python 3.13 --torch 2.13.0 --tests tests/ops tests/networks

`oldest` and `newest` say what is not said by an option: the oldest versions that pyproject.toml allows, or the newest
torch on the package index (where pip is not told to stay below it) with the newest of everything that goes with it.
Needs uv (in the extra `dev`), the interpreter (on PATH, or under ~/.pyenv/versions), the package index, and about 6 GB
of disk: torch from PyPI brings CUDA.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# what a new torch has broken so far, and what it could: operators, compilation, export, counting, checkpoints
INSIDES = (
    "tests/ops",
    "tests/blocks",
    "tests/networks",
    "tests/cost/test_cost.py",
    "tests/trainers/test_step.py",
    "tests/trainers/test_checkpoints.py",
    "tests/trainers/test_freeze.py",
    "tests/trainers/test_two_processes.py",
    "tests/models/test_exporting.py",
    "tests/models/test_checkpoints.py",
    "tests/pretrained/test_checkpoint.py",
)
PINNED = {"torch": "torch", "nnunet": "nnunetv2", "numba": "numba", "numpy": "numpy"}  # option -> project
OLDEST = {"python": "3.10", "torch": "2.4.0", "nnunet": "2.8.0", "numba": "0.60.0"}


def main() -> int:
    args = _arguments()
    if args.which == "oldest":
        for option, version in OLDEST.items():
            setattr(args, option, getattr(args, option) or version)
    if args.which == "newest" and not args.check:
        args.torch = args.torch or newest("torch")
    python = find_python(args.python)
    if args.check:
        return 0
    pins = [f"{project}=={version}" for option, project in PINNED.items() if (version := getattr(args, option))]
    # uv: pip needs a quarter of an hour to find what goes with an old torch
    uv = [sys.executable, "-m", "uv", "--no-config", "--quiet"]
    folder = Path(tempfile.mkdtemp(prefix="versions-", dir=args.work))
    try:
        print(f"{python}: {', '.join(pins) or 'the newest of everything'}", flush=True)
        subprocess.run([*uv, "venv", "--seed", "--python", python, folder / "venv"], check=True)
        own = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        subprocess.run([*uv, "pip", "install", "--python", own, *pins, "--editable", f"{ROOT}[test]"], check=True)
        subprocess.run([*uv, "pip", "freeze", "--python", own], check=True)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        workers = ["-n", "auto", "--maxprocesses", "8", "--dist", "loadfile"]
        tests = args.tests or ([] if args.all else INSIDES)
        command = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def newest(project: str) -> str:
    """Version of the newest release on the package index, whatever this machine's configuration of pip says."""
    command = [sys.executable, "-m", "pip", "index", "versions", project]
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = re.search(rf"{project} \(([\w.]+)", out)
    if found is None:
        sys.exit(f"the package index names no version of {project}: {out[:200]!r}")
    return found[1]


def find_python(version: str | None) -> str:
    """The interpreter of a version such as 3.10; this one for None."""
    if version is None:
        return sys.executable
    places = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(places))):
        # pyenv puts shims on PATH for versions that are not switched on, and those fail
        if candidate and subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    sys.exit(f"no Python {version} on PATH or under ~/.pyenv/versions; install one, as in: pyenv install {version}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", choices=("oldest", "newest"), help="versions of what no option names")
    parser.add_argument("--python", metavar="3.10", help="default: the one that runs this")
    for option, project in PINNED.items():
        parser.add_argument(f"--{option}", metavar="VERSION", help=f"of {project}; default: what the index has")
    parser.add_argument("--check", action="store_true", help="only whether that Python is there")
    parser.add_argument("--all", action="store_true", help="every test (default: those that touch torch's insides)")
    parser.add_argument("--work", type=Path, help="folder for the environment (default: the system's)")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="for pytest (default: see --all)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
