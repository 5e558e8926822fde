"""The console's view of an evaluation: what was computed, the numbers, and what to know about them."""

import math
import textwrap
from collections.abc import Sequence

from swin_umamba_nnunet.evaluation.evaluate import EvaluationResult
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES, WHOLE_IMAGE, Convention, Statistic

WIDTH = 110  # of running text
_HEAD = ("class", "metric", "mean", "std", "95 % interval", "unit", "cases", "undefined", "infinite", "remark")
_RIGHT = {"mean", "std", "cases", "undefined", "infinite"}


def format_result(result: EvaluationResult) -> str:
    """Everything the console shows: per convention its definition, quirks and table, then the notes."""
    parts = []
    for convention in result.conventions:
        rows = [row for row in result.statistics if row.convention == convention.name]
        parts.append(_convention(convention))
        parts.append(format_table(rows))
        parts += [_as_one(rows)] if _as_one(rows) else []
    draws = f"{result.bootstrap.resamples:,}".replace(",", " ")
    parts.append(
        _wrapped(
            f"mean: over the finite values of {len(result.cases)} cases, unless the remark says otherwise. std: sample "
            "standard deviation over cases (ddof = 1; over all classes, of each case's own mean). 95 % interval: "
            f"percentile bootstrap of the mean, {draws} resamples of the cases, seed {result.bootstrap.seed}. unit 1: "
            "a ratio between 0 and 1."
        )
    )
    if result.notes:
        parts.append("Notes\n" + "\n".join(_wrapped(note, "- ") for note in result.notes))
    return "\n\n".join(parts)


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
        row.label, row.metric, _number(row.mean, digits, "undefined"), _number(row.std, digits, "-"), interval,
        row.unit, str(row.n_cases), str(row.n_undefined), str(row.n_infinite), remark,
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
