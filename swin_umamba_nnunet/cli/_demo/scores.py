"""Reads what nnU-Net's evaluation wrote and sets it as a short table."""

import json
from dataclasses import dataclass
from pathlib import Path

from swin_umamba_nnunet.datasets.brain import LABELS

CLASSES = {value: name for name, value in LABELS.items() if value}  # label -> name, foreground only


@dataclass(frozen=True)
class Scores:
    """Dice of nnU-Net's evaluation.

    Attributes:
        cases: case -> label -> Dice, in the order of the slabs.
        mean: label -> mean over the cases.
        foreground: mean over the labels, nnU-Net's "foreground_mean".
    """

    cases: dict[str, dict[int, float]]
    mean: dict[int, float]
    foreground: float


def read_scores(summary: Path) -> Scores:
    """Read the summary.json of nnUNetv2_evaluate_folder."""
    content = json.loads(summary.read_text(encoding="utf-8"))
    cases = {
        Path(case["prediction_file"]).name.partition(".")[0]: _dice(case["metrics"])
        for case in content["metric_per_case"]
    }
    return Scores(dict(sorted(cases.items())), _dice(content["mean"]), content["foreground_mean"]["Dice"])


def _dice(metrics: dict) -> dict[int, float]:
    return {label: metrics[str(label)]["Dice"] for label in CLASSES}


def format_table(scores: Scores) -> str:
    """One line per held-out slab, one for the mean."""
    header = ["Dice", *CLASSES.values(), "mean"]
    rows = [
        [case, *(f"{dice[label]:.3f}" for label in CLASSES), f"{sum(dice.values()) / len(dice):.3f}"]
        for case, dice in scores.cases.items()
    ]
    rows.append(["all", *(f"{scores.mean[label]:.3f}" for label in CLASSES), f"{scores.foreground:.3f}"])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))])
             for row in [header, *rows]]  # fmt: skip
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
