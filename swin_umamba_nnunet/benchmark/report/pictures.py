"""The cases on which the trainers differ most, as pictures: image, ground truth, and every trainer's prediction."""

import base64
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from swin_umamba_nnunet.benchmark.report.charts import settings, shortened
from swin_umamba_nnunet.benchmark.report.collect import Arena, Scored
from swin_umamba_nnunet.benchmark.report.words import number
from swin_umamba_nnunet.evaluation import (
    CasePair,
    EvaluationError,
    LabelSet,
    find_images,
    find_label_files,
    read_dataset_json,
    read_image,
    read_pair,
)
from swin_umamba_nnunet.pictures.drawing import draw_panel, legend_handles
from swin_umamba_nnunet.pictures.looks import View, look_at

_COLUMNS, _PANEL, _TITLE = 4, 1.9, 0.34  # panels of a line; inches
_DPI = 110
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One case.

    Attributes:
        case: name.
        caption: which runs and slice are shown, with their scores.
        png: the picture, base64; "" if it could not be made.
        problem: why not.
        alternative: text for those who cannot see it.
    """

    case: str
    caption: str
    png: str
    problem: str
    alternative: str


def most_different(arena: Arena, count: int) -> list[str]:
    """Cases in order of the range of the rows' values, largest first; only cases that at least two rows have."""
    values = arena.per_case(arena.metric).astype(float)
    finite = values.where(np.isfinite(values))
    spread = (finite.max(axis=1) - finite.min(axis=1)).sort_values(ascending=False, kind="stable")
    return [str(case) for case in spread.index[spread > 0]][:count]


def pictures(arena: Arena, count: int) -> list[Picture]:
    """Pictures of the cases that differ most; a case whose files cannot be read says so."""
    return [_picture(arena, case) for case in most_different(arena, count)]


def _picture(arena: Arena, case: str) -> Picture:
    values, unit = arena.per_case(arena.metric).loc[case], arena.unit(arena.metric)
    scored = [run for run in arena.done if (run.scores["case"] == case).any()]
    runs = {row.label: run for row in arena.rows for run in reversed(scored) if run.row == row}  # the first of each
    scores = {label: number(float(values[label]), unit) for label in runs}
    text = "; ".join(f"{label} {score}" for label, score in scores.items())
    which = ", ".join(dict.fromkeys(f"fold {run.fold} seed {run.seed}" for run in runs.values()))
    caption = f"{arena.metric} of the case, averaged over runs: {text}. The predictions shown are those of {which}."
    try:
        png, where = _draw(case, runs, scores)
    except (EvaluationError, OSError, ValueError) as error:
        _log.info("no picture of %s: %s", case, error)
        return Picture(case, caption, "", str(error), "")
    alternative = f"Image, ground truth and the predictions of {', '.join(runs)} for case {case}. {text}."
    return Picture(case, f"{caption}{where}", png, "", alternative)


def _draw(case: str, runs: Mapping[str, Scored], scores: Mapping[str, str]) -> tuple[str, str]:
    """(PNG in base64, which slice in words)."""
    first = next(iter(runs.values()))
    model = first.model.parent / "dataset.json"
    file = next((path for path in (first.predictions / "dataset.json", model) if path.is_file()), model)
    labels = read_dataset_json(file)
    read = {}
    for label, run in runs.items():
        pair = CasePair(case, _file(run.references, case), _file(run.predictions, case))
        read[label] = [item.array.reshape(-1, *item.array.shape[-2:]) for item in read_pair(pair, labels.reader)]
    truth = next(iter(read.values()))[0]
    image = read_image(find_images(first.images, [case])[case], 0, labels.reader)
    for what, shape in (("image", image.array.shape[:3]), *((name, pair[1].shape) for name, pair in read.items())):
        if shape != truth.shape:
            raise EvaluationError(f"the {what} of {case} has the shape {shape}, its ground truth {truth.shape}")
    index = slice_of_most_difference(truth, [prediction for _, prediction in read.values()])
    cut, views = slice(index, index + 1), {}
    sliced = replace(image, array=image.array[cut])
    for label, (_, prediction) in read.items():
        (views[label],) = look_at(case, sliced, truth[cut], prediction[cut], labels).views
    where = "" if len(truth) == 1 else f" Slice {index + 1} of {len(truth)}, where the predictions differ most."
    return _render(views, labels, scores), where


def _render(views: Mapping[str, View], labels: LabelSet, scores: Mapping[str, str]) -> str:
    first = next(iter(views.values()))
    panels = [("image", first, "image"), ("ground truth", first, "ground truth")]
    panels += [("prediction", view, f"{shortened(label, 26)}\n{scores[label]}") for label, view in views.items()]
    lines = math.ceil(len(panels) / _COLUMNS)
    ratio = first.truth.shape[0] * first.aspect / first.truth.shape[1]  # height over width
    height = _PANEL * min(max(ratio, 0.3), 2.0) + _TITLE
    with settings():
        figure = Figure(figsize=(_PANEL * _COLUMNS, lines * height + 0.35), layout="constrained", facecolor="white")
        grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (kind, view, title) in zip(grid, panels):
            draw_panel(axes, kind, view, labels.classes)
            axes.set_title(title, fontsize=8, pad=2, fontweight="normal")
        handles = legend_handles(list(labels.classes), [])
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def slice_of_most_difference(truth: np.ndarray, predictions: Sequence[np.ndarray]) -> int:
    """Along the first axis: where most voxels are not labelled alike by all; of equals, where there is most truth."""
    differ = np.any([one != predictions[0] for one in predictions], axis=0)
    return int(np.argmax((differ if differ.any() else truth > 0).sum(axis=(1, 2))))


def _file(folder: Path, case: str) -> Path:
    found = find_label_files(folder, folder.name)
    if case not in found:
        raise EvaluationError(f"{folder} has no file of {case}")
    return found[case]
