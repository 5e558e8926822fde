"""`swin-umamba demo`: nnU-Net's own commands, from raw data to scores, on brain MRI that needs no download."""

import argparse
import errno
import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet.cli._demo import picture, runner, scores, steps
from swin_umamba_nnunet.cli._demo.workspace import Workspace
from swin_umamba_nnunet.cli.errors import CliError
from swin_umamba_nnunet.datasets.brain import INSTALL_LINE

DEFAULT_TRAINER = "nnUNetTrainerSwinUMambaDScratch"
DEFAULT_WORK = "swin-umamba-demo"
_AUGMENTATION_WORKERS = "nnUNet_n_proc_DA"  # nnU-Net's environment variable
EXPECTED_DICE = 0.85  # what the default trainer reaches; less means that something is wrong with the installation

DESCRIPTION = f"""\
Train, predict and evaluate with nnU-Net's own commands, each printed before it runs, on slabs of the MNI152 brain
(real MRI that comes inside the nilearn package; nothing is downloaded).  It takes about eight minutes on two CPU
cores, and 0.7 GB of disk in the end (1.3 GB while it runs).  Interrupt it with Ctrl-C and run it again to go on
where it stopped.

Everything goes into one folder (./{DEFAULT_WORK} unless you say otherwise); your own nnUNet_raw, nnUNet_preprocessed
and nnUNet_results are not touched.  One averaged brain is a smoke test and not a benchmark.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--work", type=Path, default=Path(DEFAULT_WORK), metavar="DIR",
                        help="folder for everything the demo writes (default: ./%(default)s)")  # fmt: skip
    parser.add_argument("--trainer", default=DEFAULT_TRAINER, metavar="TRAINER",
                        help="which trainer to show, see `swin-umamba list`; it runs in its short _demo variant unless "
                             "the name asks for another length (default: %(default)s)")  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where to train and predict; auto takes a usable NVIDIA GPU, else the CPU")  # fmt: skip
    parser.add_argument("--fresh", action="store_true",
                        help="delete what an earlier demo left in the work folder and start anew")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check everything that can be checked, the quick checks first, then go through the steps that are not done yet.

    Returns:
        0.

    Raises:
        CliError: a check or a step failed, or the default trainer's score is too low.
    """
    record, trainer = _resolve_trainer(args.trainer)
    _check_installed()
    folder = args.work.expanduser().absolute()
    workspace = Workspace(folder, steps.ORDER)
    workspace.inspect()
    device = _resolve_device(args.device)
    picture_file, table_file = folder / f"{trainer}.png", folder / f"{trainer}.txt"
    todo = steps.demo_steps(
        workspace, trainer, device, lambda: _draw(workspace, trainer, picture_file, table_file), picture_file
    )
    if args.fresh or not steps.can_continue(workspace, trainer):
        _ensure_weights(record)
    workspace.claim(_bytes_needed(workspace, todo, record, args.fresh), args.fresh)
    try:
        additions = runner.child_environment(_settings(workspace, device))
        _print_introduction(trainer, device, folder, additions)
        _go_through(todo, workspace, additions)
        _print_result(workspace, trainer, picture_file, table_file)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CliError(f"the disk of {folder} is full; make room and run the same command again to go on") from error
    finally:
        workspace.release()
    return 0


def _resolve_trainer(name: str) -> tuple[catalogue.TrainerRecord, str]:
    """What the catalogue says about the trainer asked for, and the name of the variant to run."""
    try:
        record = catalogue.get_trainer(name)
    except ValueError as error:
        raise CliError(str(error)) from error
    return record, name + "_demo" if name == record.name else name


def _ensure_weights(record: catalogue.TrainerRecord) -> None:
    """Fetch and check the ImageNet weights that a pretrained trainer starts from."""
    if record.weights is None:
        return
    from swin_umamba_nnunet import pretrained

    try:
        pretrained.ensure_weights(record.weights, scratch_trainer=record.scratch)
    except pretrained.WeightsError as error:
        raise CliError(str(error)) from error


def _check_installed() -> None:
    missing = [name for name in ("nilearn", "nibabel") if importlib.util.find_spec(name) is None]
    if missing:
        raise CliError(
            f"the demo's MRI comes inside the nilearn package, and {missing[0]} is not installed; get it with   "
            + INSTALL_LINE
        )
    for command in ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder"):
        runner.find_command(command)


def _resolve_device(asked: str) -> str:
    if asked == "cpu":
        return "cpu"
    import torch

    from swin_umamba_nnunet import ops

    if not torch.cuda.is_available():
        if asked == "cuda":
            raise CliError("--device cuda was asked for, but PyTorch finds no NVIDIA GPU here; use --device cpu")
        return "cpu"
    try:
        ops.resolve_backend(None, "cuda")
    except ops.BackendUnavailableError as error:
        if asked == "cuda":
            raise CliError(f"--device cuda was asked for, but {error}") from error
        print(f"There is a GPU, but the demo runs on the CPU: {error}")
        return "cpu"
    return "cuda"


def _bytes_needed(
    workspace: Workspace, todo: Sequence[steps.Step], record: catalogue.TrainerRecord, fresh: bool
) -> int:
    # three checkpoints at most (best, latest, final) of parameters and AdamW's two moments, 4 bytes each
    gigabytes = 3 * 3 * 4 * record.parameters_million / 1000 + 0.3
    trains = any(step.needs_space and (fresh or not workspace.is_done(step.key, step.output)) for step in todo)
    return int((gigabytes if trains else 0.1) * 1e9)


def _settings(workspace: Workspace, device: str) -> dict[str, str]:
    """nnU-Net's environment variables for the child processes, and only for them."""
    settings = {
        "nnUNet_raw": str(workspace.raw),
        "nnUNet_preprocessed": str(workspace.preprocessed),
        "nnUNet_results": str(workspace.results),
        "nnUNet_def_n_proc": steps.WORKERS,
    }
    if device == "cpu":
        settings[_AUGMENTATION_WORKERS] = "1"  # more augmentation workers would take the cores from the training
        settings["OMP_WAIT_POLICY"] = "PASSIVE"  # a tenth slower alone, several times faster where cores are shared
    else:
        settings["nnUNet_compile"] = "f"  # compiling takes longer than the whole short training
        if os.environ.get(_AUGMENTATION_WORKERS, "").strip() == "0":  # as set for trainings that can be repeated
            settings[_AUGMENTATION_WORKERS] = "1"  # nnU-Net's planner fails with none (2.8)
    return settings


def _go_through(todo: Sequence[steps.Step], workspace: Workspace, additions: dict[str, str]) -> None:
    began = time.monotonic()
    for number, step in enumerate(todo, 1):
        head = f"[{number}/{len(todo)}]"
        if workspace.is_done(step.key, step.output):
            print(f"\n{head} {step.title}: done already, skipped", flush=True)
            continue
        print(f"\n{head} {step.title}   ({_clock(time.monotonic() - began)} so far)", flush=True)
        step_began = time.monotonic()
        try:
            _do(step, head, workspace, additions)
        except KeyboardInterrupt:
            raise CliError(
                f"interrupted in step {number} of {len(todo)}; run the same command again to go on", 130
            ) from None
        print(f"{head} done in {_clock(time.monotonic() - step_began)}", flush=True)


def _do(step: steps.Step, head: str, workspace: Workspace, additions: dict[str, str]) -> None:
    further = step.prepare()  # looks at what an interrupted run left, so before this one is recorded
    workspace.start(step.key)
    if step.command:
        command = [*step.command, *further]
        print(f"\n    {runner.command_line(command)}\n", flush=True)
        log = workspace.logs / f"{step.key.replace(':', '_')}.log"
        exit_code = runner.run_command(command, additions, log)
        if exit_code != 0:
            full = " because the disk is full" if workspace.free_bytes() < 50e6 else ""
            raise CliError(
                f"{command[0]} failed{full} with exit code {exit_code}; what it said is above and in {log}. "
                "Once that is put right, run the same command again to go on",
                exit_code=1,
            )
    step.action()
    if not step.output.exists():
        raise CliError(f"the step ended without an error but did not write {step.output}", exit_code=1)
    workspace.finish(step.key)


def _draw(workspace: Workspace, trainer: str, picture_file: Path, table_file: Path) -> None:
    predictions, dataset = workspace.predictions(trainer), workspace.dataset
    result = scores.read_scores(predictions / "summary.json")
    slices = [
        picture.read_slice(case, dataset / "imagesTs", dataset / "labelsTs", predictions) for case in result.cases
    ]
    curve = picture.read_curve(workspace.model(trainer) / "fold_0" / "checkpoint_final.pth")
    table_file.write_text(scores.format_table(result) + "\n", encoding="utf-8")
    picture.draw_picture(slices, result, curve, trainer, picture_file)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"


def _print_introduction(trainer: str, device: str, folder: Path, additions: dict[str, str]) -> None:
    print(f"Demo of {trainer} on the {device.upper()}, in {folder}")
    print("\nThe nnU-Net commands below are run with these settings (type them once to run the commands yourself):\n")
    print("\n".join(f"    {line}" for line in runner.export_lines(additions)), flush=True)


def _print_result(workspace: Workspace, trainer: str, picture_file: Path, table_file: Path) -> None:
    result = scores.read_scores(workspace.predictions(trainer) / "summary.json")
    print(f"\n{scores.format_table(result)}\n")
    print(f"picture      {picture_file}\ntable        {table_file}\npredictions  {workspace.predictions(trainer)}")
    print(f"model        {workspace.model(trainer)}")
    print("\nOne averaged brain is a smoke test, not a benchmark: this shows that training and prediction work here.")
    if trainer == DEFAULT_TRAINER + "_demo" and result.foreground < EXPECTED_DICE:
        raise CliError(
            f"the mean Dice is {result.foreground:.3f} and {EXPECTED_DICE} or more was expected; "
            "`swin-umamba doctor` may find out what is wrong",
            exit_code=1,
        )
    full_length = catalogue.get_trainer(trainer).name
    print(f"For your own data use the trainer of full length:   nnUNetv2_train DATASET 2d FOLD -tr {full_length}")
