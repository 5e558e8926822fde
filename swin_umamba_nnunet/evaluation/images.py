"""The images behind the label files: found by the case's name, read by nnU-Net's readers, for looking at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.readers import FILE_ENDINGS, read_file


@dataclass(frozen=True)
class Image:
    """What is shown of an image.

    Attributes:
        array: (D, H, W) values of one channel, or (D, H, W, 3) colours in [0, 255]; D = 1 for a 2D image.
        spacing_mm: of the three axes; 1 where the file has none, and meaningless for D of a 2D image.
        direction: (3, 3) direction cosines of the x, y, z axes (columns) in LPS coordinates, None where unknown.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: np.ndarray | None


def find_images(folder: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The image files of each case: nnU-Net's CASE_0000.ENDING, CASE_0001.ENDING, ..., or else CASE.ENDING.

    Args:
        folder: nnU-Net's imagesTr or imagesTs, or any folder of that kind.
        names: of the cases.

    Raises:
        EvaluationError: the folder does not exist, or has no image of a case.
    """
    if not folder.is_dir():
        raise EvaluationError(f"the image folder {folder} does not exist; expected nnU-Net's imagesTr or imagesTs")
    there = {path.name: path for path in folder.iterdir()}
    found = {name: files for name in names if (files := _files_of(there, name))}
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and of {len(missing) - 1} more cases" if len(missing) > 1 else ""
        raise EvaluationError(
            f"the image folder {folder} has no image of the case {missing[0]}{more}; expected {missing[0]}_0000 with "
            f"one of the endings {', '.join(FILE_ENDINGS)}"
        )
    return found


def _files_of(there: dict[str, Path], name: str) -> list[Path]:
    for ending in FILE_ENDINGS:
        files: list[Path] = []
        while (file := there.get(f"{name}_{len(files):04d}{ending}")) is not None:
            files.append(file)
        if files:
            return files
    return next(([there[name + ending]] for ending in FILE_ENDINGS if name + ending in there), [])


def read_image(files: Sequence[Path], channel: int = 0, reader: str | None = None) -> Image:
    """Read what is shown of a case: the colours of an RGB picture, one channel of anything else.

    Args:
        files: of one case, one per channel, or a single one that holds them all.
        channel: which one, from 0; without effect on RGB pictures.
        reader: name of one of nnU-Net's readers (dataset.json's `overwrite_image_reader_writer`) to use instead.

    Raises:
        EvaluationError: not readable, or there is no such channel.
    """
    path = files[0] if len(files) <= channel or len(files) == 1 else files[channel]
    found = read_file(path, reader, "an image")
    array, direction, (z, y, x) = found.array, _direction(found.properties), found.properties["spacing"]
    spacing = (float(z), float(y), float(x))
    if found.is_picture and array.shape[0] in (3, 4):
        return Image(_colours(array[:3]), spacing, direction)
    count = len(files) if len(files) > 1 else array.shape[0]
    if channel >= count:
        raise EvaluationError(f"{path} was asked for channel {channel}; expected one of 0 to {count - 1}")
    return Image(array[0 if len(files) > 1 else channel], spacing, direction)


def _colours(array: np.ndarray) -> np.ndarray:
    """(3, D, H, W) in the file's range, 8 or 16 bits or [0, 1] -> (D, H, W, 3) in [0, 255]."""
    highest = float(array.max(initial=0))
    scale = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 255.0 / 65535
    return np.moveaxis(array, 0, -1) * scale


def _direction(properties: dict) -> np.ndarray | None:
    if "sitk_stuff" in properties:
        cosines = np.asarray(properties["sitk_stuff"]["direction"], dtype=float)
        if cosines.size == 4:  # a 2D file
            return None
        size = round(cosines.size**0.5)
        return cosines.reshape(size, size)[:3, :3]  # the fourth dimension of a file of several channels is not space
    affines = properties.get("nibabel_stuff", {})
    affine = affines.get("reoriented_affine", affines.get("original_affine"))
    if affine is not None:
        axes = np.asarray(affine, dtype=float)[:3, :3]
        return np.diag((-1.0, -1.0, 1.0)) @ axes / np.linalg.norm(axes, axis=0).clip(min=1e-12)
    return None
