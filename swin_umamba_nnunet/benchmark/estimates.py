"""How long a training will take and what memory it needs: from cells that have run, from a few iterations, or not."""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.child import run_child, tail
from swin_umamba_nnunet.benchmark.commands import Task, environment
from swin_umamba_nnunet.benchmark.files import read_json, write_json
from swin_umamba_nnunet.benchmark.plan import Plan

# Weights, gradients and an optimiser's two moments (one for SGD), all float32.
_STATES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Estimate:
    """What one cell's training will take.

    Attributes:
        seconds: of all epochs, without loading data where they were `timed`; None if nothing is known.
        memory_bytes: at the peak; None if nothing is known.
        basis: "measured" (a cell of the same row and dataset has run), "timed" (a few iterations), "counted" (memory
            alone: activations and weights in float32, more than mixed precision takes), or "unknown".
        error: why iterations could not be timed.
    """

    seconds: float | None
    memory_bytes: int | None
    basis: str
    error: str = ""


def estimate(
    plan: Plan, time_iterations: int = 0, said: Callable[[str], None] = lambda text: None
) -> dict[str, Estimate]:
    """An estimate for every dataset and row: "DATASET ROWKEY" -> estimate.

    Args:
        plan: the benchmark.
        time_iterations: how many iterations to time where no cell has run; 0 for none.
        said: is told what is about to be timed.
    """
    same: dict[str, list[Task]] = {}
    for task in plan.tasks:
        same.setdefault(f"{task.cell.dataset} {task.cell.row.key}", []).append(task)
    found = {}
    for number, (key, tasks) in enumerate(same.items(), 1):
        guess = _measured(tasks)
        if guess is None and time_iterations:
            cell = tasks[0].cell
            said(f"[{number}/{len(same)}] timing {time_iterations} iterations of {cell.row.label} on {cell.dataset}")
            guess = _timed(plan, tasks[0], time_iterations)
        found[key] = guess or _counted(tasks[0])
    return found


def _measured(tasks: Sequence[Task]) -> Estimate | None:
    for task in tasks:
        training = task.cell.read().get("training")
        if training and training.get("seconds_per_epoch"):
            seconds = training["seconds_per_epoch"] * training["epochs"]
            return Estimate(seconds, training.get("peak_memory_bytes"), "measured")
    return None


def _counted(task: Task, error: str = "") -> Estimate:
    if not task.cost:
        return Estimate(None, None, "unknown", error)
    states = _STATES_PER_PARAMETER * task.cost["parameter_bytes"]
    return Estimate(None, task.cost["activation_bytes"] + states, "counted", error)


def _timed(plan: Plan, task: Task, iterations: int) -> Estimate:
    cell, recipe = task.cell, plan.recipe(task)
    row = {"name": cell.row.name, "plans": cell.row.plans, "configuration": cell.row.configuration, "key": cell.row.key}
    with tempfile.TemporaryDirectory() as folder:
        asked, answered, log = (Path(folder, name) for name in ("row.json", "answer.json", "log"))
        write_json(asked, row)
        module = "swin_umamba_nnunet.benchmark.timing"
        arguments = (cell.dataset, str(asked), plan.device, str(iterations), str(answered))
        # what a cell's commands run in: threads that spin while they wait make a CPU's iterations ten times as long
        variables = {**environment(task), "nnUNet_wandb_enabled": "0"}
        code = run_child([sys.executable, "-m", module, *arguments], variables, log)
        answer: Mapping[str, Any] | None = read_json(answered)
        if code != 0 or answer is None:
            return _counted(task, tail(log, 1) or f"exit code {code}")
    per_epoch = (
        recipe["iterations_per_epoch"] * answer["seconds_per_iteration"]
        + recipe["validation_iterations_per_epoch"] * answer["seconds_per_validation_iteration"]
    )
    return Estimate(recipe["epochs"] * per_epoch, answer["peak_memory_bytes"], "timed")
