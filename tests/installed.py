"""The package in an environment of its own, and nnU-Net's commands in there.  For tests of what a user types.

The environment sees the libraries of the one the tests run in, so that nothing is downloaded, but has its own copy of
this package, installed by pip.  Its commands can run in forks of a warm process (`tests/warm.py`) or each in its own.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the package in it.

    Attributes:
        venv: its folder.
        variables: environment variables of every command, over the present ones.
        warm: the stand-in for its interpreter that runs its commands; without it each starts from nothing.
    """

    venv: Path
    variables: dict[str, str] = field(default_factory=dict)
    warm: str | None = None

    @property
    def python(self):
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def run(self, *command, **variables):
        """Run Python in there, somewhere else than in the checkout; an empty value removes a variable."""
        python = self.warm or self.python
        return subprocess.run(
            [python, *command],
            cwd=self.venv,
            timeout=600,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=self._environ(variables),
        )

    def command(self, name, *arguments, **variables):
        """Run a command of nnU-Net's (`nnUNetv2_train`, ...) or this package's with this environment's Python."""
        return self.run(self.script(name), *arguments, **variables)

    def _environ(self, variables):
        inherited = ("PYTHONPATH", "nnUNet_extTrainer", "SWIN_UMAMBA_NO_AUTOREGISTER", "SWIN_UMAMBA_WEIGHTS")
        environment = {key: value for key, value in os.environ.items() if key not in inherited}
        environment |= {**self.variables, **variables}
        return {key: value for key, value in environment.items() if value}

    def script(self, name):
        """What pip would have written for the command, had it installed nnU-Net in here too."""
        script = self.venv / f"{name}.py"
        if not script.exists():
            (entry,) = importlib.metadata.entry_points(group="console_scripts", name=name)
            lines = ("import sys", f"from {entry.module} import {entry.attr}", "if __name__ == '__main__':")
            partial = self.venv / f"{name}.{os.getpid()}"  # several workers may ask at once
            partial.write_text("\n".join((*lines, f"    sys.exit({entry.attr}())")))
            partial.replace(script)
        return script


def build_wheel(folder):
    """The wheel of this checkout, built by pip into `folder`."""
    _pip("wheel", "--no-deps", *_isolation(), "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder, *what):
    """A new environment in `folder` with `pip install WHAT` done in it."""
    venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
    environment = Environment(folder)
    own = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # A line that is a path is added to sys.path behind this environment's own packages, its .pth files are not read.
    Path(own, "~libraries.pth").write_text("\n".join(libraries))
    _pip("--python", environment.python, "install", "--no-deps", "--ignore-installed", *_isolation(), *what)
    return environment


def _isolation():
    """Build with the installed hatchling where there is one; else pip fetches it."""
    return () if importlib.util.find_spec("hatchling") is None else ("--no-build-isolation",)


def _pip(*arguments):
    result = subprocess.run([*PIP, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
