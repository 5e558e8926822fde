"""A tiny nnU-Net dataset and trainers that finish in seconds, for tests of whole nnU-Net commands."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

NAME = "Dataset901_Synthetic"
PATCH = (33, 50)  # no multiple of any stride
NARROW = "Narrow"  # plans like nnU-Net's own, with networks of few channels
TRAINING_CASES = 5
SLICES, ROWS, COLUMNS = 2, 40, 56  # a grid that 2d and 3d_fullres plans are made for

# Lies in the user's own nnUNet_extTrainer folder: beside ours, and built on it.
TRAINERS = '''
import os

from swin_umamba_nnunet.trainers import (
    nnUNetTrainerSwinUMambaD,
    nnUNetTrainerSwinUMambaDScratch,
    nnUNetTrainerSwinUMambaScratch,
)


class _Short:
    """Two epochs of two iterations; dies at the start of the second one, unless it has done so before."""

    num_epochs = 2
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1
    save_every = 1

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        marker = os.path.join(self.output_folder, "has_died")
        if self.current_epoch == 1 and not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(9)

    def perform_actual_validation(self, save_probabilities=False):
        if "SKIP_VALIDATION" not in os.environ:  # it takes longer than these trainings
            super().perform_actual_validation(save_probabilities)


class TinyScratch(_Short, nnUNetTrainerSwinUMambaDScratch):
    """A small Swin-UMamba-dagger, with deep supervision."""

    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    enable_deep_supervision = True


class TinyPlain(_Short, nnUNetTrainerSwinUMambaScratch):
    """A small Swin-UMamba; one epoch, undisturbed."""

    network_settings = {"depths": (1, 1, 1, 1), "width": 16, "d_state": 2}
    num_epochs = 1


class ShortPretrained(_Short, nnUNetTrainerSwinUMambaD):
    """The real network, because ImageNet weights fit no other; its encoder is held in the first epoch."""

    frozen_epochs = 1
    num_iterations_per_epoch = 1

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy, initial, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None  # a quarter of the time in validation
        return rotation, dummy, initial, None
'''


def write_raw_dataset(raw: Path) -> None:
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
    (folder / "dataset.json").write_text(json.dumps(description))


def predicted(folder: Path) -> np.ndarray:
    """The voxels of what was predicted in `folder`, of the grid that it was predicted on."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"case{TRAINING_CASES}.nii.gz")))
    assert voxels.shape == (SLICES, ROWS, COLUMNS)
    return voxels


def _write(volume: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, path)


def change_plans(preprocessed: Path) -> None:
    """Give the 2D configuration the odd patch, and two images per batch; write the narrow plans beside."""
    folder = preprocessed / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"] |= {"patch_size": list(PATCH), "batch_size": 2}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    for configuration in plans["configurations"].values():
        settings = configuration["architecture"]["arch_kwargs"]
        settings["features_per_stage"] = [8 + 4 * stage for stage in range(settings["n_stages"])]
    (folder / f"{NARROW}.json").write_text(json.dumps({**plans, "plans_name": NARROW}))
