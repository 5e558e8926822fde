"""What an evaluation found: on the console, as metrics.csv (long form), as summary.json (nnU-Net's layout and more)."""

import csv
import io
import itertools
import json
import math
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import replacing
from swin_umamba_nnunet._text import csv_cell, printable, table
from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.records import (
    ALL_CLASSES,
    PLAIN,
    WHOLE_IMAGE,
    Convention,
    EvaluationError,
    Measurement,
    Statistic,
    by_name,
)
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, mean_of_finite

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
COLUMNS = ("case", "class", "metric", "value", "unit", "convention")
_MARK = "swin_umamba_evaluation"  # in our summary.json and not in nnU-Net's
WIDTH = 110  # of running text
_HEAD = ("class", "metric", "mean", "std", "95 % interval", "unit", "cases", "undefined", "infinite", "remark")
_RIGHT = {"mean", "std", "cases", "undefined", "infinite"}
_UNITS = {"1": "0 to 1", "px": "pixels", "voxel": "voxels"}  # the others say it themselves
_WORST = 3  # cases


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

    def value(self, case: str, label: str, metric: str, convention: str = PLAIN) -> float:
        """One value; `KeyError` if there is none."""
        return {m.case: m.value for m in by_name(self.measurements)[convention, metric, label]}[case]

    def statistic(self, metric: str, label: str, convention: str = PLAIN) -> Statistic:
        """One row of the table; `KeyError` if there is none."""
        return {(row.metric, row.label, row.convention): row for row in self.statistics}[metric, label, convention]


def format_result(result: EvaluationResult) -> str:
    """Everything the console shows: a table per convention, the worst cases, the notes, then what the numbers mean."""
    parts = []
    for convention in result.conventions:
        rows = [row for row in result.statistics if row.convention == convention.name]
        parts.append((f"{convention.name}\n\n" if len(result.conventions) > 1 else "") + format_table(rows))
        parts.append(_as_one(rows))
    parts.append(_worst(result) if len(result.cases) > 1 else "")
    if result.notes:
        parts.append("Notes\n" + "\n".join(_wrapped(note, "- ") for note in result.notes))
    draws = f"{result.bootstrap.resamples:,}".replace(",", " ")
    parts.append(
        "What the numbers mean\n"
        + _wrapped(
            f"mean: over the finite values of {len(result.cases)} cases, unless the remark says otherwise. std: sample "
            "standard deviation over cases (ddof = 1; over all classes, of each case's own mean). 95 % interval: "
            f"percentile bootstrap of the mean, {draws} resamples of the cases, seed {result.bootstrap.seed}."
        )
    )
    parts += map(_convention, result.conventions)
    return printable("\n\n".join(filter(None, parts)), lines=True)


class WorstCase(NamedTuple):
    """A case that scores low: `score` is the mean of its classes (or of the image), `value` that of its worst class."""

    name: str
    metric: str
    score: float
    label: str
    value: float
    n_classes: int


def worst_cases(result: EvaluationResult) -> list[WorstCase]:
    """The cases that score lowest in the first metric of the table that single cases have, worst first.

    Undefined and infinite values are left out.
    """
    for row in result.statistics:
        own = (
            m
            for m in result.measurements
            if (m.convention, m.metric) == (row.convention, row.metric) and not m.count and math.isfinite(m.value)
        )
        sign = 1 if row.unit == "1" else -1  # scores or distances
        found = []
        for case, group in itertools.groupby(own, lambda m: m.case):
            values = {m.label: m.value for m in group}
            classes = {label: value for label, value in values.items() if label != WHOLE_IMAGE} or values
            label, value = min(classes.items(), key=lambda item: sign * item[1])
            score = values.get(WHOLE_IMAGE, sum(classes.values()) / len(classes))
            found.append(WorstCase(case, row.metric, score, label, value, len(classes)))
        if found:
            return sorted(found, key=lambda case: sign * case.score)[:_WORST]
    return []


def _worst(result: EvaluationResult) -> str:
    cases = worst_cases(result)
    if not cases:
        return "No case has a score that is defined."
    several = any(case.n_classes > 1 for case in cases)
    lines = [f"Worst cases by {cases[0].metric}" + ", mean over the classes (and the worst class)" * several]
    for case in cases:
        of_class = f"  (class {case.label}: {case.value:.4f})" if case.n_classes > 1 else ""
        lines.append(f"  {printable(f'{case.name}  {case.score:.4f}{of_class}')}")
    return "\n".join(lines)


def format_table(rows: Sequence[Statistic]) -> str:
    """One line per statistic; columns that would be empty are left out."""
    columns = [
        column
        for column in zip(_HEAD, *map(_cells, rows))
        if column[0] not in ("undefined", "infinite", "remark") or set(column[1:]) - {"0", ""}
    ]
    text = table(list(zip(*columns)), "".join(">" if column[0] in _RIGHT else "<" for column in columns))
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _cells(row: Statistic) -> tuple[str, ...]:
    digits = 4 if row.unit == "1" else 2
    interval = "-" if math.isnan(row.low) else f"{row.low:.{digits}f} to {row.high:.{digits}f}"
    remark = ", ".join(part for part in (row.detail, row.how) if part)
    return (
        printable(row.label),
        row.metric,
        _number(row.mean, digits, "undefined"),
        _number(row.std, digits, "-"),
        interval,
        _UNITS.get(row.unit, row.unit),
        *map(str, (row.n_cases, row.n_undefined, row.n_infinite)),
        remark,
    )


def _number(value: float, digits: int, missing: str) -> str:
    return missing if math.isnan(value) else f"{value:.{digits}f}"


def _convention(convention: Convention) -> str:
    text = f'Convention "{convention.name}"\n' + _wrapped(convention.definition)
    if convention.quirks:
        text += "\nKnow that\n" + "\n".join(_wrapped(quirk, "- ") for quirk in convention.quirks)
    return text


def _as_one(rows: Sequence[Statistic]) -> str:
    """The means under the other common way to count undefined scores, for the rows a paper would report."""
    affected = [row for row in rows if not math.isnan(row.mean_undefined_as_1)]
    overall = [row for row in affected if row.label in (ALL_CLASSES, WHOLE_IMAGE)] or affected
    if not overall:
        return ""
    values = ", ".join(f"{row.metric} {row.label} {row.mean_undefined_as_1:.4f}" for row in overall)
    return _wrapped(f"Where papers count an undefined score as 1, the means above would be: {values}.")


def _wrapped(text: str, bullet: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def require_writable(folder: Path) -> None:
    """Raise `EvaluationError` if the folder cannot take the files, or has such files that are not ours."""
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"the output {folder} is a file; expected a folder")
    for name, is_ours, by in (
        (SUMMARY_FILE, lambda text: _MARK in text, "something else (nnU-Net?)"),
        (METRICS_FILE, lambda text: text.startswith(",".join(COLUMNS)), "something else"),
    ):
        file = folder / name
        if file.exists() and not is_ours(file.read_text(encoding="utf-8", errors="replace")):
            raise EvaluationError(f"{file} was written by {by} and is not overwritten; name another output folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise EvaluationError(f"the output folder {folder} cannot be written ({error.strerror})") from error


def write_outputs(result: EvaluationResult, folder: Path) -> None:
    """Write both files, or neither.

    Raises:
        EvaluationError: they cannot be written.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(COLUMNS)
    for m in result.measurements:
        case, label, metric, *rest = map(csv_cell, (m.case, m.label, m.metric, m.unit, m.full_convention))
        writer.writerow((case, label, metric, repr(m.number), *rest))
    # NaN and Infinity as nnU-Net writes them, which every json.load of Python reads
    text = json.dumps(summary(result), indent=4, sort_keys=True) + "\n"
    try:
        with replacing(folder / METRICS_FILE) as metrics, replacing(folder / SUMMARY_FILE) as summary_file:
            metrics.write_text(lines.getvalue(), encoding="utf-8")
            summary_file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{METRICS_FILE} and {SUMMARY_FILE} cannot be written to {folder} ({error.strerror or error}); make room "
            "there or name another output folder"
        ) from error


def summary(result: EvaluationResult) -> dict:
    """nnU-Net's summary (foreground_mean, mean, metric_per_case) with our statistics and conventions beside it.

    The plain values have nnU-Net's metric names; those of another convention have it in brackets.  Means leave out
    undefined and infinite values, where nnU-Net's foreground mean would become NaN.
    """
    by_case: dict[str, dict[str, dict[str, float]]] = {}
    for m in result.measurements:
        if m.label == WHOLE_IMAGE:
            continue
        name = m.metric if m.convention == PLAIN else f"{m.metric} ({m.convention})"
        by_case.setdefault(m.case, {}).setdefault(result.summary_keys.get(m.label, m.label), {})[name] = m.number
    for classes in by_case.values():
        for values in classes.values():
            if "TP" in values:
                values["n_ref"], values["n_pred"] = values["TP"] + values["FN"], values["TP"] + values["FP"]
    per_case = [by_case.get(pair.name, {}) for pair in result.cases]
    keys = list(dict.fromkeys(key for classes in per_case for key in classes))
    mean = {key: _means([classes.get(key, {}) for classes in per_case]) for key in keys}
    return {
        "foreground_mean": _means(list(mean.values())),
        "mean": mean,
        "metric_per_case": [
            {"metrics": classes, "reference_file": str(pair.ground_truth), "prediction_file": str(pair.prediction)}
            for pair, classes in zip(result.cases, per_case)
        ],
        _MARK: {
            "version": __version__,
            "protocol": result.protocol,
            "classes": dict(result.summary_keys),
            "conventions": [asdict(convention) for convention in result.conventions],
            "notes": list(result.notes),
            "bootstrap": {**asdict(result.bootstrap), "over": "cases", "interval": "95 % percentile"},
            "std": "sample standard deviation over cases (ddof = 1)",
            "statistics": [asdict(row) for row in result.statistics],
            "image_values": [
                {"case": m.case, "metric": m.metric, "value": m.value, "convention": m.full_convention}
                for m in result.measurements
                if m.label == WHOLE_IMAGE
            ],
        },
    }


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: mean_of_finite(row[name] for row in rows if name in row) for name in names}
