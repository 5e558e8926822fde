"""metrics.csv (long form) and summary.json (nnU-Net's layout and more) of an evaluation."""

import csv
import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import replacing
from swin_umamba_nnunet._text import csv_cell
from swin_umamba_nnunet.evaluation import plain
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.records import WHOLE_IMAGE, Measurement

if TYPE_CHECKING:
    from swin_umamba_nnunet.evaluation.evaluate import EvaluationResult

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
COLUMNS = ("case", "class", "metric", "value", "unit", "convention")
_MARK = "swin_umamba_evaluation"  # in our summary.json and not in nnU-Net's


def require_writable(folder: Path) -> None:
    """Raise `EvaluationError` if the folder cannot take the files, or has such files that are not ours."""
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"the output {folder} is a file; expected a folder")
    summary, metrics = folder / SUMMARY_FILE, folder / METRICS_FILE
    ours = not summary.exists() or _MARK in summary.read_text(encoding="utf-8", errors="replace")
    if not ours:
        raise EvaluationError(
            f"{summary} was written by something else (nnU-Net?) and is not overwritten; name another output folder"
        )
    if metrics.exists() and not metrics.read_text(encoding="utf-8", errors="replace").startswith(",".join(COLUMNS)):
        raise EvaluationError(f"{metrics} is not ours and is not overwritten; name another output folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EvaluationError(f"the output folder {folder} cannot be written ({error.strerror})") from error


def write_outputs(result: "EvaluationResult", folder: Path) -> None:
    """Write both files, or neither.

    Raises:
        EvaluationError: they cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for m in result.measurements:
        value = int(m.value) if m.count else float(m.value)
        texts = map(csv_cell, (m.case, m.label, m.metric, m.unit, m.full_convention))
        case, label, metric, *rest = texts
        writer.writerow((case, label, metric, repr(value), *rest))
    # NaN and Infinity as nnU-Net writes them, which every json.load of Python reads
    text = json.dumps(summary(result), indent=4, sort_keys=True) + "\n"
    try:
        with replacing(folder / METRICS_FILE) as metrics, replacing(folder / SUMMARY_FILE) as summary_file:
            metrics.write_text(table.getvalue(), encoding="utf-8")
            summary_file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{METRICS_FILE} and {SUMMARY_FILE} cannot be written to {folder} ({error.strerror or error}); make room "
            "there or name another output folder"
        ) from error


def summary(result: "EvaluationResult") -> dict:
    """nnU-Net's summary (foreground_mean, mean, metric_per_case) with our statistics and conventions beside it.

    The plain values have nnU-Net's metric names; those of another convention have it in brackets.  Means leave out
    undefined and infinite values, where nnU-Net's foreground mean would become NaN.
    """
    by_case: dict[str, dict[str, dict[str, float]]] = {}
    for m in result.measurements:
        if m.label == WHOLE_IMAGE:
            continue
        metrics = by_case.setdefault(m.case, {}).setdefault(result.summary_keys.get(m.label, m.label), {})
        metrics[_name(m)] = int(m.value) if m.count else float(m.value)
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


def _name(m: Measurement) -> str:
    return m.metric if m.convention == plain.NAME else f"{m.metric} ({m.convention})"


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    result = {}
    for name in names:
        values = np.array([row[name] for row in rows if name in row], dtype=float)
        finite = values[np.isfinite(values)]
        result[name] = float(finite.mean()) if finite.size else float("nan")
    return result
