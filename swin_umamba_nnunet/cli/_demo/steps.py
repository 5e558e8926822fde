"""The demo's steps: what each one does, the nnU-Net command it runs, and what it leaves behind."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.cli._demo.workspace import Workspace
from swin_umamba_nnunet.datasets import BRAIN_DATASET_ID, write_brain_dataset
from swin_umamba_nnunet.datasets.brain import FILE_ENDING, SLABS

ORDER = ("dataset", "plan", "train", "predict", "evaluate", "picture")
WORKERS = "2"  # nnU-Net's default of 8 processes takes longer to start than the demo's dozen small cases take to do


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        key: under which the workspace remembers it (see `Workspace`).
        title: what it does, for the user.
        output: what it makes; without it the step is not done.
        command: the nnU-Net command, or an empty tuple if the step runs in this process.
        prepare: called before the command, returns further arguments for it.
        action: what the step does in this process, after the command if it has one.
        needs_space: whether what the step writes may take gigabytes.
    """

    key: str
    title: str
    output: Path
    command: tuple[str, ...] = ()
    prepare: Callable[[], tuple[str, ...]] = tuple
    action: Callable[[], object] = bool
    needs_space: bool = False


def demo_steps(
    workspace: Workspace, trainer: str, device: str, draw: Callable[[], object], picture: Path
) -> tuple[Step, ...]:
    """The steps in order; `draw` makes `picture` and the table of scores from what the others left."""
    dataset, predictions, identifier = workspace.dataset, workspace.predictions(trainer), str(BRAIN_DATASET_ID)
    model = workspace.model(trainer) / "fold_0"
    held_out = [slab.case for slab in SLABS if slab.held_out]
    return (
        Step(
            "dataset",
            "Write slabs of the MNI152 brain (inside the nilearn package) as an nnU-Net dataset",
            dataset / "dataset.json",
            action=lambda: _rewrite_dataset(workspace),
        ),
        Step(
            "plan",
            "Let nnU-Net check, plan and preprocess the dataset",
            workspace.preprocessed / dataset.name / "nnUNetPlans_2d",
            ("nnUNetv2_plan_and_preprocess", "-d", identifier, "-c", "2d", "--verify_dataset_integrity", "--clean",
             "-npfp", WORKERS, "-np", WORKERS),
        ),
        Step(
            f"train:{trainer}",
            f"Train {trainer} on fold 0 of nnU-Net's 5-fold split of the training slabs",
            model / "checkpoint_final.pth",
            ("nnUNetv2_train", identifier, "2d", "0", "-tr", trainer, "-device", device),
            prepare=lambda: _continue_or_clear(workspace, trainer, model),
            needs_space=True,
        ),
        Step(
            f"predict:{trainer}",
            "Predict the held-out slabs",
            predictions / f"{held_out[-1]}{FILE_ENDING}",
            ("nnUNetv2_predict", "-i", str(dataset / "imagesTs"), "-o", str(predictions), "-d", identifier, "-c", "2d",
             "-f", "0", "-tr", trainer, "-npp", "1", "-nps", "1", "-device", device),
        ),
        Step(
            f"evaluate:{trainer}",
            "Evaluate the predictions with nnU-Net's own metrics",
            predictions / "summary.json",
            ("nnUNetv2_evaluate_folder", str(dataset / "labelsTs"), str(predictions), "-np", WORKERS,
             "-djfile", str(predictions / "dataset.json"), "-pfile", str(predictions / "plans.json")),
        ),
        Step(f"picture:{trainer}", "Draw the picture and write the table of scores", picture, action=draw),
    )  # fmt: skip


def can_continue(workspace: Workspace, trainer: str) -> bool:
    """True if the training was begun here and left a checkpoint, final or not: it starts from that and nothing else."""
    fold = workspace.model(trainer) / "fold_0"
    return workspace.is_started(f"train:{trainer}") and any(fold.glob("checkpoint_*.pth"))


def _rewrite_dataset(workspace: Workspace) -> None:
    if workspace.dataset.exists():  # of an earlier demo in this very folder
        shutil.rmtree(workspace.dataset)
    write_brain_dataset(workspace.raw)


def _continue_or_clear(workspace: Workspace, trainer: str, fold: Path) -> tuple[str, ...]:
    """("--c",) if a begun training left a whole checkpoint; otherwise a clean slate and no further argument.

    nnU-Net continues from whichever of final, latest and best it finds first; a file that an interruption cut short
    must therefore go, and so must those of a training on other data.
    """
    if workspace.is_started(f"train:{trainer}"):
        checkpoints = list(fold.glob("checkpoint_*.pth"))
        for checkpoint in checkpoints:
            if not zipfile.is_zipfile(checkpoint):  # torch writes zip files, whose directory comes last
                checkpoint.unlink()
        if any(checkpoint.exists() for checkpoint in checkpoints):
            return ("--c",)
    shutil.rmtree(workspace.model(trainer), ignore_errors=True)
    return ()
