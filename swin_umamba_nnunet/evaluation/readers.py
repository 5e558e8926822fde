"""Label files and images, read by nnU-Net's own readers, with damage noticed that they pass over.

The files are read as nnU-Net reads them (array axes z, y, x and spacing in the same order); labels are then freed of
nnU-Net's conventions: a 2D image is a (H, W) array with its in-plane spacing, and where the file has no physical
spacing (PNG, BMP, TIFF without a spacing file) the unit is the pixel, never the millimetre.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet._volume_files import NotFiniteError, VolumeFileError, read_header, require_whole
from swin_umamba_nnunet.evaluation.cases import FILE_ENDINGS, CasePair
from swin_umamba_nnunet.evaluation.records import EvaluationError

_PIXEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
_SPACING_TOLERANCE = 1e-3  # relative; headers store float32, and some writers round to a few digits


@dataclass(frozen=True)
class Segmentation:
    """A label map as the file has it.

    Attributes:
        array: (H, W) or (D, H, W), unsigned integers; axis order y, x or z, y, x.
        spacing: distance between neighbouring elements along each axis of `array`, in `unit`.
        unit: "mm", or "px" (2D) and "voxel" (3D) where the file format has no physical spacing.
        direction: direction cosines of the header, row by row; empty where the reader gives none.
        path: where it was read from.
    """

    array: np.ndarray
    spacing: tuple[float, ...]
    unit: str
    direction: tuple[float, ...]
    path: Path


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


def read_segmentation(path: Path | str, reader: str | None = None) -> Segmentation:
    """Read one label file with the reader nnU-Net takes for its ending.

    Args:
        path: the file.
        reader: name of one of nnU-Net's readers (dataset.json's `overwrite_image_reader_writer`) to use instead.

    Raises:
        EvaluationError: unreadable, several channels (RGB), or values that are no labels (fractions, negative,
            not finite); the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise EvaluationError(f"{path} does not exist; expected a label file")
    found = read_file(path, reader, "a label file")
    array, spacing = found.array, found.properties["spacing"]
    if array.ndim != 4:
        raise EvaluationError(f"{path} has the shape {array.shape}; expected an image or a volume of labels")
    if array.shape[0] != 1:
        kind = "RGB or RGBA" if path.name.lower().endswith(_PIXEL_ENDINGS) else "4D"
        raise EvaluationError(
            f"{path} has {array.shape[0]} channels ({kind}); expected one channel of label numbers 0, 1, 2, ... "
            "(a palette PNG counts as RGB: save the indices instead of the colours)"
        )
    labels = _as_labels(array[0], path)
    if labels.shape[0] == 1:  # nnU-Net's way to hold a 2D image; its first spacing (999, or 999 x) means nothing
        labels, spacing = labels[0], spacing[1:]
    if len(spacing) != labels.ndim:
        raise EvaluationError(f"{path} has the shape {array.shape}; expected an image or a volume of one channel")
    no_spacing = found.is_picture or "no spacing file" in found.said
    unit = "mm" if not no_spacing else "px" if labels.ndim == 2 else "voxel"
    direction = found.properties.get("sitk_stuff", {}).get("direction", ())
    return Segmentation(labels, tuple(map(float, spacing)), unit, tuple(map(float, direction)), path)


def read_pair(pair: CasePair, reader: str | None = None) -> tuple[Segmentation, Segmentation]:
    """Ground truth and prediction of a case.

    Raises:
        EvaluationError: one cannot be read, or their shapes or spacings differ.
    """
    declared = declared_shape(pair.ground_truth), declared_shape(pair.prediction)
    # numbers of voxels, because a reader may turn the axes; before gigabytes are read of a file that cannot fit
    if declared[0] and declared[1] and math.prod(declared[0]) != math.prod(declared[1]):
        raise _differing(pair, "shape", *declared)
    truth, prediction = read_segmentation(pair.ground_truth, reader), read_segmentation(pair.prediction, reader)
    if truth.array.shape != prediction.array.shape:
        raise _differing(pair, "shape", truth.array.shape, prediction.array.shape)
    if truth.unit == prediction.unit == "mm" and not np.allclose(
        truth.spacing, prediction.spacing, rtol=_SPACING_TOLERANCE, atol=0
    ):
        spacings = (f"{by(f'{value:g}' for value in one.spacing)} mm" for one in (truth, prediction))
        raise _differing(pair, "spacing", *spacings)
    return truth, prediction


def _differing(pair: CasePair, what: str, truth: object, prediction: object) -> EvaluationError:
    return EvaluationError(
        f"case {pair.name}: the ground truth {pair.ground_truth} has the {what} {truth} and the prediction "
        f"{pair.prediction} {prediction}; expected the same (axes z, y, x)"
    )


def _as_labels(array: np.ndarray, path: Path) -> np.ndarray:
    """The array in the smallest unsigned type that holds it."""
    if array.size == 0:
        raise EvaluationError(f"{path} has the shape {array.shape} and no pixels")
    low, high, expected = array.min(), array.max(), "expected whole label numbers 0, 1, 2, ..."
    if not (np.isfinite(low) and np.isfinite(high)):
        raise EvaluationError(f"{path} has values that are not finite; {expected}")
    if low < 0:
        raise EvaluationError(f"{path} has the negative value {low:g}; {expected}")
    labels = array.astype(np.uint8 if high < 256 else np.uint16 if high < 65536 else np.uint32)
    if (fractions := array[labels != array]).size:
        raise EvaluationError(
            f"{path} has fractions such as {fractions[0]}; {expected} (probabilities have to be thresholded first)"
        )
    return labels


def read_image(files: Sequence[Path], channel: int = 0, reader: str | None = None) -> Image:
    """Read what is shown of a case: the colours of an RGB picture, one channel of anything else.

    Args:
        files: of one case, one per channel, or a single one that holds them all.
        channel: which one, from 0; without effect on RGB pictures.
        reader: name of one of nnU-Net's readers (dataset.json's `overwrite_image_reader_writer`) to use instead.

    Raises:
        EvaluationError: not readable, or there is no such channel.
    """
    several = len(files) > 1
    path = files[channel] if several and channel < len(files) else files[0]
    found = read_file(path, reader, "an image")
    array, (z, y, x) = found.array, map(float, found.properties["spacing"])
    count = len(files) if several else len(array)
    if found.is_picture and len(array) in (3, 4):
        shown = colours_of(array)
    elif channel < count:
        shown = array[0 if several else channel]
    else:
        raise EvaluationError(f"{path} was asked for channel {channel}; expected one of 0 to {count - 1}")
    return Image(shown, (z, y, x), _direction(found.properties))


def colours_of(array: np.ndarray) -> np.ndarray:
    """(3 or 4, D, H, W) in the range of 8 or 16 bits or in [0, 1] -> (D, H, W, 3) in [0, 255]."""
    highest = float(array[:3].max(initial=0))
    scale = 255.0 if highest <= 1 else 1.0 if highest <= 255 else 255.0 / 65535
    return np.moveaxis(array[:3], 0, -1) * scale


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


@dataclass(frozen=True)
class FileContent:
    """What one of nnU-Net's readers returned.

    Attributes:
        array: (C, D, H, W).
        properties: of the reader; "spacing" has 3 values, z, y, x.
        is_picture: the file is of a 2D picture format, which knows no spacing.
        said: what the reader printed, which is how it warns.
    """

    array: np.ndarray
    properties: dict[str, Any]
    is_picture: bool
    said: str


def read_file(path: Path, reader: str | None, kind: Literal["a label file", "an image"]) -> FileContent:
    """Read one file with nnU-Net's reader.

    Args:
        path: the file.
        reader: name of an nnU-Net reader to use instead of the one for the ending.
        kind: what it is read as.

    Raises:
        EvaluationError: the file has an unknown ending, cannot be read, is cut off or damaged, or is a label file
            with values that are not finite.
    """
    printed, is_label = io.StringIO(), kind == "a label file"
    try:
        header = read_header(path)
        if header is not None:
            # an image's NaN are shown, as black; in a label file they would be background
            require_whole(header, finite=is_label)
        with contextlib.redirect_stdout(printed):
            used = _reader_for(path, reader)()
            array, properties = used.read_seg(str(path)) if is_label else used.read_images((str(path),))
    except EvaluationError:
        raise
    except NotFiniteError as error:
        raise EvaluationError(f"{path} has values that are no labels: {error}; 0, 1, 2, ... are expected") from error
    except VolumeFileError as error:
        raise EvaluationError(f"{path} cannot be read as {kind}: {error}") from error
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise EvaluationError(f"{path} cannot be read as {kind} ({reason}); is it damaged or empty?") from error
    return FileContent(array, properties, type(used).__name__ == "NaturalImage2DIO", printed.getvalue())


def declared_shape(path: Path) -> tuple[int, ...] | None:
    """Shape by the header alone, slices first; None where the format or the file does not tell."""
    try:
        header = read_header(path)
    except (VolumeFileError, OSError):
        return None  # reading it says what is wrong
    return None if header is None else header.shape


def _reader_for(path: Path, name: str | None):
    """The class of nnU-Net's reader of that name, or else for the file's ending; a TIFF is 2D or 3D by what is in it.

    Raises:
        EvaluationError: nnU-Net has none.
    """
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    if name:
        try:
            return recursive_find_reader_writer_by_name(name)
        except RuntimeError as error:
            raise EvaluationError(
                f"nnU-Net has no reader {name} (dataset.json, overwrite_image_reader_writer)"
            ) from error
    ending = path.name.lower()
    if ending.endswith((".tif", ".tiff")):
        import tifffile

        with tifffile.TiffFile(path) as file:
            axes = file.series[0].axes
        # nnU-Net's 3D reader would take an RGB image for a volume, its 2D reader a volume of 3 slices for RGB; what
        # nnU-Net writes of 3 or 4 slices has them as separate colour planes (SYX), where a picture has YXS
        return Tiff3DIO if len(axes) == 3 and not axes.endswith("S") else NaturalImage2DIO
    for reader in (NaturalImage2DIO, SimpleITKIO, NibabelIO):
        if ending.endswith(tuple(reader.supported_file_endings)):
            return reader
    raise EvaluationError(f"{path}: nnU-Net has no reader for this ending; it reads {', '.join(FILE_ENDINGS)}")
