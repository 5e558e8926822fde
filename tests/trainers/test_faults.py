"""Datasets at the edge of what nnU-Net allows, through its own loader, augmentation, loss and metrics."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

from tests.trainers.conftest import make_plans, tiny

PATCH = (32, 40)
UMAMBA = {"features_per_stage": [8, 12, 16]}  # not narrower: torch 2.15's backward corrupts the heap then
# with deep supervision, without, and with a network from the plans
TRAINERS = {f"nnUNetTrainer{n}": tiny(f"nnUNetTrainer{n}") for n in ("SwinUMambaScratch", "VMUNetScratch", "UMambaEnc")}


@dataclass(frozen=True)
class Dataset:
    """What a dataset is like.

    Attributes:
        labels: of dataset.json; with regions also their order.
        present: label values that occur in the training cases.
        shape: (slices, rows, columns) of each case in pixels.
    """

    labels: dict = field(default_factory=lambda: {"background": 0, "a": 1, "b": 2})
    order: tuple[int, ...] = ()
    present: tuple[int, ...] = (0, 1, 2)
    channels: int = 1
    shape: tuple[int, int, int] = (2, 48, 56)
    cases: int = 1

    def json(self):
        names = {str(i): "noise" for i in range(self.channels)}
        regions = {"regions_class_order": list(self.order)} if self.order else {}
        return {"channel_names": names, "labels": self.labels, "file_ending": ".nii.gz", **regions}

    def write(self, trainer):
        """Preprocessed cases as nnU-Net writes them, each label a block of rows."""
        folder, manager = Path(trainer.preprocessed_dataset_folder), trainer.label_manager
        collected = list(manager.foreground_regions if manager.has_regions else manager.foreground_labels)
        if manager.has_ignore_label:
            collected.append([-1, *manager.all_labels])
        random = np.random.default_rng(0)
        for case in range(self.cases):
            data = random.normal(size=(self.channels, *self.shape)).astype(np.float32)
            where = np.arange(np.prod(self.shape)) * len(self.present) // np.prod(self.shape)
            segmentation = np.array(self.present, np.int16)[where].reshape(1, *self.shape)
            locations = DefaultPreprocessor._sample_foreground_locations(segmentation, collected)
            blocks, chunks = comp_blosc2_params(data.shape, PATCH)
            nnUNetDatasetBlosc2.save_case(
                data,
                segmentation,
                {"class_locations": locations},
                str(folder / f"case{case}"),
                chunks,
                blocks,
                chunks_seg=(1, *chunks[1:]),
                blocks_seg=(1, *blocks[1:]),
            )


MANY = {"background": 0, **{f"organ {i}": i for i in range(1, 200)}}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
DATASETS = {
    "one training case": Dataset(),
    "a class in no training case": Dataset(present=(0, 1)),
    "nothing but background": Dataset(present=(0,)),
    "20 channels": Dataset(channels=20),
    "200 classes": Dataset(labels=MANY, present=tuple(range(200))),
    "200 classes, one of them there": Dataset(labels=MANY, present=(0, 77)),
    "regions": Dataset(labels=REGIONS, order=(1, 2)),
    "regions, one of them nowhere": Dataset(labels=REGIONS, order=(1, 2), present=(0, 1)),
    "ignore label": Dataset(labels={"background": 0, "a": 1, "ignore": 2}),
    "everything ignored": Dataset(labels={"background": 0, "a": 1, "ignore": 2}, present=(2,)),
    "regions and ignore label": Dataset(labels=REGIONS | {"ignore": 3}, order=(1, 2), present=(0, 1, 2, 3)),
    "smaller than a patch": Dataset(shape=(1, 20, 17)),
    "one pixel wide": Dataset(shape=(1, 50, 1)),
    "a single pixel": Dataset(shape=(1, 1, 1), present=(1,)),
}


@pytest.fixture
def make(nnunet_folders, monkeypatch):
    """A function (trainer name, dataset, fold=) -> trainer, initialised, with the dataset's cases on disk."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def build(name, dataset, fold="all", **settings):
        plans = make_plans(PATCH, **UMAMBA)
        plans["configurations"]["2d"] |= {"use_mask_for_norm": [False] * dataset.channels, **settings}
        trainer = TRAINERS[name](plans, "2d", fold, dataset.json(), torch.device("cpu"))
        (Path(trainer.preprocessed_dataset_folder) / "case.b2nd").unlink()
        dataset.write(trainer)
        torch.manual_seed(0)
        trainer.initialize()
        return trainer

    return build


@pytest.mark.filterwarnings("ignore:Warning! No annotated pixels")  # nnU-Net says so itself
@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("kind", DATASETS)
def test_an_epoch_stays_finite(kind, name, make):
    dataset = DATASETS[kind]
    trainer = make(name, dataset)
    training, validation = trainer.get_dataloaders()
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    losses = [float(trainer.train_step(next(training))["loss"]) for _ in range(2)]
    assert np.isfinite(losses).all()
    with open(trainer.log_file) as file:
        assert "step skipped" not in file.read()
    after = trainer.network.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[key]) for key, value in after.items())

    trainer.network.eval()
    with torch.no_grad():
        output = trainer.validation_step(next(validation))
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # nnU-Net's mean over no class
        trainer.on_validation_epoch_end([output])
    assert np.isfinite(trainer.logger.get_value("val_losses", step=-1))
    dice = trainer.logger.get_value("dice_per_class_or_region", step=-1)
    assert len(dice) == len(dataset.order or trainer.label_manager.foreground_labels)
    # a class is not finite only where it is neither in the image nor in the prediction, and then left out of the mean
    absent = [counts == 0 for counts in output["tp_hard"] + output["fp_hard"] + output["fn_hard"]]
    assert [not np.isfinite(each) for each in dice] == absent
