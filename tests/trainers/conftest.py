"""Trainers as nnU-Net constructs them, without data: a small network, plans made up for it."""

from pathlib import Path

import pytest
import torch

from swin_umamba_nnunet import trainers

TINY = {"depths": (1, 1, 1, 1), "width": 16, "d_state": 2}


def tiny(name: str, **attributes) -> type:
    """A subclass of the trainer called `name` with a small network."""
    base = getattr(trainers, name)
    decoder = {"decoder_depth": 1} if "SwinUMambaD" in name else {}
    decoder = {"depths_decoder": (1, 1, 1, 1)} if "VMUNet" in name else decoder
    settings = {**base.network_settings, **TINY, **decoder}
    return type(f"Tiny{name}", (base,), {"network_settings": settings, **attributes})


def make_plans(patch=(32, 32), batch_size: int = 2) -> dict:
    """Plans with one 2D configuration of that patch, and the usual 3D one."""
    common = {"data_identifier": "nnUNetPlans_2d", "batch_size": batch_size, "batch_dice": True, "architecture": {}}
    return {
        "dataset_name": "Dataset902_None",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {
            "2d": {**common, "patch_size": list(patch)},
            "3d_fullres": {**common, "patch_size": [16, 32, 32]},
        },
        "continue_training": False,
    }


DATASET = {"channel_names": {"0": "noise"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"}


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch) -> Path:
    """nnU-Net's three folders; the preprocessed one looks as if it held the dataset."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    data = tmp_path / "nnUNet_preprocessed" / "Dataset902_None" / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    (data / "case.b2nd").touch()
    return tmp_path


@pytest.fixture
def make_trainer(nnunet_folders):
    """A function (class, patch=, configuration=, device=) -> trainer, as `nnUNetv2_train` makes it."""

    def make(trainer_class, patch=(32, 32), configuration="2d", device="cpu"):
        return trainer_class(make_plans(patch), configuration, 0, DATASET, torch.device(device))

    return make


@pytest.fixture
def batch():
    """A function (trainer, seed=) -> a batch as nnU-Net's data loader gives it, targets made by nnU-Net."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    def make(trainer, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        size = trainer.configuration_manager.patch_size
        data = torch.randn(2, 1, *size, generator=generator)
        labels = torch.randint(0, 3, (2, 1, *size), generator=generator, dtype=torch.int16)
        scales = trainer._get_deep_supervision_scales()
        if scales is None:
            return {"data": data, "target": labels}
        per_image = [DownsampleSegForDSTransform(scales)._apply_to_segmentation(each) for each in labels]
        return {"data": data, "target": [torch.stack(each) for each in zip(*per_image)]}

    return make
