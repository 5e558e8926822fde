"""Trainings that follow from their seed, whoever makes the batches, with and without a break; on a tiny dataset."""

import contextlib
import json
import os
import random
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed

from swin_umamba_nnunet.trainers._loaders import EndingLoader
from swin_umamba_nnunet.trainers._replay import SeedError, _all, drawn_from
from tests import synthetic_dataset as dataset
from tests.messages import assert_names, raises
from tests.trainers.conftest import log_of, tiny
from tests.trainers.test_two_processes import joined, on_the_cpu, run_ranks
from tests.workspace import FOLDERS, once_per_run, prepare

SEED = "SWIN_UMAMBA_SEED"
NAME = "nnUNetTrainerSwinUMambaDScratch"  # with DropPath
LENGTH = {"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 2, "save_every": 1}


class Break(Exception):
    """What interrupts a training."""


class Short(tiny(NAME, **LENGTH)):
    """Two epochs of two iterations, without pictures; interrupted before the second one if asked."""

    breaks = False

    def on_train_epoch_start(self):
        if self.breaks and self.current_epoch == 1:
            raise Break
        super().on_train_epoch_start()

    def plot_network_architecture(self):
        pass


def new(folder, base=Short, go_on=False, **attributes):
    """A trainer as `nnUNetv2_train` makes it."""
    place = folder / "nnUNet_preprocessed" / dataset.NAME
    plans, description = (json.loads((place / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    trainer_class = type(base.__name__, (base,), attributes)
    return trainer_class({**plans, "continue_training": go_on}, "2d", 0, description, torch.device("cpu"))


@contextlib.contextmanager
def environment(folder, workers, results="nnUNet_results", **variables):
    """nnU-Net's folders and number of augmentation workers."""
    variables |= {name: str(folder / name) for name in FOLDERS} | {"nnUNet_results": str(folder / results)}
    variables |= {"nnUNet_n_proc_DA": str(workers), "nnUNet_def_n_proc": "1"}
    with mock.patch.dict(os.environ, variables), mock.patch("os.cpu_count", return_value=4):  # nnU-Net takes no more
        yield


def train(folder, results, *workers, base=Short):
    """A training with seed 3; with two numbers of workers it is interrupted between them, and the seed not set anew."""
    for part, number in enumerate(workers):
        with environment(folder, number, results):
            trainer = new(folder, base, part > 0, seed=None if part else 3, breaks=part + 1 < len(workers))
            trainer.logger.plot_progress_png = lambda folder: None
            maybe_load_checkpoint(trainer, part > 0, False)
            if trainer.breaks:
                with pytest.raises(Break):
                    trainer.run_training()
                for loader in (trainer.dataloader_train, trainer.dataloader_val):
                    getattr(loader, "_finish", lambda: None)()
            else:
                trainer.run_training()
            assert trainer.replays
            if distributed.is_initialized():
                distributed.barrier()


def assert_same(folder, *results):
    """Weights, optimiser and curves of two trainings, bit by bit; returns the checkpoint of the first."""
    one, other = (
        torch.load(next((folder / name).rglob("checkpoint_final.pth")), weights_only=False) for name in results
    )
    assert (one["seed"], other["seed"]) == (3, 3)
    for curve in ("train_losses", "val_losses", "dice_per_class_or_region"):
        assert one["logging"][curve] == other["logging"][curve]
    for key, value in one["network_weights"].items():
        assert torch.equal(value, other["network_weights"][key]), key
    states = (checkpoint["optimizer_state"]["state"].values() for checkpoint in (one, other))
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*states, strict=True))
    return one


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay") / "data"
    shutil.copytree(once_per_run(tmp_path_factory, "prepared", prepare), folder)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="a local class goes to workers that are forked")
def test_neither_workers_nor_a_break_change_a_bit(prepared, set_threads):
    """And neither does what was drawn before; the training process has two threads, its workers one."""
    set_threads(2)
    train(prepared, "whole", 3)
    torch.manual_seed(1)
    train(prepared, "in parts", 0, 1)
    whole = assert_same(prepared, "whole", "in parts")
    assert len(set(whole["logging"]["train_losses"])) == 2


def first_batch(folder, workers=0, **attributes):
    with environment(folder, workers):
        trainer = new(folder, **attributes)
        trainer.initialize()
        training, validation = trainer.get_dataloaders()
        batch = next(training)["data"]
        for loader in (training, validation):
            getattr(loader, "_finish", lambda: None)()
    return next(trainer.network.parameters()), batch, training


def test_another_seed_is_another_training(prepared):
    (weights, batch, loader), (again, same, _), (others, other, _) = (
        first_batch(prepared, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(weights, again)
    assert torch.equal(batch, same)
    assert not torch.equal(weights, others)
    assert not torch.equal(batch, other)
    # the blur would decide by its stopwatch between two ways
    assert [each.benchmark for each in _all(loader.data_loader.transforms) if hasattr(each, "benchmark")] == [False]


def test_without_a_seed_it_is_nnunet(prepared):
    torch.manual_seed(0)
    weights, _, one_by_one = first_batch(prepared)
    torch.manual_seed(0)
    again, _, _ = first_batch(prepared, seed=3)
    assert not torch.equal(weights, again)
    assert type(one_by_one) is SingleThreadedAugmenter
    assert type(one_by_one.data_loader) is nnUNetDataLoader
    _, _, unordered = first_batch(prepared, 1)
    assert type(unordered) is EndingLoader
    assert type(unordered.generator) is nnUNetDataLoader


def test_what_is_drawn_leaves_no_trace():
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    expected = draws(), draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    found = [draws()]
    with drawn_from(3, 0, 0, 1):
        inside = draws()
    with drawn_from(3, 0, 1, 0):
        assert all(a != b for a, b in zip(draws(), inside))
    assert (*found, draws()) == expected


@pytest.mark.parametrize(
    ("before", "variable", "after", "named"),
    [
        (3, "", 3, "Seed 3: "),
        (3, "3", 3, "Seed 3: "),
        (None, "4", None, "seed 4 is left aside"),
        (3, "4", SeedError, ("seed 3", "seed 4", SEED, "--c")),
    ],
)
def test_a_training_goes_on_with_the_seed_it_began_with(
    before, variable, after, named, make_trainer, monkeypatch, no_start, tmp_path
):
    monkeypatch.setattr(nnUNetTrainer, "run_training", lambda self: self.on_train_start())
    trainer = make_trainer(tiny(NAME, seed=before))
    trainer.initialize()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    monkeypatch.setenv(SEED, variable)
    trainer = make_trainer(tiny(NAME))
    trainer.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    if after is SeedError:
        with pytest.raises(SeedError) as refused:
            trainer.run_training()
        assert_names(str(refused.value), *named)
    else:
        trainer.run_training()
        assert trainer.seed == after
        assert named in log_of(trainer)


@pytest.mark.parametrize("wrong", ["-1", "2.0", "one"])
def test_what_is_no_seed(wrong, make_trainer, monkeypatch, writes_nothing):
    monkeypatch.setenv(SEED, wrong)
    with raises(ValueError, f"{SEED} is '{wrong}'"):
        make_trainer(tiny(NAME))
    monkeypatch.delenv(SEED)
    with raises(ValueError, f"seed = '{wrong}'"):
        make_trainer(tiny(NAME, seed=wrong))


def test_data_loaders_of_ones_own_are_named(make_trainer, monkeypatch, no_start):
    monkeypatch.setenv(SEED, "3")
    trainer = make_trainer(tiny(NAME))
    trainer.dataloader_train = trainer.dataloader_val = SingleThreadedAugmenter(iter(()), None)
    trainer.on_train_start()
    assert not trainer.replays
    assert "cannot be repeated" in log_of(trainer)


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch build has no gloo")
def test_two_processes(prepared, warm_python):
    run_ranks(warm_python, __name__, 2, {}, folder=str(prepared))
    assert_same(prepared, "two whole", "two in parts")


if __name__ == "__main__":
    job = json.loads(sys.argv[2])
    place = Path(job["folder"])
    with joined(int(sys.argv[1]), job["world"], place):
        on_cpu = on_the_cpu(Short, job["world"])
        train(place, "two whole", 0, base=on_cpu)
        train(place, "two in parts", 1, 0, base=on_cpu)
