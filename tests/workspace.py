"""An environment with the package, nnU-Net's folders and a preprocessed dataset, for tests of whole commands."""

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tests import synthetic_dataset as dataset
from tests.installed import ROOT, Environment, make_environment

TRAIN = ("nnUNetv2_train", "901", "2d", "0", "-device", "cpu", "-tr")
NO_WORKERS = ("-npp", "0", "-nps", "0")


@dataclasses.dataclass(frozen=True)
class Workspace:
    """An environment with nnU-Net's folders, the preprocessed dataset and the user's own trainers."""

    environment: Environment
    folder: Path

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess:
        return self.environment.command(*command, **variables)

    def run_all(self, *commands: Sequence[str | Path], **variables: str) -> list[subprocess.CompletedProcess]:
        """Independent commands side by side."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda command: self.run(*command, **variables), commands))

    def ok(self, *command: str | Path, **variables: str) -> str:
        """Output of a command that has to succeed."""
        result = self.run(*command, **variables)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    def results(self, trainer: str, configuration: str = "2d") -> Path:
        return self.folder / "nnUNet_results" / dataset.NAME / f"{trainer}__nnUNetPlans__{configuration}"

    def fold(self, trainer: str) -> Path:
        return self.results(trainer) / "fold_0"

    def log(self, trainer: str) -> str:
        """All logs of the trainings of a trainer, in order."""
        return "".join(path.read_text() for path in sorted(self.fold(trainer).glob("training_log_*.txt")))

    def checkpoint(self, trainer: str, name: str = "checkpoint_final.pth") -> dict:
        return torch.load(self.fold(trainer) / name, map_location="cpu", weights_only=False)

    @property
    def everything(self) -> set[str]:
        return {str(path) for path in (self.folder / "nnUNet_results").rglob("*")}


def make_workspace(folder: Path) -> Workspace:
    """Environment, raw and preprocessed dataset in `folder`; takes about half a minute."""
    environment = make_environment(folder / "environment", "--editable", ROOT)
    variables = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for path in variables.values():
        Path(path).mkdir()
    (folder / "own").mkdir()
    (folder / "own" / "own_trainers.py").write_text(dataset.TRAINERS)
    variables |= {
        "nnUNet_extTrainer": str(folder / "own"),
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    }
    dataset.write_raw_dataset(folder / "nnUNet_raw")
    workspace = Workspace(dataclasses.replace(environment, variables=variables), folder)
    plan = ("nnUNetv2_plan_and_preprocess", "-d", "901", "-c", "2d", "3d_fullres", "-np", "1", "1", "-npfp", "1")
    workspace.ok(*plan, nnUNet_n_proc_DA="1")
    dataset.change_plans(folder / "nnUNet_preprocessed")
    return workspace
