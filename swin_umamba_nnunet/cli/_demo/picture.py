"""The demo's picture: held-out slices with truth and prediction side by side, and the training curve below."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swin_umamba_nnunet.cli._demo.scores import CLASSES, Scores
from swin_umamba_nnunet.datasets.brain import FILE_ENDING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from swin_umamba_nnunet.pictures.overlay import View

_CLASSES = {name: (label,) for label, name in CLASSES.items()}


@dataclass(frozen=True)
class Slice:
    """One axial slice of a held-out slab: image, truth and prediction (H, W), as radiologists look at it."""

    case: str
    z_mm: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class Curve:
    """What the training logged, one value per epoch; `dice` is nnU-Net's pseudo Dice on validation patches."""

    train_loss: list[float]
    validation_loss: list[float]
    dice: list[float]


def read_slice(case: str, images: Path, truths: Path, predictions: Path) -> Slice:
    """The middle slice of a slab, and its height in MNI space."""
    import SimpleITK as sitk

    files = [
        images / f"{case}_0000{FILE_ENDING}",
        truths / f"{case}{FILE_ENDING}",
        predictions / f"{case}{FILE_ENDING}",
    ]
    volumes = [sitk.ReadImage(str(file)) for file in files]
    middle = volumes[0].GetDepth() // 2
    z_mm = volumes[0].TransformIndexToPhysicalPoint((0, 0, middle))[2]
    image, truth, prediction = (sitk.GetArrayFromImage(volume)[middle, ::-1, ::-1] for volume in volumes)
    return Slice(case, z_mm, image, truth, prediction)


def read_curve(checkpoint: Path) -> Curve:
    """The log that nnU-Net keeps in its checkpoints."""
    import torch

    # the file was written by the training that this process started, and nnU-Net pickles numpy scalars into it
    log = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)["logging"]
    train, validation, dice = ([float(v) for v in log[k]] for k in ("train_losses", "val_losses", "mean_fg_dice"))
    return Curve(train, validation, dice)


def draw_picture(slices: list[Slice], scores: Scores, curve: Curve, title: str, path: Path) -> None:
    """Write the PNG; one row per slice, the training curve at the bottom."""
    from matplotlib.figure import Figure

    from swin_umamba_nnunet.pictures import overlay

    figure = Figure(figsize=(11, 3.1 * len(slices) + 3.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.1 * len(slices), 3.0])[:, 0]
    figure.suptitle(f"{title}\nmean foreground Dice on held-out slabs: {scores.foreground:.3f}", fontsize=13)
    views = [_view(one) for one in slices]
    for row, one, view in zip(upper.subplots(len(slices), 4, squeeze=False), slices, views):
        _draw_slice(row, one, view, scores.cases[one.case])
    handles = overlay.legend_handles(list(_CLASSES), overlay.kinds_of_error(views, _CLASSES))
    upper.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=3)
    _draw_curve(lower.subplots(), curve)
    overlay.save_figure(figure, path, dpi=110)


def _view(one: Slice) -> "View":
    """What is drawn of a slice: the box around the head, the darkest voxel black and the brightest white."""
    from swin_umamba_nnunet.pictures.overlay import View

    box = _box(one.image > 0)
    image, truth, prediction = one.image[box], one.truth[box], one.prediction[box]
    brightness = image / max(float(image.max()), 1e-6)
    return View((), brightness, truth, prediction, np.zeros(truth.shape, bool), aspect=1.0, edges=("R", "A"))


def _draw_slice(row: "list[Axes]", one: Slice, view: "View", dice: dict[int, float]) -> None:
    from swin_umamba_nnunet.pictures.overlay import PANELS, draw_panel

    for axes, name in zip(row, PANELS):
        draw_panel(axes, name, view, _CLASSES)
    row[0].set_title(f"image, MNI z = {one.z_mm:.0f} mm", fontsize=8, pad=2)
    scores = "\n".join(f"Dice {CLASSES[label]}: {value:.3f}" for label, value in dice.items())
    row[0].text(-0.03, 0.5, f"{one.case}\n{scores}", transform=row[0].transAxes, ha="right", va="center", fontsize=10)


def _box(mask: np.ndarray, margin: int = 6) -> tuple[slice, slice]:
    if not mask.any():
        return slice(None), slice(None)
    ranges = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(r[0]) - margin, 0), int(r[-1]) + margin + 1) for r in ranges)
    return rows, columns


def _draw_curve(axes: "Axes", curve: Curve) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = range(1, len(curve.train_loss) + 1)
    axes.plot(epochs, curve.train_loss, color="#264653", label="loss, training")
    axes.plot(epochs, curve.validation_loss, color="#264653", ls="--", label="loss, validation")
    axes.set(xlabel="epoch", ylabel="loss (Dice + cross-entropy)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dice = axes.twinx()
    dice.plot(epochs, curve.dice, color="#e76f51", label="Dice on validation patches")
    dice.set(ylabel="Dice", ylim=(0, 1))
    lines = [*axes.get_lines(), *dice.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    axes.set_title("training", fontsize=10)
