"""Small label files of every kind."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from skimage import io

from swin_umamba_nnunet.evaluation import EvaluationError, evaluate_folders
from tests.messages import raises

SPACING = (3.0, 1.5, 0.5)  # z, y, x in mm


def write_volume(path, labels, spacing=SPACING, origin=()):
    """A NIfTI, NRRD or MHA file of a label array (D, H, W) or (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing([float(value) for value in spacing[::-1][: labels.ndim]])
    image.SetOrigin(origin or (0.0,) * labels.ndim)
    sitk.WriteImage(image, str(path))
    return path


def write_image(path, labels):
    """A PNG, BMP or TIFF file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        colours = labels.ndim == 3 and labels.shape[-1] in (3, 4)
        tifffile.imwrite(path, labels, photometric="rgb" if colours else "minisblack")
    else:
        io.imsave(path, labels, check_contrast=False)
    return path


def blobs(seed, shape=(20, 24), classes=3):
    """A label map with boxes of the classes 1 ... `classes`, uint8."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for value in range(1, classes + 1):
        start = [generator.integers(0, max(1, size // 2)) for size in shape]
        labels[tuple(slice(s, s + max(2, size // 3)) for s, size in zip(start, shape))] = value
    return labels


def write_twice(root, labels):
    """The same image as ground truth and as prediction; returns the folder of both."""
    for side in ("gt", "pred"):
        write_image(root / side / "a.png", labels)
    return root


def write_folders(root, n_cases=3, shape=(20, 24), ending=".png"):
    """Ground truth and predictions, slightly different."""
    write = write_image if ending in (".png", ".bmp", ".tif", ".tiff") else write_volume
    for case in range(n_cases):
        truth = blobs(case, shape)
        write(root / "gt" / f"case_{case}{ending}", truth)
        write(root / "pred" / f"case_{case}{ending}", np.roll(truth, 1, axis=-1))
    return root / "gt", root / "pred"


def evaluated(where, protocol=None, **options):
    """The result for two folders, or for gt and pred in one folder, fast."""
    folders = (where / "gt", where / "pred") if isinstance(where, Path) else where
    return evaluate_folders(*folders, protocol=protocol, **{"processes": 1, "resamples": 20, **options})


def refused(*facts):
    """What ends in an `EvaluationError` that names all facts."""
    return raises(EvaluationError, *facts)
