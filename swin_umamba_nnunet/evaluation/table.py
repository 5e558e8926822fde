"""The console's view of an evaluation: the numbers, the worst cases, what to know about them, and what they mean."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.evaluation.evaluate import EvaluationResult
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, WHOLE_IMAGE, Convention, Statistic

WIDTH = 110  # of running text
_HEAD = ("class", "metric", "mean", "std", "95 % interval", "unit", "cases", "undefined", "infinite", "remark")
_RIGHT = {"mean", "std", "cases", "undefined", "infinite"}
_UNITS = {"1": "0 to 1", "px": "pixels", "voxel": "voxels"}  # the others say it themselves
_WORST = 3  # cases


def format_result(result: EvaluationResult) -> str:
    """Everything the console shows: a table per convention, the worst cases, the notes, then what the numbers mean."""
    parts = []
    for convention in result.conventions:
        rows = [row for row in result.statistics if row.convention == convention.name]
        parts.append((f"{convention.name}\n\n" if len(result.conventions) > 1 else "") + format_table(rows))
        parts += [_as_one(rows)] if _as_one(rows) else []
    parts += [_worst(result)] if len(result.cases) > 1 else []
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
    return printable("\n\n".join(parts), lines=True)


@dataclass(frozen=True)
class WorstCase:
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
        values: dict[str, dict[str, float]] = {}
        for m in result.measurements:
            if (m.convention, m.metric) == (row.convention, row.metric) and not m.count and math.isfinite(m.value):
                values.setdefault(m.case, {})[m.label] = m.value
        if not values:
            continue
        sign = 1 if row.unit == "1" else -1  # scores or distances
        found = []
        for case, by_label in values.items():
            classes = {label: value for label, value in by_label.items() if label != WHOLE_IMAGE} or by_label
            label, value = min(classes.items(), key=lambda item: sign * item[1])
            score = by_label.get(WHOLE_IMAGE, sum(classes.values()) / len(classes))
            found.append(WorstCase(case, row.metric, score, label, value, len(classes)))
        return sorted(found, key=lambda case: sign * case.score)[:_WORST]
    return []


def _worst(result: EvaluationResult) -> str:
    cases = worst_cases(result)
    if not cases:
        return "No case has a score that is defined."
    several = any(case.n_classes > 1 for case in cases)
    lines = []
    for case in cases:
        of_class = f"  (class {printable(case.label)}: {case.value:.4f})" if case.n_classes > 1 else ""
        lines.append(f"  {printable(case.name)}  {case.score:.4f}{of_class}")
    how = ", mean over the classes (and the worst class)" if several else ""
    return f"Worst cases by {cases[0].metric}{how}\n" + "\n".join(lines)


def format_table(rows: Sequence[Statistic]) -> str:
    """One line per statistic."""
    lines = [_HEAD, *map(_cells, rows)]
    columns = [
        index for index, name in enumerate(_HEAD)
        if name not in ("undefined", "infinite", "remark") or any(line[index] not in ("0", "") for line in lines[1:])
    ]  # fmt: skip
    widths = {index: max(len(line[index]) for line in lines) for index in columns}
    text = [
        "  ".join(
            line[index].rjust(widths[index]) if _HEAD[index] in _RIGHT else line[index].ljust(widths[index])
            for index in columns
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def _cells(row: Statistic) -> tuple[str, ...]:
    digits = 4 if row.unit == "1" else 2
    interval = "-" if math.isnan(row.low) else f"{row.low:.{digits}f} to {row.high:.{digits}f}"
    remark = ", ".join(part for part in (row.detail, row.how) if part)
    return (
        printable(row.label), row.metric, _number(row.mean, digits, "undefined"), _number(row.std, digits, "-"),
        interval, _UNITS.get(row.unit, row.unit), str(row.n_cases), str(row.n_undefined), str(row.n_infinite), remark,
    )  # fmt: skip


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
