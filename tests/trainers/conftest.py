"""Trainers as nnU-Net constructs them, without data: a small network, plans made up for it."""

from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers
from tests.plans import planned
from tests.workspace import FOLDERS

TINY = {"depths": (1, 1, 1, 1), "width": 16, "d_state": 2}
STRIDES = {2: [[1, 1], [2, 2], [2, 2]], 3: [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}


def tiny(name, **attributes):
    """A subclass of the trainer called `name` with a small network; that of U-Mamba is as the plans are."""
    base = getattr(trainers, name)
    settings = {**base.network_settings, **({} if "UMambaBot" in name or "UMambaEnc" in name else TINY)}
    settings |= {"decoder_depth": 1} if "SwinUMambaD" in name else {}
    settings |= {"depths_decoder": (1, 1, 1, 1)} if "VMUNet" in name else {}
    return type(f"Tiny{name}", (base,), {"network_settings": settings, **attributes})


def make_plans(patch=(32, 32), batch_size=2, configuration="2d", **changes):
    """Plans as nnU-Net's planner writes them for a U-Net of three narrow stages; one configuration has that patch.

    Args:
        patch, batch_size, configuration: "2d" or "3d_fullres".
        **changes: arguments of the U-Net, "absent" for none.
    """
    configurations = {}
    for name, size in {"2d": (32, 32), "3d_fullres": (16, 32, 32), configuration: patch}.items():
        axes = len(size)
        arguments = {
            **planned(size, (4, 6, 8), STRIDES.get(axes)),
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        } | changes
        configurations[name] = {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": batch_size,
            "batch_dice": True,
            "patch_size": arguments.pop("patch_size"),
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {key: value for key, value in arguments.items() if value != "absent"},
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
    return {
        "dataset_name": "Dataset902_None",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": configurations,
        "continue_training": False,
    }


DATASET = {"channel_names": {"0": "noise"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"}


def log_of(trainer):
    return Path(trainer.log_file).read_text()


def make_folders(folder):
    """nnU-Net's three folders, by their variables; the preprocessed one looks as if it held the dataset."""
    folders = {name: folder / name for name in FOLDERS}
    data = folders["nnUNet_preprocessed"] / "Dataset902_None" / "nnUNetPlans_2d"
    for each in (*folders.values(), data):
        each.mkdir(parents=True)
    (data / "case.b2nd").touch()
    return {name: str(each) for name, each in folders.items()}


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    """nnU-Net's folders in there, which its variables name."""
    for name, folder in make_folders(tmp_path).items():
        monkeypatch.setenv(name, folder)
    return tmp_path


@pytest.fixture
def writes_nothing(nnunet_folders):
    """A test at whose end nnU-Net's folder of results is empty."""
    yield
    assert list((nnunet_folders / "nnUNet_results").iterdir()) == []


@pytest.fixture
def no_start(monkeypatch):
    """nnU-Net's own part of a training's start does nothing."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)


@pytest.fixture
def make_trainer(nnunet_folders):
    """A function (class, patch=, configuration=, device=, **changes of the U-Net) -> trainer, as nnU-Net makes it."""

    def make(trainer_class, patch=(32, 32), configuration="2d", device="cpu", **changes):
        plans = make_plans(patch, configuration=configuration, **changes)
        return trainer_class(plans, configuration, 0, DATASET, torch.device(device))

    return make


@pytest.fixture
def ready(make_trainer):
    """A function (name, patch=, configuration=, **class attributes) -> trainer with a small network, initialised."""

    def make(name, patch=(32, 32), configuration="2d", **attributes):
        torch.manual_seed(0)
        trainer = make_trainer(tiny(name, **attributes), patch, configuration)
        trainer.initialize()
        return trainer

    return make


def make_batch(trainer, seed=0, images=2):
    """A batch as nnU-Net's data loader gives it, targets made by nnU-Net."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    generator = torch.Generator().manual_seed(seed)
    size = trainer.configuration_manager.patch_size
    data = torch.randn(images, 1, *size, generator=generator)
    labels = torch.randint(0, 3, (images, 1, *size), generator=generator, dtype=torch.int16)
    scales = trainer._get_deep_supervision_scales()
    if scales is None:
        return {"data": data, "target": labels}
    per_image = [DownsampleSegForDSTransform(scales)._apply_to_segmentation(each) for each in labels]
    return {"data": data, "target": [torch.stack(each) for each in zip(*per_image)]}
