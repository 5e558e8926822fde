"""How far a benchmark has come: read from its folder, by anybody, while it runs."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet._text import duration, plural, printable, table
from swin_umamba_nnunet.benchmark.runs import Run, read_benchmark, seconds_of_epochs
from swin_umamba_nnunet.benchmark.slurm import queued_runs

HEAD = ("dataset", "row", "fold", "seed", "state")


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        run: which.
        state: "done", "running", "failed", "queued" (in SLURM), "interrupted" (goes on with the next start), "waiting".
        step: "train", "predict" or "evaluate", of one that runs.
        epoch, epochs: trained so far, of how many; None where that is not known.
        seconds_per_epoch: median so far, or that of another run of the same row and dataset.
        note: host, job, or what went wrong.
    """

    run: Run
    state: str
    step: str
    epoch: int
    epochs: int | None
    seconds_per_epoch: float | None
    note: str

    @property
    def left(self) -> float | None:
        """Seconds of training still to go, prediction not counted; None where not known."""
        if self.state == "done" or self.run.row.human:
            return 0.0
        if self.seconds_per_epoch is None or self.epochs is None:
            return None
        return (self.epochs - self.epoch) * self.seconds_per_epoch


def read_status(output: Path) -> list[RunStatus]:
    """The state of every run of the benchmark in a folder.

    Raises:
        BenchmarkError: see `read_benchmark`, or a run's files are damaged.
    """
    benchmark = read_benchmark(output)
    queued, recipes = queued_runs(output), benchmark.content.get("recipes", {})
    measured = {run: (training := run.training(), seconds_of_epochs(training)) for run in benchmark.runs}
    speeds: dict[str, list[float]] = {}
    for run, (_, seconds) in measured.items():
        if seconds:
            speeds.setdefault(run.pair, []).append(statistics.median(seconds))
    statuses = []
    for run, (training, own) in measured.items():
        record = run.read()
        state, note = record["state"], ""
        if (state == "running" and not _is_locked(run)) or (state == "waiting" and record.get("interrupted")):
            state = "interrupted"
        if state == "running":
            note = f"on {record.get('host')}" + (f", job {record['slurm_job']}" if record.get("slurm_job") else "")
            silent = time.time() - training.get("updated", time.time())
            if record.get("step") == "train" and own and silent > 10 * statistics.median(own) + 60:
                note += f", no epoch for {duration(silent)}"
        elif state != "done" and run.name in queued:
            job, said = queued[run.name]
            state, note = "queued", f"job {job} is {said.lower()}"
        elif state == "failed":
            note = record["error"].get("reason") or f"{record['error']['step']} failed"
        step = record.get("step", "") if state == "running" else ""
        epochs = training.get("epochs", recipes.get(run.pair, {}).get("epochs"))
        known = own or speeds.get(run.pair)
        per_epoch = statistics.median(known) if known else None
        statuses.append(RunStatus(run, state, step, training.get("epoch", 0), epochs, per_epoch, note))
    return statuses


def _is_locked(run: Run) -> bool:
    """Whether a runner is at it, or it cannot be told.  Takes the lock for a moment, which runners wait out."""
    try:
        with run.lock().acquire(timeout=0):
            return False
    except OSError:  # somebody holds it (filelock's Timeout); or who looks may not write into another's folder
        return True


def render(statuses: Sequence[RunStatus]) -> str:
    """A table, and a line that sums it up."""
    lines = table([(*HEAD, "epoch", "s/epoch", "left", ""), *map(_line, statuses)])
    counts = Counter(status.state for status in statuses)
    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return "\n".join([*lines, "", f"{plural(len(statuses), 'run')}: {said}; {time_left(statuses)}"])


def identity(run: Run, state: str) -> tuple[str, ...]:
    """The columns of `HEAD`."""
    return tuple(map(printable, (run.dataset, run.row.label, str(run.fold), run.shown_seed, state)))


def _line(status: RunStatus) -> tuple[str, ...]:
    state = f"{status.state} ({status.step})" if status.step else status.state
    epoch = "" if status.epochs is None else f"{status.epoch}/{status.epochs}"
    seconds = f"{status.seconds_per_epoch:.1f}" if status.seconds_per_epoch is not None else ""
    left = duration(status.left) if status.left else ""
    return (*identity(status.run, state), epoch, seconds, left, printable(status.note))


def time_left(statuses: Sequence[RunStatus]) -> str:
    """A sentence about the training still to do, at the number of runs that are under way at present."""
    todo = [status for status in statuses if status.left != 0]
    known = [status.left for status in todo if status.left is not None]
    if not todo:
        return "nothing left to train"
    if not known:
        return "time left not known before the first epoch has ended"
    at_once = max(1, sum(status.state == "running" for status in todo))
    also = f", and {plural(len(todo) - len(known), 'run')} of which no epoch has been timed"
    also = also if len(known) < len(todo) else ""
    left = duration(sum(known) / at_once)
    return f"about {left} of training left with {at_once} at a time{also} (prediction not counted)"
