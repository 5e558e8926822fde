"""Evaluate a folder of predictions: pair the cases, check all of them, score them, sum up, write."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.evaluation import output as output_files
from swin_umamba_nnunet.evaluation.build import ProtocolOptions, build_protocol, find_dataset_json
from swin_umamba_nnunet.evaluation.cases import CasePair, pair_cases, unpaired_names
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.labels import LabelSet
from swin_umamba_nnunet.evaluation.protocols import CaseFacts, EvaluationProtocol
from swin_umamba_nnunet.evaluation.records import Convention, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import RESAMPLES, Bootstrap
from swin_umamba_nnunet.evaluation.workers import CaseWorkers

_ERRORS_SHOWN = 10


@dataclass(frozen=True)
class EvaluationResult:
    """All numbers of an evaluation and what they mean.

    Attributes:
        protocol: its name.
        cases: what was compared.
        measurements: every value of every case, as in metrics.csv.
        statistics: over the cases, as in the table.
        conventions: what the values mean; the protocol's own first.
        notes: what the reader has to know about these numbers.
        summary_keys: class name -> key in summary.json.
        bootstrap: how the intervals were made.
    """

    protocol: str
    cases: tuple[CasePair, ...]
    measurements: tuple[Measurement, ...]
    statistics: tuple[Statistic, ...]
    conventions: tuple[Convention, ...]
    notes: tuple[str, ...]
    summary_keys: Mapping[str, str]
    bootstrap: Bootstrap

    def value(self, case: str, label: str, metric: str, convention: str = "plain") -> float:
        """One value; `KeyError` if there is none."""
        for m in self.measurements:
            if (m.case, m.label, m.metric, m.convention) == (case, label, metric, convention):
                return m.value
        raise KeyError((case, label, metric, convention))

    def statistic(self, metric: str, label: str, convention: str = "plain") -> Statistic:
        """One row of the table; `KeyError` if there is none."""
        for row in self.statistics:
            if (row.metric, row.label, row.convention) == (metric, label, convention):
                return row
        raise KeyError((metric, label, convention))


def evaluate_folders(
    ground_truth: Path | str,
    predictions: Path | str,
    *,
    labels: Sequence[str | int] | LabelSet | None = None,
    dataset_json: Path | str | None = None,
    protocol: str = "plain",
    output: Path | str | None = None,
    processes: int | None = None,
    tolerance: float | Mapping[str, float] | Sequence[str] | None = None,
    iou_thresholds: Sequence[float] | None = None,
    instances: str | None = None,
    distances: bool | None = None,
    medpy_hd95: bool | None = None,
    count_border_cells: bool | None = None,
    isic_size: int | None = None,
    resize_predictions: bool | None = None,
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
        labels, dataset_json, tolerance, iou_thresholds, instances, distances, medpy_hd95, count_border_cells,
            isic_size, resize_predictions: see `ProtocolOptions`. Without labels and dataset.json the classes come
            from the dataset.json that nnU-Net left beside the predictions or the ground truth, else from the files.
        protocol: one of `build.PROTOCOLS`.
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
    truth_folder, prediction_folder = Path(ground_truth), Path(predictions)
    if resamples < 1:
        raise EvaluationError(f"resamples {resamples}: expected 1 or more")
    found = None
    if labels is None and dataset_json is None:
        found = find_dataset_json(truth_folder, prediction_folder)
    options = ProtocolOptions(
        labels, dataset_json, tolerance, iou_thresholds, instances, distances, medpy_hd95, count_border_cells,
        isic_size, resize_predictions,
    )  # fmt: skip
    chosen = build_protocol(protocol, options, found)
    suffix = _suffix(chosen, instances)
    pairs = pair_cases(
        truth_folder, prediction_folder, file_ending=file_ending, ground_truth_suffix=suffix,
        allow_missing=allow_missing,
    )  # fmt: skip
    unpaired = unpaired_names(truth_folder, prediction_folder, file_ending=file_ending, ground_truth_suffix=suffix)
    if output is not None:
        output_files.require_writable(Path(output))
    bootstrap = Bootstrap(resamples, seed)
    with CaseWorkers(processes, len(pairs), progress) as workers:
        facts = _facts(workers.map(functools.partial(_check, chosen), pairs, "checking files"))
        chosen = chosen.complete(facts)
        scored = workers.map(functools.partial(_score, chosen), pairs, "scoring")
    measurements = tuple(measurement for case in scored for measurement in case)
    notes = (
        *_pairing_notes(*unpaired),
        *_fact_notes(facts),
        *chosen.notes(measurements),
    )
    result = EvaluationResult(
        protocol, tuple(pairs), measurements, tuple(chosen.statistics(measurements, bootstrap)), chosen.conventions,
        notes, chosen.summary_keys, bootstrap,
    )  # fmt: skip
    before_writing(result)
    if output is not None:
        output_files.write_outputs(result, Path(output))
    return result


def _check(protocol: EvaluationProtocol, pair: CasePair) -> CaseFacts | EvaluationError:
    try:
        return protocol.check(pair)
    except EvaluationError as error:
        return error


def _score(protocol: EvaluationProtocol, pair: CasePair) -> list[Measurement]:
    return protocol.score(pair)


def _suffix(protocol: EvaluationProtocol, instances: str | None) -> str:
    # U-Mamba's instance masks are called NAME_label.tiff
    return "_label" if instances == "gt-ids" else protocol.ground_truth_suffix


def _facts(checked: Sequence[CaseFacts | EvaluationError]) -> list[CaseFacts]:
    """The facts, or one error with what is wrong with every bad case."""
    errors = [str(found) for found in checked if isinstance(found, EvaluationError)]
    if len(errors) == 1:
        raise EvaluationError(errors[0])
    if errors:
        rest = len(errors) - _ERRORS_SHOWN
        more = f"\n  and {rest} more" if rest > 0 else ""
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


def _pairing_notes(missing: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if missing:
        notes.append(f"Left out, no prediction ({len(missing)}): {', '.join(missing)}")
    if extra:
        notes.append(f"Left out, no ground truth ({len(extra)}): {', '.join(extra)}")
    return tuple(notes)


def _fact_notes(facts: Sequence[CaseFacts]) -> tuple[str, ...]:
    """The same oddity of several cases is said once."""
    by_note: dict[str, list[str]] = {}
    for case in facts:
        for note in case.notes:
            by_note.setdefault(note, []).append(case.name)
    return tuple(f"{note} ({len(names)} cases, for example {names[0]})" for note, names in by_note.items())
