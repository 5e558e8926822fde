"""A list of measurements, of which any may fail or be interrupted; what has been measured is on disk after each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tests.speed.clock import Clock
from tests.speed.models import MissingPackageError
from tests.speed.record import Figure, write_document

LONG = 300  # characters of an error that are kept
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Job:
    """One or a few figures that are measured together.

    Attributes:
        stands_for: the figure that is written if it fails, with the problem filled in.
        run: yields the figures.
        seconds: that must be left of the budget for it to begin.
    """

    stands_for: Figure
    run: Callable[[], Iterable[Figure]]
    seconds: float = 10.0

    @property
    def name(self) -> str:
        """For the reader."""
        return self.stands_for.line().rstrip(": ")


def run_jobs(
    jobs: Sequence[Job], clock: Clock, document: dict[str, Any], file: Path | None, say: Callable[[str], None]
) -> bool:
    """Run them in order; figures go into `document` and, after each job, the document to `file`.

    Returns:
        False if it was interrupted; what had been measured is kept.
    """
    for number, job in enumerate(jobs, start=1):
        position = f"[{number}/{len(jobs)}]"
        if clock.left() < job.seconds:
            document["not_run"].append(job.name)
            continue
        try:
            for figure in job.run():
                document["figures"].append(figure)
                say(f"{position} {figure.line(times=clock.device == 'cuda')}")
        except KeyboardInterrupt:
            document["not_run"] += [each.name for each in jobs[number - 1 :]]
            _write(file, document)
            say(f"\ninterrupted at {position}; what had been measured is kept")
            return False
        except Exception as error:  # one figure that cannot be had must not cost the others
            failed = replace(job.stands_for, problem=problem_of(error))
            document["figures"].append(failed)
            say(f"{position} {failed.line()}")
        _write(file, document)
        if clock.device == "cuda":
            _give_back()
    if document["not_run"]:
        say(f"{len(document['not_run'])} measurements had no time left; a larger --budget includes them")
        _write(file, document)
    return True


def problem_of(error: Exception) -> str:
    """One clause about what went wrong."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingPackageError):
        return text
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        return "out of memory"
    return f"{type(error).__name__}: {text}"[:LONG]


def _give_back() -> None:
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # after an illegal access nothing works any more; the jobs that follow will say so
        return


def _write(file: Path | None, document: dict[str, Any]) -> None:
    if file:
        write_document(file, document)
