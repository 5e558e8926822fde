"""Evaluate a folder of predictions: pair the cases, check all of them, score them, sum up, write.

Cases are spread over several processes: bounded, interruptible, and an error if a process dies.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from swin_umamba_nnunet.evaluation.cases import CasePair, pair_cases
from swin_umamba_nnunet.evaluation.output import EvaluationResult, require_writable, write_outputs
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, EvaluationProtocol
from swin_umamba_nnunet.evaluation.protocols.plain import Plain
from swin_umamba_nnunet.evaluation.records import EvaluationError
from swin_umamba_nnunet.evaluation.statistics import RESAMPLES, Bootstrap

MOST_PROCESSES = 8  # by default; each holds one case
_ERRORS_SHOWN = 10


def evaluate_folders(
    ground_truth: Path | str,
    predictions: Path | str,
    *,
    protocol: EvaluationProtocol | None = None,
    output: Path | str | None = None,
    processes: int | None = None,
    allow_missing: bool = False,
    file_ending: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool = False,
    before_writing: Callable[[EvaluationResult], None] = lambda result: None,
) -> EvaluationResult:
    """Score every case of two folders.

    All files are read and checked before the first score is computed.

    Args:
        ground_truth: folder with reference label files.
        predictions: folder with predicted label files of the same names.
        protocol: what is computed, such as `Plain(labels=["liver=1"])` or `Abdomen(medpy_hd95=True)`; None is
            `Plain()`, whose classes come from the dataset.json that nnU-Net left beside the predictions or the ground
            truth, else from the files.
        output: folder for metrics.csv and summary.json; None writes nothing.
        processes: worker processes, each with one case in memory; None takes one per core, 8 at most.
        allow_missing: evaluate only the cases that both folders have, and say which were left out.
        file_ending: only these files.
        resamples, seed: of the bootstrap over cases.
        progress: show progress bars.
        before_writing: is given the result before it is written, so that a full disk loses nothing.

    Raises:
        EvaluationError: bad input, a missing library, a dead worker, an output folder with files of others, or one that
            cannot be written.
    """
    if resamples < 1:
        raise EvaluationError(f"resamples {resamples}: expected 1 or more")
    if seed < 0:
        raise EvaluationError(f"seed {seed}: expected 0 or more")
    chosen = (protocol or Plain()).prepare(Path(ground_truth), Path(predictions))
    pairs, *left_out = pair_cases(
        ground_truth,
        predictions,
        file_ending=file_ending,
        ground_truth_suffix=chosen.ground_truth_suffix,
        allow_missing=allow_missing,
    )
    if output is not None:
        require_writable(Path(output))
    bootstrap = Bootstrap(resamples, seed)
    with case_workers(processes, len(pairs), progress) as run:
        facts = _facts(run(functools.partial(_check, chosen), pairs, "checking files"))
        chosen = chosen.complete(facts)
        scored = run(chosen.score, pairs, "scoring")
    measurements = tuple(measurement for case in scored for measurement in case)
    pairing = [
        f"Left out, no {what} ({len(names)}): {', '.join(names)}"
        for what, names in zip(("prediction", "ground truth"), left_out)
        if names
    ]
    result = EvaluationResult(
        chosen.name,
        tuple(pairs),
        measurements,
        tuple(chosen.statistics(measurements, bootstrap)),
        chosen.conventions,
        (*pairing, *_fact_notes(facts), *chosen.notes(measurements)),
        chosen.classes.keys if chosen.classes else {},
        bootstrap,
    )
    before_writing(result)
    if output is not None:
        write_outputs(result, Path(output))
    return result


def _check(protocol: EvaluationProtocol, pair: CasePair) -> CaseFacts | EvaluationError:
    try:
        return protocol.check(pair)
    except EvaluationError as error:
        return error


def _facts(checked: Sequence[CaseFacts | EvaluationError]) -> list[CaseFacts]:
    """The facts, or one error with what is wrong with every bad case."""
    errors = [str(found) for found in checked if isinstance(found, EvaluationError)]
    if len(errors) == 1:
        raise EvaluationError(errors[0])
    if errors:
        more = f"\n  and {len(errors) - _ERRORS_SHOWN} more" if len(errors) > _ERRORS_SHOWN else ""
        lines = "\n  ".join(errors[:_ERRORS_SHOWN])
        raise EvaluationError(f"{len(errors)} of {len(checked)} cases cannot be evaluated:\n  {lines}{more}")
    facts = [found for found in checked if isinstance(found, CaseFacts)]
    units = {case.unit: case.name for case in reversed(facts)}
    if len(units) > 1:
        examples = ", ".join(f"{name} in {unit}" for unit, name in units.items())
        raise EvaluationError(
            f"the files have distances in different units ({examples}), so no mean can be taken; give all of them a "
            "spacing, or none"
        )
    return facts


def _fact_notes(facts: Sequence[CaseFacts]) -> tuple[str, ...]:
    """The same oddity of several cases is said once."""
    by_note: dict[str, list[str]] = {}
    for case in facts:
        for note in case.notes:
            by_note.setdefault(note, []).append(case.name)
    return tuple(f"{note} ({len(names)} cases, for example {names[0]})" for note, names in by_note.items())


@contextlib.contextmanager
def case_workers(processes: int | None, n_cases: int, progress: bool) -> Iterator[Callable[..., list]]:
    """Processes that live through several passes over the cases.

    They are spawned (safe beside threads and on every platform), so a script of one's own has to start them below
    `if __name__ == "__main__":`.

    Args:
        processes: how many; 1 works in this process. None takes one per core, 8 at most.
        n_cases: no more processes than cases.
        progress: show progress bars.

    Yields:
        `run(function, items, title)`, which returns results in the order of the items; whatever `function` raises ends
        it at once.

    Raises:
        EvaluationError: a number of processes below 1; from `run`, that a process died.
    """
    if processes is not None and processes < 1:
        raise EvaluationError(f"processes {processes}: expected 1 or more")
    count = max(1, min(processes or min(os.cpu_count() or 1, MOST_PROCESSES), n_cases))
    context = multiprocessing.get_context("spawn")
    # Ctrl-C is the parent's to answer
    pool = ProcessPoolExecutor(count, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) if count > 1 else None

    def results(function: Callable, items: Sequence) -> Iterator[tuple[int, Any]]:
        if pool is None:
            yield from enumerate(map(function, items))
        else:
            futures = {pool.submit(function, item): index for index, item in enumerate(items)}
            for future in as_completed(futures):
                yield futures[future], future.result()

    def run(function: Callable, items: Sequence, title: str) -> list:
        try:
            found = dict(tqdm(results(function, items), title, len(items), unit="case", disable=not progress))
        except BrokenProcessPool as error:
            raise EvaluationError(
                f"a worker process died while {title}, most likely for lack of memory; try again with fewer "
                f"(--processes {max(1, count // 2)})"
            ) from error
        return [found[index] for index in range(len(items))]

    try:
        yield run
    except BaseException:  # do not wait for cases nobody asks for any more
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        raise
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
