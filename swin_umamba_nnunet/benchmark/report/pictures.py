"""The cases on which the trainers differ most, as pictures: image, ground truth, and what every row has wrong."""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import uniform_filter

from swin_umamba_nnunet.benchmark.report.charts import settings
from swin_umamba_nnunet.benchmark.report.collect import Arena, Scored
from swin_umamba_nnunet.benchmark.report.words import number
from swin_umamba_nnunet.evaluation import (
    CasePair,
    EvaluationError,
    LabelSet,
    find_images,
    find_label_files,
    find_labels,
    read_dataset_json,
    read_image,
)
from swin_umamba_nnunet.pictures.drawing import ERRORS, draw_panel, kinds_of_error, style_of
from swin_umamba_nnunet.pictures.looks import View, look_at, read_case

_PANEL, _DPI = 1.9, 110  # width of a panel in inches, and its resolution
_WINDOW = 256  # pixels of an image, about as many as a panel has
_log = logging.getLogger(__name__)


class Panel(NamedTuple):
    """One image: what stands below it, its text for those who cannot see it, and its JPEG in base64."""

    title: str
    score: str
    alternative: str
    jpeg: str


@dataclass(frozen=True)
class Picture:
    """One case.

    Attributes:
        case: name.
        caption: which runs and slice are shown.
        panels: image, ground truth, and of every row what is wrong in its prediction; () if they could not be made.
        key: colours and what they mean.
        problem: why there are no panels.
    """

    case: str
    caption: str
    panels: Sequence[Panel] = ()
    key: Sequence[tuple[str, str]] = ()
    problem: str = ""


def most_different(arena: Arena, count: int) -> list[str]:
    """Cases in order of the range of the trainers' values, largest first; only cases that at least two have."""
    trainers = [row.label for row in arena.rows if not row.human]
    values = arena.per_case(arena.metric)[trainers].astype(float)
    finite = values.where(np.isfinite(values))
    spread = (finite.max(axis=1) - finite.min(axis=1)).sort_values(ascending=False, kind="stable")
    return [str(case) for case in spread.index[spread > 0]][:count]


def pictures(arena: Arena, count: int) -> list[Picture]:
    """Pictures of the cases that differ most; a case whose files cannot be read says so."""
    return [_picture(arena, case) for case in most_different(arena, count)]


def _picture(arena: Arena, case: str) -> Picture:
    scored = [run for run in arena.done if (run.scores["case"] == case).any()]
    runs = {row.label: run for row in arena.rows for run in reversed(scored) if run.row == row}  # the first of each
    caption = " and ".join(dict.fromkeys(f"fold {run.fold} seed {run.seed}" for run in runs.values()))
    try:
        labels, views, where = _views(case, runs)
    except (EvaluationError, OSError, ValueError) as error:
        _log.info("no picture of %s: %s", case, error)
        return Picture(case, caption, problem=str(error))
    window = window_of_most_difference([view.prediction for view in views.values()])
    parts = {label: _part(view, window) for label, view in views.items()}
    first, values, unit = next(iter(runs)), arena.per_case(arena.metric).loc[case], arena.unit(arena.metric)
    panels = [
        Panel("image", "", f"Image of {case}", _jpeg("image", views[first], labels, window)),
        Panel("ground truth", "", f"Ground truth of {case}", _jpeg("ground truth", parts[first], labels)),
    ]
    for label, view in parts.items():
        alternative = f"What is wrong in the prediction of {label} for {case}"
        panels.append(Panel(label, number(float(values[label]), unit), alternative, _jpeg("differences", view, labels)))
    styles = [(style_of(i, len(labels.classes)), name) for i, name in enumerate(labels.classes)]
    key = [(style.colour, f"{style.number} {name}".strip()) for style, name in styles]
    key += [(ERRORS[kind], kind) for kind in kinds_of_error([*views.values()], labels.classes)]
    return Picture(case, caption + where, panels, key)


def _views(case: str, runs: Mapping[str, Scored]) -> tuple[LabelSet, dict[str, View], str]:
    """(labels, what is to be seen of each row, which slice in words)."""
    first, predictions = next(iter(runs.values())), {}
    labels = find_labels(first.references, first.predictions) or read_dataset_json(first.model.parent / "dataset.json")
    images = find_images(first.images, [case])[case]
    image = read_image(images, 0, labels.reader)
    for label, run in runs.items():
        pair = CasePair(case, _file(run.references, case), _file(run.predictions, case))
        _, truth, predictions[label] = read_case(pair, images, labels, image=image)
    index = slice_of_most_difference(truth, [*predictions.values()])
    cut, views = slice(index, index + 1), {}
    sliced = replace(image, array=image.array[cut])
    for label, prediction in predictions.items():
        (views[label],) = look_at(case, sliced, truth[cut], prediction[cut], labels).views
    where = "" if len(truth) == 1 else f"; slice {index + 1} of {len(truth)}, where the predictions differ most"
    return labels, views, where


def _part(view: View, window: tuple[slice, slice]) -> View:
    arrays = {name: getattr(view, name)[window] for name in ("image", "truth", "prediction", "ignored")}
    return replace(view, **arrays)


def _jpeg(panel: str, view: View, labels: LabelSet, window: tuple[slice, slice] | None = None) -> str:
    """A panel of `draw_panel`, with a frame around the window if that is a part of it."""
    ratio = view.truth.shape[0] * view.aspect / view.truth.shape[1]  # height over width
    with settings():
        figure = Figure(figsize=(_PANEL, _PANEL * min(max(ratio, 0.3), 2.0)))
        axes = figure.add_axes((0, 0, 1, 1))
        draw_panel(axes, panel, view, labels.classes)
        axes.set_title("")
        if window and view.truth[window].size < view.truth.size:
            rows, columns = window
            box = columns.start - 0.5, rows.start - 0.5
            axes.add_patch(Rectangle(box, _WINDOW, _WINDOW, fill=False, edgecolor="white", lw=1.5))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="jpeg", dpi=_DPI, pil_kwargs={"quality": 85})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def slice_of_most_difference(truth: np.ndarray, predictions: Sequence[np.ndarray]) -> int:
    """Along the first axis: where most voxels are not labelled alike by all; of equals, where there is most truth."""
    differ = _differ(predictions)
    return int(np.argmax((differ if differ.any() else truth > 0).sum(axis=(1, 2))))


def window_of_most_difference(predictions: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns of a square of `_WINDOW` pixels in which most are not labelled alike by all; everything, where
    no side is more than twice as long."""
    differ = _differ(predictions)
    if max(differ.shape) <= 2 * _WINDOW:
        return slice(0, differ.shape[0]), slice(0, differ.shape[1])
    shares = uniform_filter(differ.astype(np.float32), _WINDOW, mode="constant")
    middle = np.unravel_index(np.argmax(shares), shares.shape)
    starts = (max(0, min(int(at) - _WINDOW // 2, size - _WINDOW)) for at, size in zip(middle, differ.shape))
    rows, columns = (slice(start, start + _WINDOW) for start in starts)
    return rows, columns


def _differ(predictions: Sequence[np.ndarray]) -> np.ndarray:
    return np.any([one != predictions[0] for one in predictions], axis=0)


def _file(folder: Path, case: str) -> Path:
    found = find_label_files(folder, folder.name)
    if case not in found:
        raise EvaluationError(f"{folder} has no file of {case}")
    return found[case]
