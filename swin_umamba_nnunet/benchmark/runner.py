"""One cell: train, predict, evaluate; what is complete is kept, what was interrupted goes on."""

import contextlib
import os
import platform
import shutil
import statistics
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout

from swin_umamba_nnunet.benchmark import commands
from swin_umamba_nnunet.benchmark.child import Interrupted, describe_exit, run_child, tail
from swin_umamba_nnunet.benchmark.commands import Task
from swin_umamba_nnunet.benchmark.files import now, read_json
from swin_umamba_nnunet.benchmark.inputs import differences
from swin_umamba_nnunet.benchmark.runs import Run

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_previous.pth", "checkpoint_best.pth")
_SECONDS_FOR_LOCK = 2.0  # `status` holds a lock for a moment to see whether somebody else does


class StepFailed(Exception):
    """A step of a cell went wrong.

    Attributes:
        step, exit_code: which, and how it ended (0 if it ended well but left no output).
        reason: in words.
    """

    def __init__(self, step: str, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.step, self.exit_code, self.reason = step, exit_code, reason


def changes(task: Task) -> list[str]:
    """In what the recorded inputs of a cell differ from the present ones, if anything was made of them.

    A cell that failed before its first checkpoint has nothing to keep or to lose, so it simply starts again, as after
    a mistake in a trainer has been put right.
    """
    cell = task.cell
    recorded = cell.read().get("inputs")
    made_something = _has_checkpoint(cell) or cell.predictions.is_dir()
    return differences(recorded, task.inputs) if recorded and made_something else []


def is_done(task: Task) -> bool:
    """Whether the cell is finished and its outputs are all there.

    The checkpoint is not asked for: who deletes it to make room does not want to train again.
    """
    cell = task.cell
    return cell.read()["state"] == "done" and cell.is_predicted(task.cases, task.file_ending) and cell.is_evaluated()


def run_cell(task: Task, gpus: tuple[int, ...] = (), stop: threading.Event | None = None, rerun: bool = False) -> str:
    """Bring a cell to its end if nobody else is at it.

    Args:
        task: the cell.
        gpus: numbers of those it may use; () leaves that to CUDA_VISIBLE_DEVICES.
        stop: ends it cleanly when set.
        rerun: start anew if its inputs have changed.

    Returns:
        "done", "failed", "interrupted" (by `stop`, or because somebody ended the child), "changed" (its inputs, and
        `rerun` was not asked for), or "busy" (another process runs it).
    """
    lock = task.cell.lock()
    try:
        lock.acquire(timeout=_SECONDS_FOR_LOCK)
    except Timeout:
        return "busy"
    try:
        if changes(task):
            if not rerun:
                return "changed"
            shutil.rmtree(task.cell.folder)
        if is_done(task):
            return "done"
        return _run(task, gpus, stop)
    finally:
        lock.release()


def _run(task: Task, gpus: tuple[int, ...], stop: threading.Event | None) -> str:
    cell = task.cell

    def predicted() -> bool:
        return cell.is_predicted(task.cases, task.file_ending)

    attempts = cell.read().get("attempts", 0) + 1
    cell.update(
        state="running", inputs=dict(task.inputs), label=cell.row.label, attempts=attempts, host=platform.node(),
        pid=os.getpid(), slurm_job=_slurm_job(), gpus=list(gpus), epochs=task.epochs,
        started=cell.read().get("started") or now(), finished=None, interrupted=False, error=None, cost=task.cost,
    )  # fmt: skip
    try:
        _step(task, "train", lambda: cell.is_trained() or predicted(), _train, gpus, stop)
        cell.update(training=summarise_training(read_json(cell.measured) or {}), curves=_curves(cell))
        _step(task, "predict", predicted, _predict, gpus, stop)
        cell.update(prediction=_summarise_prediction(task))
        _step(task, "evaluate", cell.is_evaluated, _evaluate, gpus, stop)
    except StepFailed as error:
        log = tail(cell.log(error.step))
        cell.update(
            state="failed", finished=now(),
            error={"step": error.step, "exit_code": error.exit_code, "reason": error.reason, "log_tail": log},
        )  # fmt: skip
        return "failed"
    except BaseException as error:  # Ctrl-C, SLURM's time limit (SystemExit), a disk that is full: it can go on later
        with contextlib.suppress(OSError):
            cell.update(state="waiting", interrupted=True)
        if isinstance(error, Interrupted):
            return "interrupted"
        raise
    cell.update(state="done", finished=now())
    return "done"


def _slurm_job() -> str | None:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def _step(
    task: Task,
    name: str,
    complete: Callable[[], bool],
    prepare: Callable[[Task], list[str]],
    gpus: tuple[int, ...],
    stop: threading.Event | None,
) -> None:
    """Run a step unless its outputs are complete; what `prepare` returns is the command."""
    cell = task.cell
    if complete():
        return
    command = prepare(task)
    cell.update(commands=[*cell.read().get("commands", []), command], step=name)
    code = run_child(command, commands.environment(task, gpus), cell.log(name), stop)
    if code != 0:
        raise StepFailed(name, code, f"{name} {describe_exit(code)}")
    if not complete():
        raise StepFailed(name, code, f"{name} ended without an error but its outputs are not all there")


def _train(task: Task) -> list[str]:
    return commands.train_command(task, resume=_has_checkpoint(task.cell))


def _has_checkpoint(cell: Run) -> bool:
    return any((cell.model / name).is_file() for name in CHECKPOINTS)


def _predict(task: Task) -> list[str]:
    cell = task.cell
    for folder in (cell.predictions, cell.evaluation, cell.images, cell.references):
        shutil.rmtree(folder, ignore_errors=True)  # a prediction cut short may have left half a file
    cell.measured_prediction.unlink(missing_ok=True)
    cell.images.mkdir(parents=True)
    cell.references.mkdir(parents=True)
    for name, case in task.cases.items():
        for channel, image in enumerate(case.images):
            _link(image, cell.images / f"{name}_{channel:04d}{task.file_ending}")
        _link(case.reference, cell.references / f"{name}{task.file_ending}")
        for folder, beside in ((cell.images, case.images[0].parent), (cell.references, case.reference.parent)):
            spacing = beside / f"{name}.json"  # nnU-Net keeps the spacing of TIFF images in such a file
            if spacing.is_file():
                _link(spacing, folder / spacing.name)
    return commands.predict_command(task)


def _evaluate(task: Task) -> list[str]:
    shutil.rmtree(task.cell.evaluation, ignore_errors=True)
    return commands.evaluate_command(task)


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source)
    except OSError:  # Windows wants a privilege for that
        shutil.copyfile(source, link)


def summarise_training(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What cell.json says about a training; times in seconds, memory in bytes."""
    curves = measured.get("curves", {})
    stamps = zip(curves.get("epoch_start_timestamps", []), curves.get("epoch_end_timestamps", []))
    seconds = [end - start for start, end in stamps]
    return {
        **{key: value for key, value in measured.items() if key not in ("curves", "updated")},
        "seconds": sum(seconds),  # of all epochs that count, validation within them included, whoever interrupted it
        "seconds_per_epoch": statistics.median(seconds) if seconds else None,
    }


def _curves(cell: Run) -> dict[str, Any]:
    return (read_json(cell.measured) or {}).get("curves", {})


def _summarise_prediction(task: Task) -> dict[str, Any]:
    """Of nnUNetv2_predict without its imports: it loads the model, preprocesses, predicts with mirroring and writes."""
    measured = read_json(task.cell.measured_prediction) or {}
    cases = len(task.cases)
    return {"cases": cases, **measured, "seconds_per_case": measured["seconds"] / cases}
