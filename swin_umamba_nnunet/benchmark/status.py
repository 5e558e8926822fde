"""How far a benchmark has come: read from its folder, by anybody, while it runs."""

import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.benchmark.files import read_json
from swin_umamba_nnunet.benchmark.runs import Run, read_benchmark
from swin_umamba_nnunet.benchmark.slurm import queued_cells


@dataclass(frozen=True)
class CellStatus:
    """One cell.

    Attributes:
        cell: which.
        state: "done", "running", "failed", "queued" (in SLURM), "interrupted" (goes on with the next run), "waiting".
        step: "train", "predict" or "evaluate", of a running cell.
        epoch, epochs: trained so far, of how many; None where that is not known.
        seconds_per_epoch: median so far, or that of another cell of the same row and dataset.
        left: seconds of training still to go, prediction not counted; None where not known.
        note: host, job, or what went wrong.
    """

    cell: Run
    state: str
    step: str
    epoch: int | None
    epochs: int | None
    seconds_per_epoch: float | None
    left: float | None
    note: str


def read_status(output: Path) -> list[CellStatus]:
    """The state of every cell of the benchmark in a folder.

    Raises:
        MatrixError: see `read_benchmark`, or a cell's files are damaged.
    """
    benchmark = read_benchmark(output)
    cells = benchmark.runs
    queued = queued_cells(output)
    measured = {cell.name: read_json(cell.measured) or {} for cell in cells}
    speeds: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        if (seconds := _seconds_per_epoch(measured[cell.name])) is not None:
            speeds.setdefault((cell.dataset, cell.row.key), []).append(seconds)
    recipes = benchmark.content.get("recipes", {})
    return [
        _status(
            cell, measured[cell.name], queued.get(cell.name), speeds.get((cell.dataset, cell.row.key), []),
            recipes.get(f"{cell.dataset} {cell.row.key}", {}).get("epochs"),
        )
        for cell in cells
    ]  # fmt: skip


def render(statuses: Sequence[CellStatus]) -> str:
    """A table, and a line that sums it up."""
    head = ("dataset", "row", "fold", "seed", "state", "epoch", "s/epoch", "left", "")
    lines = [head, *(_line(status) for status in statuses)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines)
    counts = Counter(status.state for status in statuses)
    said = ", ".join(f"{count} {state}" for state, count in counts.most_common())
    return f"{table}\n\n{len(statuses)} cells: {said}; {time_left(statuses)}"


def time_left(statuses: Sequence[CellStatus]) -> str:
    """A sentence about the training still to do, at the number of cells that run at present."""
    open_cells = [status for status in statuses if status.state != "done"]
    if not open_cells:
        return "nothing left to do"
    known = [status.left for status in open_cells if status.left is not None]
    at_once = max(1, sum(status.state == "running" for status in open_cells))
    unknown = len(open_cells) - len(known)
    if not known:
        return "time left not known before the first epoch has ended"
    also = f", and {unknown} cells of which no epoch has been timed" if unknown else ""
    left = clock(sum(known) / at_once)
    return f"about {left} of training left with {at_once} at a time{also} (prediction not counted)"


def clock(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s"


def _status(
    cell: Run, measured: Mapping[str, Any], queued: tuple[str, str] | None, speeds: Sequence[float], epochs: int | None
) -> CellStatus:
    record = cell.read()
    state, note = record["state"], ""
    abandoned = state == "running" and not _is_locked(cell)
    if abandoned or (state == "waiting" and record.get("interrupted")):
        state = "interrupted"
    if state == "running":
        note = f"on {record.get('host')}" + (f", job {record['slurm_job']}" if record.get("slurm_job") else "")
        silent = time.time() - measured.get("updated", time.time())
        own = _seconds_per_epoch(measured)
        if record.get("step") == "train" and own and silent > 10 * own + 60:
            note += f", no epoch for {clock(silent)}"
    elif queued and state != "done":
        state, note = "queued", f"job {queued[0]} is {queued[1].lower()}"
    elif state == "failed":
        note = record["error"].get("reason") or f"{record['error']['step']} failed"
    epochs = measured.get("epochs", epochs)
    epoch = measured.get("epoch", 0)
    own = _seconds_per_epoch(measured)
    seconds = own if own is not None else (statistics.median(speeds) if speeds else None)
    left = 0.0 if state == "done" else None
    if state != "done" and seconds is not None and epochs is not None:
        left = (epochs - epoch) * seconds
    step = record.get("step", "") if state == "running" else ""
    return CellStatus(cell, state, step, epoch, epochs, seconds, left, note)


def _is_locked(cell: Run) -> bool:
    """Whether a runner is at the cell.  Takes the lock for a moment, which runners wait out."""
    lock = cell.lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _seconds_per_epoch(measured: Mapping[str, Any]) -> float | None:
    curves = measured.get("curves", {})
    ends = curves.get("epoch_end_timestamps", [])
    seconds = [end - start for start, end in zip(curves.get("epoch_start_timestamps", []), ends)]
    return statistics.median(seconds) if seconds else None


def _line(status: CellStatus) -> tuple[str, ...]:
    cell = status.cell
    seconds = f"{status.seconds_per_epoch:.1f}" if status.seconds_per_epoch is not None else ""
    state = f"{status.state} ({status.step})" if status.step else status.state
    epoch = "" if status.epochs is None else f"{status.epoch}/{status.epochs}"
    left = clock(status.left) if status.left and status.state != "done" else ""
    shown = (cell.dataset, cell.row.label, str(cell.fold), str(cell.seed), state, epoch, seconds, left, status.note)
    return tuple(map(printable, shown))
