"""A benchmark through the real commands: nnU-Net's folders with a preprocessed dataset and the test's own trainers."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from tests import synthetic_dataset as dataset
from tests.installed import ROOT
from tests.jsons import load
from tests.workspace import variables

COMMON = 'output = "{output}"\ndatasets = [901]\ndevice = "cpu"\ncheckpoint_minutes = 0\n'
VERB = ("-m", "swin_umamba_nnunet", "benchmark")


@dataclasses.dataclass(frozen=True)
class Bench:
    """A folder that `tests.workspace.prepare` has filled, and a way to run commands in there."""

    folder: Path
    variables: dict[str, str]
    python: str = sys.executable

    def start(self, *command):
        return subprocess.Popen(
            [self.python, *command],
            cwd=self.folder,
            env={**os.environ, **self.variables},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *command, code=0):
        """What it prints until it ends, with this exit code."""
        process = self.start(*command)
        out, err = process.communicate(timeout=400)
        assert process.returncode == code, out + err
        return out

    def place(self, output, trainer):
        """Folder of the run of a trainer."""
        return self.folder / output / "cells" / dataset.NAME / f"{trainer}__nnUNetPlans__2d/fold_0/seed_0"

    def cell(self, output, trainer, name="cell.json"):
        path = self.place(output, trainer) / name
        return load(path) if path.is_file() else {}

    def write_config(self, output, *trainers, more=""):
        rows = "".join(f'[[trainers]]\nname = "{name}"\n' for name in trainers)
        (self.folder / f"{output}.toml").write_text(COMMON.format(output=output) + more + rows)
        return f"{output}.toml"


def make_bench(folder, trainers):
    """With a file of trainers in the user's own folder of them."""
    (folder / "own").mkdir()
    (folder / "own" / "bench_trainers.py").write_text(trainers)
    further = {
        "nnUNet_extTrainer": str(folder / "own"),
        "nnUNet_npp": "0",
        "nnUNet_nps": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return Bench(folder, variables(folder) | further)
