"""The commands of a cell, as argument lists, and the environment they run in."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark.runs import Run
from swin_umamba_nnunet.benchmark.seeded import PREDICT, TRAIN
from swin_umamba_nnunet.benchmark.sources import Case

_ROOM = "swin_umamba_nnunet.benchmark"


@dataclass(frozen=True)
class Task:
    """Everything a process needs to run one cell, wherever it runs.

    Attributes:
        cell: which.
        inputs: see `inputs.cell_inputs`.
        cases: name -> images and ground truth of what is predicted and scored.
        file_ending: of images and segmentations.
        validation: see `MatrixConfig`.
        checkpoint_minutes: see `MatrixConfig`.
        epochs: of the training, where they are known.
        cost: of the network, `cost.Cost.to_dict()`, where it is known.
    """

    cell: Run
    inputs: Mapping[str, Any]
    cases: Mapping[str, Case]
    file_ending: str
    validation: bool = False
    checkpoint_minutes: float = 10.0
    epochs: int | None = None
    cost: Mapping[str, Any] | None = None


def train_command(task: Task, resume: bool) -> list[str]:
    """`nnUNetv2_train`, seeded; with --c if it goes on from a checkpoint."""
    cell, row = task.cell, task.cell.row
    wrapper = ["--validation"] if task.validation else []
    wrapper += ["--checkpoint-minutes", str(task.checkpoint_minutes)]
    device = ["-device", task.inputs["device"], "-num_gpus", str(row.num_gpus)]
    command = [TRAIN, cell.dataset, row.configuration, str(cell.fold), "-tr", row.name, "-p", row.plans, *device]
    return [*_seeded(cell, cell.measured, wrapper), *command, *(["--c"] if resume else [])]


def predict_command(task: Task) -> list[str]:
    """`nnUNetv2_predict` on the linked images."""
    cell, row = task.cell, task.cell.row
    command = [
        PREDICT, "-i", str(cell.images), "-o", str(cell.predictions), "-d", cell.dataset, "-c", row.configuration,
        "-f", str(cell.fold), "-tr", row.name, "-p", row.plans, "-chk", task.inputs["checkpoint"],
        "-device", task.inputs["device"], "--disable_progress_bar",
    ]  # fmt: skip
    tta = [] if task.inputs["mirroring"] else ["--disable_tta"]
    return [*_seeded(cell, cell.measured_prediction), *command, *tta]


def evaluate_command(task: Task) -> list[str]:
    """This package's evaluation of the predictions."""
    cell = task.cell
    return [
        sys.executable, "-m", f"{_ROOM}.scores",
        str(cell.references), str(cell.predictions), str(cell.evaluation), "--dataset-json",
        str(cell.model.parent / "dataset.json"), "--file-ending", task.file_ending,
    ]  # fmt: skip


def _seeded(cell: Run, record: Any, options: list[str] | None = None) -> list[str]:
    seed = ["--record", str(record), "--seed", str(cell.seed)]
    return [sys.executable, "-m", f"{_ROOM}.seeded", *seed, *(options or []), "--"]


def environment(task: Task, gpus: tuple[int, ...] = ()) -> dict[str, str]:
    """Variables of the commands over those of this process, which keep nnUNet_raw, nnUNet_preprocessed and the like."""
    folders = [folder for folder in os.environ.get(_autoregister.VARIABLE, "").split(os.pathsep) if folder]
    if _autoregister.FOLDER not in folders:
        folders.append(_autoregister.FOLDER)
    variables = {
        "nnUNet_results": str(task.cell.results),
        _autoregister.VARIABLE: os.pathsep.join(folders),
        "PYTHONHASHSEED": "0",
    }
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    if task.inputs["device"] == "cpu":
        usual = {
            "nnUNet_n_proc_DA": "1",  # more augmentation workers would take the cores from the training
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep instead of spinning beside the scan's own
        }
        variables |= {name: value for name, value in usual.items() if name not in os.environ}
    return variables
