"""`swin-umamba demo`: nnU-Net's own commands, from raw data to scores, on brain MRI that needs no download."""

import argparse
import importlib.util
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from filelock import FileLock, Timeout

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet._text import UserError, duration, listed

if TYPE_CHECKING:
    import pandas as pd

    from swin_umamba_nnunet.benchmark import Run

DEFAULT_TRAINER = "nnUNetTrainerSwinUMambaDScratch"
DEFAULT_WORK = "swin-umamba-demo"
EXPECTED_DICE = 0.85  # what the default trainer reaches; less means that something is wrong with the installation

DESCRIPTION = f"""\
Train, predict and evaluate with nnU-Net's own commands, each printed before it runs, on slabs of the MNI152 brain
(real MRI that comes inside the nilearn package; nothing is downloaded).  It takes about eight minutes on two CPU
cores, and 0.7 GB of disk in the end (1.3 GB while it runs).  Interrupt it with Ctrl-C and run it again to go on
where it stopped.

Everything goes into one folder (./{DEFAULT_WORK} unless you say otherwise); your own nnUNet_raw, nnUNet_preprocessed
and nnUNet_results are not touched.  One averaged brain is a smoke test and not a benchmark.
"""
_MARKER, _LOCK = ".swin_umamba_demo.json", ".swin_umamba_demo.lock"  # what makes a folder a demo's
# what --fresh deletes; the last two lie in folders of earlier versions
_CONTENTS = (
    *("nnUNet_raw", "nnUNet_preprocessed", "benchmark", "logs", "nnUNetTrainer*.png", "nnUNetTrainer*.txt"),
    *("nnUNet_results", "predictions"),
)
_STEPS = {
    "data": "Write slabs of the MNI152 brain (inside the nilearn package) as an nnU-Net dataset",
    "plan": "Let nnU-Net check, plan and preprocess the dataset",
    "training": "Train on fold 0 of nnU-Net's 5-fold split of the training slabs",
    "predicting": "Predict the held-out slabs",
    "evaluating": "Evaluate the predictions",
    "picture": "Draw the picture and write the table of scores",
}
_AUGMENTATION = "nnUNet_n_proc_DA"  # nnU-Net's environment variable
# nnU-Net's default of 8 or 3 processes takes longer to start than the demo's dozen small cases take to do
_PLAN = (
    *("nnUNetv2_plan_and_preprocess", "-d", "152", "-c", "2d", "--verify_dataset_integrity", "--clean"),
    *("-npfp", "2", "-np", "2"),
)
_WORKERS = {"nnUNet_def_n_proc": "2", "nnUNet_npp": "1", "nnUNet_nps": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    work = "folder for everything the demo writes (default: ./%(default)s)"
    add("--work", type=Path, default=Path(DEFAULT_WORK), metavar="DIR", help=work)
    trainer = (
        "which trainer to show, see `swin-umamba list`; it runs in its short _demo variant unless the name asks for "
        "another length (default: %(default)s)"
    )
    add("--trainer", default=DEFAULT_TRAINER, metavar="TRAINER", help=trainer)
    device = "where to train and predict; auto takes a usable NVIDIA GPU, else the CPU"
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help=device)
    fresh = "delete what an earlier demo left in the work folder and start anew"
    add("--fresh", action="store_true", help=fresh)


def run(args: argparse.Namespace) -> None:
    """Check everything that can be checked, the quick checks first, then do what is not done yet.

    Raises:
        UserError: a check or a step failed, or the default trainer's score is too low.
    """
    from swin_umamba_nnunet import pretrained
    from swin_umamba_nnunet.benchmark import Row, Run
    from swin_umamba_nnunet.benchmark.process import Interrupted, ended_by_signals
    from swin_umamba_nnunet.datasets.brain import BRAIN_DATASET_NAME, INSTALL_LINE

    try:
        record = catalogue.get_trainer(args.trainer)
    except ValueError as error:
        raise UserError(str(error)) from error
    for library in ("nilearn", "nibabel", "surface_distance"):
        if importlib.util.find_spec(library) is None:
            raise UserError(f"the demo needs {library}, which is not installed; get it with   {INSTALL_LINE}")
    folder = args.work.expanduser().absolute()
    elsewhere = "choose another with --work DIR"
    trainer = f"{record.name}_demo" if args.trainer == record.name else args.trainer
    run = Run(folder / "benchmark", BRAIN_DATASET_NAME, Row(trainer), 0, 0)
    try:
        _refuse_foreign(folder)
        device = _resolve_device(args.device)
        begins = args.fresh or not run.has_checkpoint()
        if begins and record.weights is not None:  # fetched, and looked at
            pretrained.ensure_weights(record.weights, scratch_trainer=record.scratch)
        # three checkpoints at most (best, latest, final) of parameters and AdamW's two moments, 4 bytes each
        needed = 3 * 3 * 4e6 * record.parameters_million + 0.3e9 if begins else 0.1e9
        free = shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free
        earlier = [path for name in _CONTENTS if args.fresh for path in folder.glob(name)]
        free += sum(file.stat().st_size for path in earlier for file in (path, *path.rglob("*")) if file.is_file())
        if free < needed:
            raise UserError(
                f"the disk of {folder} has {free / 1e9:.1f} GB free and the demo needs {needed / 1e9:.1f} GB (mostly "
                f"for the training's checkpoints); make room, or {elsewhere}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK, timeout=0), ended_by_signals():
            (folder / _MARKER).touch()
            for old in earlier:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            _go(folder, run, device)
    except (KeyboardInterrupt, Interrupted):
        raise UserError("interrupted; run the same command again to go on", 130) from None
    except Timeout:
        raise UserError(f"another demo is running in {folder}; wait for it to end, or {elsewhere}") from None
    except BrokenPipeError:  # nobody reads on
        raise
    except OSError as error:
        raise UserError(
            f"the work folder {folder} cannot be used ({error.strerror or error}); put that right and run the same "
            f"command again to go on, or {elsewhere}"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give --work a folder, which will be made if it does not exist")
    present = sorted(path.name for path in folder.iterdir() if path.name != _LOCK) if folder.exists() else []
    if present and _MARKER not in present:
        raise UserError(
            f"{folder} already holds something else ({listed(present, 3)}) and is left alone; choose an empty or a new "
            "folder with --work DIR"
        )


def _resolve_device(asked: str) -> str:
    if asked == "cpu":
        return asked
    import torch

    from swin_umamba_nnunet import ops

    problem = "PyTorch finds no NVIDIA GPU here"
    if torch.cuda.is_available():
        try:
            ops.resolve_backend(None, "cuda")
            return "cuda"
        except ops.BackendUnavailableError as error:
            problem = str(error)
            print(f"There is a GPU that the demo cannot use: {problem}")
    if asked == "cuda":
        raise UserError(f"--device cuda was asked for, but {problem}; use --device cpu")
    return "cpu"


def _go(folder: Path, run: "Run", device: str) -> None:
    """Go through the steps; those whose outputs are there are not done again."""
    from swin_umamba_nnunet.benchmark.process import command_line, export_lines
    from swin_umamba_nnunet.benchmark.runner import environment

    variables = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed")} | _WORKERS
    variables |= {"nnUNet_compile": "f"} if device == "cuda" else {}  # takes longer than the whole short training
    if os.environ.get(_AUGMENTATION, "").strip() == "0":  # as set for trainings that can be repeated
        variables[_AUGMENTATION] = "1"  # nnU-Net's planner fails with none (2.8)
    variables |= environment(run, device)
    print(f"Demo of {run.row.name} on the {device.upper()}, in {folder}")
    print("\nThe commands below are run with these settings (type them once to run the commands yourself):\n")
    if shutil.which("nnUNetv2_train") is None:  # this environment was not activated
        line = "set PATH={};%PATH%" if os.name == "nt" else "export PATH='{}':\"$PATH\""
        print(f"    {line.format(sysconfig.get_path('scripts'))}")
    print("\n".join(f"    {line}" for line in export_lines(variables)), flush=True)
    began, left = time.monotonic(), list(_STEPS)

    def begin(step: str, command: Sequence[str] = ()) -> None:
        """Say what begins, and what need not."""
        while left:
            number, this = f"[{len(_STEPS) - len(left) + 1}/{len(_STEPS)}]", left.pop(0)
            if this == step:
                print(f"\n{number} {_STEPS[this]}   ({duration(time.monotonic() - began)} so far)", flush=True)
                break
            print(f"\n{number} {_STEPS[this]}: done already", flush=True)
        if command:
            print(f"\n    {command_line(command)}\n", flush=True)

    with mock.patch.dict(os.environ, variables):
        _do(folder, run, device, begin)


def _do(folder: Path, run: "Run", device: str, begin: Callable[..., None]) -> None:
    from swin_umamba_nnunet.benchmark import prepare, run_job
    from swin_umamba_nnunet.benchmark.process import Interrupted, describe_exit, run_child
    from swin_umamba_nnunet.benchmark.runner import shown, wrapped
    from swin_umamba_nnunet.datasets.brain import FILE_ENDING, SLABS, write_brain_dataset
    from swin_umamba_nnunet.pictures.overlay import overview

    if not (folder / "nnUNet_raw" / run.dataset).exists():
        begin("data")
        write_brain_dataset(folder / "nnUNet_raw")
    data, log = folder / "nnUNet_preprocessed" / run.dataset, folder / "logs" / "plan.log"
    # what nnU-Net writes last of a case, and last of all: a training without the masks fails as it validates
    made = ("nnUNetPlans_2d/{}.pkl", "gt_segmentations/{}" + FILE_ENDING)
    cases = [slab.case for slab in SLABS if not slab.held_out]
    again = "once that is put right, run the same command again to go on"
    if not all((data / file.format(case)).is_file() for file in made for case in cases):
        begin("plan", _PLAN)
        code = run_child(wrapped(_PLAN), {}, log, echo=True)
        if code != 0:
            raise UserError(f"{_PLAN[0]} {describe_exit(code)}; what it said is above and in {log}; {again}", 1)
    settings = {"output": str(run.output), "datasets": [run.dataset], "trainers": [run.row.name], "test": True}
    prepared = prepare({**settings, "device": device})
    prepared.write()
    (job,) = prepared.jobs
    changes = job.changes()
    done = job.is_done() and not changes
    if changes:
        print(f"Training anew: the one that is here was made with something else ({'; '.join(changes)})")
    outcome = run_job(
        job, rerun=True, echo=True, listener=lambda job, said, command: begin(said.split()[0], shown(command))
    )
    if outcome == "interrupted":
        raise Interrupted
    if outcome != "done":
        error = job.read().get("error") or {"reason": f"the run is {outcome}", "step": "train"}
        raise UserError(f"{error['reason']}; what it said is above and in {job.log(error['step'])}; {again}", 1)
    dice, picture, text = _dice(job.evaluation), folder / f"{run.row.name}.png", folder / f"{run.row.name}.txt"
    mean = dice["mean"].iloc[-1]
    table = dice.to_string(float_format="{:.3f}".format)
    text.write_text(f"{table}\n", encoding="utf-8")
    if not (done and picture.is_file()):
        begin("picture")
        title = f"{run.row.name}, mean foreground Dice on held-out slabs: {mean:.3f}"
        overview(job.images, job.references, job.predictions, picture, title, log=job.read()["curves"])
    begin("")
    print(f"\n{table}\n\npicture      {picture}\ntable        {text}\npredictions  {job.predictions}")
    print(f"model        {job.model.parent}")
    print("\nOne averaged brain is a smoke test, not a benchmark: this shows that training and prediction work here.")
    if run.row.name == f"{DEFAULT_TRAINER}_demo" and mean < EXPECTED_DICE:
        raise UserError(
            f"the mean Dice is {mean:.3f} and {EXPECTED_DICE} or more was expected; `swin-umamba doctor` may find out "
            "what is wrong",
            exit_code=1,
        )
    own = catalogue.get_trainer(run.row.name)
    full_length = next((each for each in catalogue.TRAINERS if each.scratch == own.name), own)  # from ImageNet
    print(
        f"For your own data use a trainer of full length ({full_length.epochs} epochs, which take a GPU):   "
        f"nnUNetv2_train DATASET 2d FOLD -tr {full_length.name}"
    )


def _dice(evaluation: Path) -> "pd.DataFrame":
    """Dice of every held-out slab and class, with their means; the last is the mean over all."""
    import pandas as pd

    scores = pd.read_csv(evaluation / "metrics.csv").query("metric == 'Dice'")
    dice = scores.pivot(index="case", columns="class", values="value").rename_axis(index=None, columns="Dice")
    dice["mean"] = dice.mean(axis=1)
    dice.loc["all"] = dice.mean()
    return dice
