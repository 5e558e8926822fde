"""How long a training will take and what memory it needs: from runs that there are, from a few iterations, or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swin_umamba_nnunet.benchmark.files import BenchmarkError
from swin_umamba_nnunet.benchmark.jobs import Job, Prepared
from swin_umamba_nnunet.benchmark.process import ask
from swin_umamba_nnunet.benchmark.runner import environment

# Weights, gradients and an optimiser's two moments (one for SGD), all float32.
_STATES_PER_PARAMETER = 4


@dataclass(frozen=True)
class Estimate:
    """What one run's training will take.

    Attributes:
        seconds: of all epochs, without loading data where they were `timed`; None if nothing is known.
        memory_bytes: at the peak; None if nothing is known.
        basis: "measured" (one of the same row and dataset has trained), "timed" (a few iterations), "counted" (memory
            alone: activations and weights in float32, more than mixed precision takes), "human" (nothing to train), or
            "unknown".
        error: why iterations could not be timed.
    """

    seconds: float | None
    memory_bytes: int | None
    basis: str
    error: str = ""


def estimate(
    prepared: Prepared, time_iterations: int = 0, said: Callable[[str], None] = lambda text: None
) -> dict[str, Estimate]:
    """An estimate for every dataset and row: "DATASET ROWKEY" -> estimate.

    Args:
        prepared: the benchmark.
        time_iterations: how many iterations to time where nothing has run; 0 for none.
        said: is told what is about to be timed.
    """
    same: dict[str, list[Job]] = {}
    for job in prepared.jobs:
        same.setdefault(job.pair, []).append(job)
    found = {}
    for number, (key, (job, *_)) in enumerate(same.items(), 1):
        guess = Estimate(0.0, None, "human") if job.row.human else _measured(same[key])
        if guess is None and time_iterations:
            said(f"[{number}/{len(same)}] timing {time_iterations} iterations of {job.row.label} on {job.dataset}")
            guess = _timed(prepared, job, time_iterations)
        found[key] = guess or _counted(job)
    return found


def _measured(jobs: Sequence[Job]) -> Estimate | None:
    for job in jobs:
        training = job.read().get("training")
        if training and training.get("seconds_per_epoch"):
            seconds = training["seconds_per_epoch"] * training["epochs"]
            return Estimate(seconds, training.get("peak_memory_bytes"), "measured")
    return None


def _counted(job: Job, error: str = "") -> Estimate:
    if not (cost := job.recipe.get("cost")):
        return Estimate(None, None, "unknown", error)
    memory = cost["activation_bytes"] + _STATES_PER_PARAMETER * cost["parameter_bytes"]
    return Estimate(None, memory, "counted", error)


def _timed(prepared: Prepared, job: Job, iterations: int) -> Estimate:
    recipe = job.recipe
    request = {
        "dataset": job.dataset,
        "row": job.row.to_dict(),
        "device": prepared.device,
        "iterations": iterations,
    }
    try:
        # as the training itself will run: threads that spin while they wait make iterations take ten times as long
        answer = ask(request, environment(job, prepared.device))
    except BenchmarkError as error:
        return _counted(job, str(error).splitlines()[-1])
    per_epoch = (
        recipe["iterations_per_epoch"] * answer["seconds_per_iteration"]
        + recipe["validation_iterations_per_epoch"] * answer["seconds_per_validation_iteration"]
    )
    return Estimate(recipe["epochs"] * per_epoch, answer["peak_memory_bytes"], "timed")
