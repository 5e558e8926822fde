"""A tiny nnU-Net dataset, for tests of whole nnU-Net commands."""

import numpy as np
import SimpleITK as sitk

from tests.jsons import dump, load

NAME = "Dataset901_Synthetic"
PATCH = (33, 50)  # no multiple of any stride
NARROW = "Narrow"  # plans like nnU-Net's own, with networks of few channels
TRAINING_CASES = 5
SLICES, ROWS, COLUMNS = 2, 40, 56  # a grid that 2d and 3d_fullres plans are made for


def write_raw_dataset(raw):
    """Volumes of noise with a bright box, the label, in nnU-Net's raw format; one of them for prediction only."""
    folder = raw / NAME
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    random = np.random.default_rng(0)
    for case in range(TRAINING_CASES + 1):
        label = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
        top, left = random.integers(4, 16, 2)
        label[:, top : top + 16, left : left + 20] = 1
        image = random.normal(size=label.shape).astype(np.float32) + 3 * label
        images = "imagesTr" if case < TRAINING_CASES else "imagesTs"
        _write(image, folder / images / f"case{case}_0000.nii.gz")
        if case < TRAINING_CASES:
            _write(label, folder / "labelsTr" / f"case{case}.nii.gz")
    description = {
        "channel_names": {"0": "noise"},
        "labels": {"background": 0, "box": 1},
        "numTraining": TRAINING_CASES,
        "file_ending": ".nii.gz",
    }
    dump(folder / "dataset.json", description)


def predicted(folder):
    """The voxels of what was predicted in `folder`, of the grid that it was predicted on."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"case{TRAINING_CASES}.nii.gz")))
    assert voxels.shape == (SLICES, ROWS, COLUMNS)
    return voxels


def _write(volume, path):
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, path)


def change_plans(preprocessed):
    """Give the 2D configuration the odd patch, and two images per batch; write the narrow plans beside."""
    folder = preprocessed / NAME
    plans = load(folder / "nnUNetPlans.json")
    plans["configurations"]["2d"] |= {"patch_size": list(PATCH), "batch_size": 2}
    dump(folder / "nnUNetPlans.json", plans)
    for configuration in plans["configurations"].values():
        settings = configuration["architecture"]["arch_kwargs"]
        settings["features_per_stage"] = [8 + 4 * stage for stage in range(settings["n_stages"])]
    dump(folder / f"{NARROW}.json", plans | {"plans_name": NARROW})
