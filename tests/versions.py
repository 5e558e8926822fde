"""The tests with other versions of Python, torch and nnU-Net, each in an environment of its own that is deleted after.

    python tests/versions.py --python 3.10 --torch 2.4.0 --nnunet 2.8.0 --numba 0.60.0
    python tests/versions.py --python 3.13 -- tests/ops tests/networks      (the newest of what is not named)

Needs the interpreter (on PATH, or under ~/.pyenv/versions), the package index and about 8 GB of disk per run: torch
from PyPI brings CUDA.  `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` saves most of that.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("tests/ops", "tests/blocks", "tests/networks", "tests/trainers")
PINNED = {"torch": "torch", "nnunet": "nnunetv2", "numba": "numba", "numpy": "numpy"}  # option -> project


def main() -> int:
    args = _arguments()
    python = find_python(args.python)
    pins = [f"{project}=={version}" for option, project in PINNED.items() if (version := getattr(args, option))]
    folder = Path(tempfile.mkdtemp(prefix="versions-", dir=args.work))
    try:
        print(f"{python}: {', '.join(pins) or 'the newest of everything'}", flush=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [own, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
        subprocess.run([*pip, "install", "--quiet", *pins, "--editable", f"{ROOT}[test]"], check=True)
        subprocess.run([*pip, "list"], check=True)
        tests = args.tests or QUICK
        # one thread: the machine is often shared, and gradients are compared at a fixed number anyway
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        command = [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", args.marked, *tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    parser.add_argument("--python", metavar="3.10", help="default: the one that runs this")
    for option, project in PINNED.items():
        parser.add_argument(f"--{option}", metavar="VERSION", help=f"of {project}; default: what pip chooses")
    parser.add_argument("--marked", default="not slow", help="pytest's -m (default: %(default)r; '' for all)")
    parser.add_argument("--work", type=Path, help="folder for the environment (default: the system's)")
    parser.add_argument("tests", nargs="*", help=f"paths for pytest (default: {' '.join(QUICK)})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
