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

from swin_umamba_nnunet.benchmark.report.arenas import Arena
from swin_umamba_nnunet.benchmark.report.collect import Cell
from swin_umamba_nnunet.benchmark.report.svg import settings
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


def most_different(arena: Arena, metric: str, count: int) -> list[str]:
    """Cases in order of the range of the rows' values, largest first; only cases that at least two rows have."""
    values = arena.per_case(metric)
    finite = values.where(np.isfinite(values.astype(float)))
    enough = finite[finite.notna().sum(axis=1) > 1]
    spread = (enough.max(axis=1) - enough.min(axis=1)).sort_values(ascending=False, kind="stable")
    return [str(case) for case, value in spread.items() if value > 0][:count]


def pictures(arena: Arena, metric: str, count: int) -> list[Picture]:
    """Pictures of the cases that differ most; a case whose files cannot be read says so."""
    return [_picture(arena, metric, case) for case in most_different(arena, metric, count)]


def _picture(arena: Arena, metric: str, case: str) -> Picture:
    values, unit = arena.per_case(metric).loc[case], arena.unit(metric)
    shown = _runs(arena, case)
    scores = "; ".join(f"{label} {number(float(values[label]), unit)}" for label in shown)
    runs = ", ".join(dict.fromkeys(f"fold {cell.fold} seed {cell.seed}" for cell in shown.values()))
    caption = f"{metric} of the case, averaged over runs: {scores}. The predictions shown are those of {runs}."
    try:
        png, where = _draw(case, shown, {label: number(float(values[label]), unit) for label in shown})
    except (EvaluationError, OSError, ValueError) as error:
        _log.info("no picture of %s: %s", case, error)
        return Picture(case, caption, "", str(error), "")
    alternative = f"Image, ground truth and the predictions of {', '.join(shown)} for case {case}. {scores}."
    return Picture(case, f"{caption}{where}", png, "", alternative)


def _runs(arena: Arena, case: str) -> dict[str, Cell]:
    """Label -> the first run that has scored the case."""
    found: dict[str, Cell] = {}
    for cell in arena.done:
        if cell.row.label not in found and (cell.scores["case"] == case).any():
            found[cell.row.label] = cell
    return {row.label: found[row.label] for row in arena.rows if row.label in found}


def _draw(case: str, cells: Mapping[str, Cell], scores: Mapping[str, str]) -> tuple[str, str]:
    """(PNG in base64, which slice in words)."""
    labels = _labels(next(iter(cells.values())))
    arrays, truth = {}, None
    for label, cell in cells.items():
        pair = CasePair(case, *(_label_file(cell.folder / name, case) for name in ("references", "predictions")))
        read = read_pair(pair, labels.reader)
        truth, arrays[label] = (item.array if item.array.ndim == 3 else item.array[None] for item in read)
    assert truth is not None
    first = next(iter(cells.values()))
    image = read_image(find_images(first.folder / "images", [case])[case], 0, labels.reader)
    if image.array.shape[:3] != truth.shape:
        raise EvaluationError(f"the image of {case} has the shape {image.array.shape[:3]}, its labels {truth.shape}")
    index = _slice_of_most_difference(truth, list(arrays.values()))
    cut = slice(index, index + 1)
    views = {}
    for label, prediction in arrays.items():
        one = replace(image, array=image.array[cut])
        (views[label],) = look_at(case, one, truth[cut], prediction[cut], labels).views
    where = "" if len(truth) == 1 else f" Slice {index + 1} of {len(truth)}, where the predictions differ most."
    return _render(views, labels, scores), where


def _render(views: Mapping[str, View], labels: LabelSet, scores: Mapping[str, str]) -> str:
    first = next(iter(views.values()))
    panels = [("image", first, "image"), ("ground truth", first, "ground truth")]
    panels += [("prediction", view, f"{_short(label)}\n{scores[label]}") for label, view in views.items()]
    lines = math.ceil(len(panels) / _COLUMNS)
    ratio = first.truth.shape[0] * first.aspect / first.truth.shape[1]  # height over width
    height = _PANEL * min(max(ratio, 0.3), 2.0) + _TITLE
    with settings():
        figure = Figure(figsize=(_PANEL * _COLUMNS, lines * height + 0.35), layout="constrained", facecolor="white")
        grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for axes, (kind, view, title) in zip(grid, panels):
            draw_panel(axes, kind, view, labels.classes)
            axes.set_title(title, fontsize=8, pad=2, fontweight="normal")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles = legend_handles(list(labels.classes), [])
        figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"optimize": True})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _slice_of_most_difference(truth: np.ndarray, predictions: Sequence[np.ndarray]) -> int:
    """Along the first axis: where most voxels are not labelled alike by all; of equals, where there is most truth."""
    for one in predictions:
        if one.shape != truth.shape:
            raise EvaluationError(f"a prediction has the shape {one.shape}, its ground truth {truth.shape}")
    differ = np.zeros(truth.shape, bool)
    for one in predictions[1:]:
        differ |= one != predictions[0]
    counts = differ.sum(axis=(1, 2))
    return int(np.argmax(counts if counts.any() else (truth > 0).sum(axis=(1, 2))))


def _labels(cell: Cell) -> LabelSet:
    inputs = cell.part("inputs")
    model = cell.folder / "nnUNet_results" / str(inputs.get("dataset")) / cell.row.key / "dataset.json"
    file = next((path for path in (cell.folder / "predictions" / "dataset.json", model) if path.is_file()), model)
    return read_dataset_json(file)


def _label_file(folder: Path, case: str) -> Path:
    found = find_label_files(folder, folder.name)
    if case not in found:
        raise EvaluationError(f"{folder} has no file of {case}")
    return found[case]


def _short(label: str, most: int = 26) -> str:
    return label if len(label) <= most else f"{label[: most - 11]}\u2026{label[-10:]}"
