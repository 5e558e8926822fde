"""Released models as the authors' copies of nnU-Net 2.1 wrote them, with golden weights in them."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.models.building import modern_plans
from tests import golden
from tests.jsons import dump
from tests.trainers.conftest import tiny

DATASET = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}, "file_ending": ".nii.gz"}


def old_plans(patch=(64, 96), stages=6, width=32):
    """plans.json as nnU-Net 2.1 wrote it: the architecture is spread over the configuration."""
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [float(size) for size in patch],
        "spacing": [1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": width,
        "unet_max_num_features": 16 * width,
        "n_conv_per_stage_encoder": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "num_pool_per_axis": [stages - 1] * 2,
        "pool_op_kernel_sizes": [[1, 1], *[[2, 2]] * (stages - 1)],
        "conv_kernel_sizes": [[3, 3]] * stages,
        "batch_dice": True,
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        how = {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        configuration |= {f"resampling_fn_{what}": "resample_data_or_seg_to_shape", f"resampling_fn_{what}_kwargs": how}
    return {
        "dataset_name": "Dataset702_AbdomenMR",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, *patch],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
    }


@functools.lru_cache(maxsize=1)  # 0.2 GB where they are not narrow
def their_weights(name, narrow):
    """Golden weights of a case under every name the authors' state dict has; of U-Mamba_Bot an eighth as wide."""
    aliases = golden.manifest()[name].get("aliases", {})
    shapes = golden.shapes(name)
    if narrow:
        shapes = {key: tuple(side if side < 32 else side // 8 for side in shape) for key, shape in shapes.items()}
        (projection,) = (key for key in shapes if key.endswith("x_proj.weight"))
        shapes[projection] = (4 + 2 * 16, shapes[projection][1])  # to the step size, B and C; 16 states
    weights = golden.weights({key: shape for key, shape in shapes.items() if key not in aliases})
    return {key: weights[aliases.get(key, key)] for key in shapes}


def checkpoint_of(weights, plans, trainer, dataset=DATASET):
    """What nnU-Net saves."""
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "train_losses": [np.float64(-0.1)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 100,
        "init_args": {
            "plans": plans,
            "configuration": "2d",
            "fold": 0,
            "dataset_json": dataset,
            "unpack_dataset": True,
            "device": torch.device("cuda", 0),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1),
    }


def their_checkpoint(name, narrow=False):
    """What their nnU-Net saved."""
    trainer = "nnUNetTrainerSwinUMamba" if name.startswith("swin") else "nnUNetTrainerUMambaEnc"
    return checkpoint_of(dict(their_weights(name, narrow)), old_plans(width=4 if narrow else 32), trainer)


@pytest.fixture
def released(tmp_path):
    """A function (golden case, folds=, narrow=, **changes to the checkpoint) -> the authors' model folder."""

    def write(name, folds=("fold_all",), narrow=False, **changes):
        folder = tmp_path / "released" / "nnUNetTrainer__nnUNetPlans__2d"
        folder.mkdir(parents=True)
        checkpoint = their_checkpoint(name, narrow) | changes
        dump(folder / "plans.json", checkpoint["init_args"]["plans"])
        dump(folder / "dataset.json", DATASET)
        for fold in folds:
            (folder / fold).mkdir()
            torch.save(checkpoint, folder / fold / "checkpoint_final.pth")
        return folder

    return write


@pytest.fixture
def full_disk():
    """A context (bytes) in which no file may grow further: by a limit to their size, which fails in the same calls."""
    if os.name != "posix":
        pytest.skip("needs a limit to the size of files")
    import resource

    @contextlib.contextmanager
    def full(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture
def small_networks(monkeypatch):
    """Networks of few numbers under the trainers' names."""
    for name in ("SwinUMambaScratch", "SwinUMambaD", "SwinUMambaDScratch", "VMUNet"):
        small = tiny(f"nnUNetTrainer{name}")
        monkeypatch.setattr(small.__base__, "network_settings", small.network_settings)


CHECKPOINT = Path("fold_0", "checkpoint_final.pth")


def network_of(name, channels=1, heads=4, patch=(32, 40)):
    manager = PlansManager(modern_plans(old_plans(patch, 4), "here"))
    torch.manual_seed(0)
    build = getattr(trainers, name).build_network_architecture
    return build(manager, manager.get_configuration("2d"), channels, heads, False).eval()


@pytest.fixture
def trained(tmp_path):
    """A function (trainer, channels, **changes to the checkpoint) -> (network, model folder) as after a training."""

    def write(name, channels=1, **changes):
        plans, network = modern_plans(old_plans((32, 40), 4), "here"), network_of(name, channels)
        for setting in ("normalization_schemes", "use_mask_for_norm"):
            plans["configurations"]["2d"][setting] *= channels
        properties = plans["foreground_intensity_properties_per_channel"]
        properties |= {str(channel): properties["0"] for channel in range(channels)}
        dataset = {**DATASET, "channel_names": {str(channel): "MR" for channel in range(channels)}}
        folder = tmp_path / "model"
        (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
        dump(folder / "plans.json", plans)
        dump(folder / "dataset.json", dataset)
        content = checkpoint_of(network.state_dict(), plans, name, dataset)
        torch.save(content | changes, folder / CHECKPOINT)
        return network, folder

    return write
