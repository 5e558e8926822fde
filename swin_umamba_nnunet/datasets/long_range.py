"""A made-up dataset that local evidence cannot solve: what a square is depends on a mark far away from it.

Every image is noise with one mark, a ring or a disc, and two or three squares.  All squares look alike.  Those of an
image with a ring are class 1, those of an image with a disc class 2, and no square comes nearer to the mark than
`MIN_DISTANCE` pixels.  The mark is background.  A network that sees less than that around a pixel can find the squares
and has to guess their class, one guess per image.

It tests one thing, carrying one bit across the image, in pictures no scanner ever took.  It says nothing about
medical images; networks that cannot do this may be better there.

Made for nnU-Net's augmentation: shapes instead of grey values tell ring from disc (nnU-Net inverts images), everything
lies within a circle about the centre that survives its zoom and rotations, and mirroring changes no class.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from swin_umamba_nnunet._atomic import new_folder
from swin_umamba_nnunet.datasets._model import write_dataset_json

LONG_RANGE_DATASET_ID = 153
LONG_RANGE_DATASET_NAME = "Dataset153_LongRange"
LABELS = {"background": 0, "square of a ring": 1, "square of a disc": 2}
FILE_ENDING = ".png"

SIZE = 96  # pixels per side
MARK_RADIUS = 7  # pixels
RING_HOLE = 4  # pixels, radius of the hole that makes a disc a ring
HALF_SQUARE = 4  # pixels from a square's centre to its edge
MIN_DISTANCE = 40  # pixels between the mark's edge and any pixel of a square
# From the image's centre to the far edge of anything drawn: nnU-Net enlarges images by up to 1.4, and rotates them.
FIELD_RADIUS = SIZE / 2 / 1.4


@dataclass(frozen=True)
class Picture:
    """One case.

    Attributes:
        image: (SIZE, SIZE) uint8.
        labels: (SIZE, SIZE) uint8, values of `LABELS`.
        mark: centre of the mark, (row, column) in pixels.
        ring: whether the mark is a ring.
    """

    image: np.ndarray
    labels: np.ndarray
    mark: tuple[float, float]
    ring: bool


def draw(seed: int) -> Picture:
    """The picture of a seed, 0 or above; the same on every machine."""
    random = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    angle, ring = random.uniform(0, 2 * np.pi), bool(seed % 2)
    radius = FIELD_RADIUS - MARK_RADIUS - 1
    mark = radius * np.sin(angle), radius * np.cos(angle)
    from_mark = np.hypot(rows - mark[0], columns - mark[1])
    foreground = from_mark <= MARK_RADIUS
    if ring:
        foreground &= from_mark > RING_HOLE
    squares = np.zeros((SIZE, SIZE), dtype=bool)
    side, gap = 2 * HALF_SQUARE, 3
    forbidden = (np.hypot(rows, columns) > FIELD_RADIUS) | (from_mark < MARK_RADIUS + MIN_DISTANCE)
    allowed = ~sliding_window_view(forbidden, (side, side)).any(axis=(2, 3))  # by a square's first row and column
    left, wanted = allowed.copy(), random.integers(2, 4)  # two or three
    while wanted:
        if not left.any():  # some first squares leave no place for another: start again
            left, wanted = allowed.copy(), wanted + squares.sum() // side**2
            squares[:] = False
        y, x = random.uniform(-FIELD_RADIUS, FIELD_RADIUS, 2)
        row, column = (math.ceil(each - HALF_SQUARE + (SIZE - 1) / 2) for each in (y, x))
        if left[row, column]:
            squares[row : row + side, column : column + side] = True
            reach = side + gap - 1
            left[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = False
            wanted -= 1
    noise = random.normal(0, 20, (SIZE, SIZE))
    image = np.clip(70 + 110 * (foreground | squares) + noise, 0, 255).astype(np.uint8)
    labels = np.where(squares, 1 if ring else 2, 0).astype(np.uint8)
    centre = (SIZE - 1) / 2
    return Picture(image, labels, (mark[0] + centre, mark[1] + centre), ring)


def write_long_range_dataset(raw_folder: Path, training: int = 60, held_out: int = 30, seed: int = 0) -> Path:
    """Write the pictures as an nnU-Net raw dataset, labelled test cases (labelsTs) included.

    Args:
        raw_folder: what nnU-Net calls nnUNet_raw; created if it does not exist.
        training, held_out: numbers of images; half of each have a ring.
        seed: of the first picture; the others count on from it.

    Returns:
        The dataset's folder, `raw_folder / LONG_RANGE_DATASET_NAME`.

    Raises:
        FileExistsError: the dataset's folder is already there; it is left as it is.
    """
    with new_folder(raw_folder / LONG_RANGE_DATASET_NAME) as folder:
        for part in ("Tr", "Ts"):
            (folder / f"images{part}").mkdir()
            (folder / f"labels{part}").mkdir()
        for index in range(training + held_out):
            part = "Tr" if index < training else "Ts"
            picture, case = draw(seed + index), f"picture_{index:03d}"
            Image.fromarray(picture.image).save(folder / f"images{part}" / f"{case}_0000{FILE_ENDING}")
            Image.fromarray(picture.labels).save(folder / f"labels{part}" / f"{case}{FILE_ENDING}")
        write_dataset_json(
            folder,
            ["zscore"],
            LABELS,
            FILE_ENDING,
            LONG_RANGE_DATASET_NAME,
            f"Generated; the class of a square depends on a mark at least {MIN_DISTANCE} px away.",
            reference=f"swin_umamba_nnunet.datasets.long_range, seed {seed}",
        )
    return raw_folder / LONG_RANGE_DATASET_NAME
