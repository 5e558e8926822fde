"""The demo's picture: held-out slices with truth and prediction side by side, and the training curve below."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from swin_umamba_nnunet.cli._demo.scores import CLASSES, Scores
from swin_umamba_nnunet.datasets.brain import FILE_ENDING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {1: "#2a9d8f", 2: "#f4a261"}  # grey matter, white matter
_WRONG = "#d62839"


@dataclass(frozen=True)
class Slice:
    """One axial slice of a held-out slab: image, truth and prediction (H, W), front of the head at the top."""

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
    image, truth, prediction = (sitk.GetArrayFromImage(volume)[middle, ::-1] for volume in volumes)
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

    figure = Figure(figsize=(11, 3.1 * len(slices) + 3.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.1 * len(slices), 3.0])[:, 0]
    figure.suptitle(f"{title}\nmean foreground Dice on held-out slabs: {scores.foreground:.3f}", fontsize=13)
    for row, one in zip(upper.subplots(len(slices), 4, squeeze=False), slices):
        _draw_slice(row, one, scores.cases[one.case])
    _legend(upper)
    _draw_curve(lower.subplots(), curve)
    unfinished = path.with_suffix(".tmp.png")
    figure.savefig(unfinished, dpi=110)
    unfinished.replace(path)


def _draw_slice(row: "list[Axes]", one: Slice, dice: dict[int, float]) -> None:
    box = _box(one.image > 0)
    image = one.image[box]
    layers = (
        (f"image, MNI z = {one.z_mm:.0f} mm", None),
        ("truth", one.truth[box]),
        ("prediction", one.prediction[box]),
        ("wrong voxels", None),
    )
    for axes, (title, labels) in zip(row, layers):
        axes.imshow(image, cmap="gray", vmin=0, vmax=max(float(image.max()), 1e-6))
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        if labels is not None:
            for label, colour in _COLOURS.items():
                axes.imshow(_painted(labels == label, colour))
    row[3].imshow(_painted(one.truth[box] != one.prediction[box], _WRONG))
    scores = "\n".join(f"Dice {CLASSES[label]}: {value:.3f}" for label, value in dice.items())
    row[0].text(-0.03, 0.5, f"{one.case}\n{scores}", transform=row[0].transAxes, ha="right", va="center", fontsize=10)


def _box(mask: np.ndarray, margin: int = 6) -> tuple[slice, slice]:
    if not mask.any():
        return slice(None), slice(None)
    ranges = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(r[0]) - margin, 0), int(r[-1]) + margin + 1) for r in ranges)
    return rows, columns


def _painted(mask: np.ndarray, colour: str) -> np.ndarray:
    """(H, W) bool -> (H, W, 4), transparent where False."""
    from matplotlib.colors import to_rgba

    return mask[..., None] * np.array(to_rgba(colour, 0.75))


def _legend(figure) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=colour, label=CLASSES[label]) for label, colour in _COLOURS.items()]
    figure.legend(handles=[*patches, Patch(color=_WRONG, label="wrong")], loc="outside lower center", ncols=3)


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
