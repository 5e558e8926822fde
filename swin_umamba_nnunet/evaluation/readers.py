"""nnU-Net's own readers, each for the files it can read, with damage noticed that they pass over."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from swin_umamba_nnunet._volume_files import NotFiniteError, VolumeFileError, read_header, require_whole
from swin_umamba_nnunet.evaluation.errors import EvaluationError

# What nnU-Net's readers read, longest first so that ".nii.gz" is not taken for ".gz".
FILE_ENDINGS = (".nii.gz", ".tiff", ".nrrd", ".gipl", ".nii", ".mha", ".png", ".bmp", ".tif")


def read_array(path: Path, reader: str | None) -> tuple[np.ndarray, Sequence[float], tuple[float, ...], bool]:
    """Read one file.

    Args:
        path: the file.
        reader: name of an nnU-Net reader to use instead of the one for the ending.

    Returns:
        Array (C, D, H, W); spacing (3 values, z, y, x); direction cosines or (); whether the file has a spacing.

    Raises:
        EvaluationError: the file is not there, has an unknown ending, or cannot be read.
    """
    if not path.is_file():
        raise EvaluationError(f"{path} does not exist; expected a label file")
    found = read_file(path, reader, "a label file")
    no_spacing = found.is_picture or "no spacing file" in found.said
    direction = tuple(float(value) for value in found.properties.get("sitk_stuff", {}).get("direction", ()))
    return found.array, found.properties["spacing"], direction, not no_spacing


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
    printed = io.StringIO()
    try:
        header = read_header(path)
        if header is not None:
            # an image's NaN are shown, as black; in a label file they would be background
            require_whole(header, finite=kind == "a label file")
        with contextlib.redirect_stdout(printed):
            reader_class = _named_reader(reader) if reader else _reader_for(path)
            instance = reader_class()
            array, properties = (
                instance.read_seg(str(path)) if kind == "a label file" else instance.read_images((str(path),))
            )
    except EvaluationError:
        raise
    except NotFiniteError as error:
        raise EvaluationError(f"{path} has values that are no labels: {error}; 0, 1, 2, ... are expected") from error
    except VolumeFileError as error:
        raise EvaluationError(f"{path} cannot be read as {kind}: {error}") from error
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise EvaluationError(f"{path} cannot be read as {kind} ({reason}); is it damaged or empty?") from error
    return FileContent(array, properties, reader_class.__name__ == "NaturalImage2DIO", printed.getvalue())


def declared_shape(path: Path) -> tuple[int, ...] | None:
    """Shape by the header alone, slices first; None where the format or the file does not tell."""
    try:
        header = read_header(path)
    except (VolumeFileError, OSError):
        return None  # reading it says what is wrong
    return None if header is None else header.shape


def _reader_for(path: Path):
    """The class of nnU-Net's reader for a file by its ending; a TIFF is 2D or 3D by what is in it.

    Raises:
        EvaluationError: nnU-Net has none for this ending.
    """
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    name = path.name.lower()
    if name.endswith((".tif", ".tiff")):
        import tifffile

        with tifffile.TiffFile(path) as file:
            axes = file.series[0].axes
        # nnU-Net's 3D reader would take an RGB image for a volume, its 2D reader a volume of 3 slices for RGB; what
        # nnU-Net writes of 3 or 4 slices has them as separate colour planes (SYX), where a picture has YXS
        return Tiff3DIO if len(axes) == 3 and not axes.endswith("S") else NaturalImage2DIO
    for reader in (NaturalImage2DIO, SimpleITKIO, NibabelIO):
        if name.endswith(tuple(reader.supported_file_endings)):
            return reader
    raise EvaluationError(f"{path}: nnU-Net has no reader for this ending; it reads {', '.join(FILE_ENDINGS)}")


def _named_reader(name: str):
    """The class of nnU-Net's reader of that name.

    Raises:
        EvaluationError: nnU-Net has none.
    """
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    try:
        return recursive_find_reader_writer_by_name(name)
    except RuntimeError as error:
        raise EvaluationError(f"nnU-Net has no reader {name} (dataset.json, overwrite_image_reader_writer)") from error
