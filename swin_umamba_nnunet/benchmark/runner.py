"""One run (train, predict, evaluate) or all of them on this machine; what is complete is kept, what was interrupted
goes on, and what fails stops nothing else."""

import contextlib
import os
import platform
import shutil
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark.files import Record, now, read_json
from swin_umamba_nnunet.benchmark.jobs import Job
from swin_umamba_nnunet.benchmark.process import Interrupted, describe_exit, run_child, tail
from swin_umamba_nnunet.benchmark.runs import OURS, PREDICT, TRAIN, Run, seconds_of_epochs

_SECONDS_FOR_LOCK = 2.0  # `status` holds a lock for a moment to see whether somebody else does
_FULL_DISK = 50e6  # bytes

# Called with (job, what begins, its command) and with (job, outcome, ()), in the thread of the run.
Listener = Callable[[Job, str, Sequence[str]], None]


# ---------------------------------------------------------------------------------------- the commands of a run


def shown(command: Sequence[str]) -> list[str]:
    """What one would type in place of a run's command, which seeds and measures it."""
    return list(command[command.index("--") + 1 :])


def wrapped(command: Sequence[Any], *options: Any) -> list[str]:
    """A command of nnU-Net or this package as a step runs it, see `steps`."""
    return [*map(str, (sys.executable, "-m", "swin_umamba_nnunet.benchmark.steps", *options, "--", *command))]


def _train(job: Job) -> list[str]:
    command = [TRAIN, job.dataset, job.row.configuration, job.fold, "-tr", job.row.name, "-p", job.row.plans]
    command += ["-device", job.inputs["device"], "-num_gpus", job.row.num_gpus]
    command += ["--c"] if job.has_checkpoint() else []
    options = ["--record", job.measured, "--seed", job.seed, "--checkpoint-minutes", job.checkpoint_minutes]
    return wrapped(command, *options, *(["--validation"] if job.validation else []))


def _lay_out(job: Job) -> None:
    """Links to images, ground truth and what is given; what was there goes: half a file, if it was cut short."""
    for folder in (job.predictions, job.evaluation, job.images, job.references):
        shutil.rmtree(folder, ignore_errors=True)
    job.measured_prediction.unlink(missing_ok=True)
    job.images.mkdir(parents=True)
    job.references.mkdir(parents=True)
    for name, case in job.cases.items():
        for channel, image in enumerate(case.images):
            _link(image, job.images / f"{name}_{channel:04d}{job.file_ending}")
        _link(case.reference, job.references / f"{name}{job.file_ending}")
        for folder, beside in ((job.images, case.images[0]), (job.references, case.reference)):
            spacing = beside.with_name(f"{name}.json")  # nnU-Net keeps the spacing of TIFF images in such a file
            if spacing.is_file():
                _link(spacing, folder / spacing.name)
    for name, file in job.given.items():
        job.predictions.mkdir(exist_ok=True)
        _link(file, job.predictions / name)


def _predict(job: Job) -> list[str]:
    _lay_out(job)
    command = [PREDICT, "-i", job.images, "-o", job.predictions, "-d", job.dataset, "-c", job.row.configuration]
    command += ["-f", job.fold, "-tr", job.row.name, "-p", job.row.plans, "-chk", job.inputs["checkpoint"]]
    command += ["-device", job.inputs["device"], "--disable_progress_bar"]
    command += [] if job.inputs["mirroring"] else ["--disable_tta"]
    return wrapped(command, "--record", job.measured_prediction, "--seed", job.seed)


def _evaluate(job: Job) -> list[str]:
    if job.row.human:
        _lay_out(job)
    shutil.rmtree(job.evaluation, ignore_errors=True)
    description = (job.predictions if job.row.human else job.model.parent) / "dataset.json"
    command = [OURS, "evaluate", "-gt", job.references, "-pred", job.predictions, "-o", job.evaluation]
    return wrapped([*command, "--dataset-json", description, "--file-ending", job.file_ending])


def _link(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source)
    except OSError:  # Windows wants a privilege for that
        shutil.copyfile(source, link)


def environment(run: Run, device: str, gpus: Sequence[int] = ()) -> dict[str, str]:
    """Variables of the commands over those of this process, which keep nnUNet_raw, nnUNet_preprocessed and the like."""
    variables = {
        "nnUNet_results": str(run.results),
        _autoregister.VARIABLE: os.pathsep.join([*_autoregister.users_folders(), _autoregister.FOLDER]),
        "PYTHONHASHSEED": "0",
    }
    if gpus:  # numbered as PyTorch does, which counts those that the user left visible
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(visible[gpu] if visible else str(gpu) for gpu in gpus)
    if device == "cpu":
        usual = {
            "nnUNet_n_proc_DA": "1",  # more augmentation workers would take the cores from the training
            "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads sleep instead of spinning beside the scan's own
        }
        variables |= {name: value for name, value in usual.items() if name not in os.environ}
    return variables


# --------------------------------------------------------------------------------------------------- one run


def run_job(
    job: Job,
    gpus: Sequence[int] = (),
    stop: threading.Event | None = None,
    rerun: bool = False,
    listener: Listener = lambda *said: None,
    echo: bool = False,
) -> str:
    """Bring a run to its end if nobody else is at it.

    Args:
        job: the run.
        gpus: numbers of those it may use; () leaves that to CUDA_VISIBLE_DEVICES.
        stop: ends it cleanly when set.
        rerun: start anew if its inputs have changed.
        listener: hears of each step that begins, and its command.
        echo: show on stdout what the commands say.

    Returns:
        "done", "failed", "interrupted" (by `stop`, or because somebody ended the child), "changed" (its inputs, and
        `rerun` was not asked for), or "busy" (another process runs it).
    """
    try:
        with job.lock().acquire(timeout=_SECONDS_FOR_LOCK):
            if job.changes():
                if not rerun:
                    return "changed"
                shutil.rmtree(job.folder)
            return "done" if job.is_done() else _run(job, gpus, stop, listener, echo)
    except Timeout:
        return "busy"


def _run(job: Job, gpus: Sequence[int], stop: threading.Event | None, listener: Listener, echo: bool) -> str:
    before = job.read()
    job.update(
        state="running",
        inputs=job.inputs,
        label=job.row.label,
        attempts=before.get("attempts", 0) + 1,
        host=platform.node(),
        pid=os.getpid(),
        slurm_job=_slurm_job(),
        gpus=gpus,
        epochs=job.recipe.get("epochs"),
        cost=job.recipe.get("cost"),
        started=before.get("started") or now(),
        finished=None,
        interrupted=False,
        error=None,
    )
    steps: tuple[tuple[str, str, Callable, Callable, Callable], ...] = (
        ("train", _training(job), lambda: job.is_trained() or job.is_predicted(), _train, _trained),
        ("predict", "predicting", job.is_predicted, _predict, _predicted),
        ("evaluate", "evaluating", job.is_evaluated, _evaluate, lambda job: {}),
    )[2 if job.row.human else 0 :]
    try:
        for name, doing, complete, make_command, summary in steps:
            if not complete():
                command = make_command(job)
                listener(job, doing, command)
                job.update(commands=[*job.read().get("commands", []), command], step=name)
                code = run_child(command, environment(job, job.inputs["device"], gpus), job.log(name), stop, echo)
                if code != 0 or not complete():
                    reason = describe_exit(code) if code else "ended without an error but its outputs are not all there"
                    if shutil.disk_usage(job.output).free < _FULL_DISK:
                        reason += f"; the disk of {job.output} is full"
                    error = {"step": name, "exit_code": code, "reason": f"{name} {reason}"}
                    job.update(state="failed", finished=now(), error={**error, "log_tail": tail(job.log(name))})
                    return "failed"
            job.update(**summary(job))
    except BaseException as error:  # Ctrl-C, SLURM's time limit (SystemExit), a disk that is full: it can go on later
        with contextlib.suppress(OSError):
            job.update(state="waiting", interrupted=True)
        if isinstance(error, Interrupted):
            return "interrupted"
        raise
    job.update(state="done", finished=now())
    return "done"


def _slurm_job() -> str | None:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def _training(job: Job) -> str:
    epoch = job.training().get("epoch")
    return f"training goes on after epoch {epoch}" if epoch and job.has_checkpoint() else "training"


def _trained(job: Job) -> Record:
    """What cell.json says about a training; times in seconds, memory in bytes."""
    measured = job.training()
    seconds = seconds_of_epochs(measured)
    per_epoch = statistics.median(seconds) if seconds else None
    training = {key: value for key, value in measured.items() if key not in ("curves", "updated")}
    training |= {"seconds": sum(seconds), "seconds_per_epoch": per_epoch}
    return {"training": training, "curves": measured.get("curves", {})}


def _predicted(job: Job) -> Record:
    """Of nnUNetv2_predict without its imports: it loads the model, preprocesses, predicts with mirroring and writes."""
    measured, cases = read_json(job.measured_prediction), len(job.cases)
    return {"prediction": {"cases": cases, **measured, "seconds_per_case": measured["seconds"] / cases}}


# ------------------------------------------------------------------------------------------- all on this machine


def run_here(
    jobs: Sequence[Job],
    gpus: Sequence[int] = (),
    rerun: bool = False,
    listener: Listener = lambda *said: None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run all; returns name of run -> outcome.  Ctrl-C ends the children first and is then raised.

    An outcome is one of those of `run_job`, or "error: ..." for what should not happen (a full disk).

    Args:
        jobs: in order.
        gpus: run as many at a time as these GPUs take; () for one at a time.
        rerun: start runs anew whose inputs have changed.
        listener: hears of every step and every outcome, in the thread of the run.
        tick: called several times a second in the thread of the caller.
    """
    outcomes: dict[str, str] = {}
    threads: list[threading.Thread] = []
    stop, changed, free = threading.Event(), threading.Event(), list(gpus or [0])

    def work(job: Job, own: list[int]) -> None:
        outcome = "error: ended without an outcome"
        try:
            outcome = run_job(job, own if gpus else (), stop, rerun, listener)
        except Exception as error:  # noqa: BLE001 (one run must not stop the others)
            outcome = f"error: {type(error).__name__}: {error}"
        finally:
            try:
                listener(job, outcome, ())
            finally:  # or the caller would wait for ever
                outcomes[job.name] = outcome
                free.extend(own)
                changed.set()

    def wait(ready: Callable[[], bool]) -> None:
        # in short waits, because a wait without end in the main thread would not hear Ctrl-C on every platform
        while not ready():
            tick()
            changed.wait(0.2)
            changed.clear()

    try:
        for job in jobs:
            wanted = job.row.num_gpus if gpus else 1
            wait(lambda wanted=wanted: len(free) >= wanted)  # type: ignore[misc]
            own = [free.pop(0) for _ in range(wanted)]
            threads.append(threading.Thread(target=work, args=(job, own), name=job.name))
            threads[-1].start()
        wait(lambda: len(outcomes) == len(jobs))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return outcomes
