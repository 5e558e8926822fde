"""What is added to a trainer: measurements, seeds, safe checkpoints; on a trainer-shaped object."""

import pickle
import random
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.benchmark import steps
from tests.jsons import dump, edit, load
from tests.messages import assert_names


class Trainer:
    """What `steps` uses of nnUNetTrainer: three epochs that log."""

    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 3, 4, 2
    inference_allowed_mirroring_axes = (0, 1)
    local_rank = 0
    device = torch.device("cpu")
    configuration_manager = SimpleNamespace(batch_size=2, patch_size=np.array([32, 48]))

    def __init__(self, folder, start=0):
        self.output_folder, self.current_epoch = str(folder), start
        self.curves = {"train_losses": [np.float32(0.5)] * start}
        self.logger = SimpleNamespace(get_checkpoint=lambda: self.curves)
        self.said, self.validated, self.drawn = [], False, None
        self.print_to_log_file = self.said.append

    def run_training(self):
        self.drawn = torch.rand(1).item()
        while self.current_epoch < self.num_epochs:
            self.curves["train_losses"].append(np.float32("nan") if self.current_epoch == 1 else np.float32(0.25))
            self.on_epoch_end()

    def on_epoch_end(self):
        self.current_epoch += 1

    def save_checkpoint(self, filename):
        assert not filename.endswith(".pth")
        dump(Path(filename), {"current_epoch": self.current_epoch + 1})

    def perform_actual_validation(self, save_probabilities=False):
        self.validated = True


@pytest.fixture
def settings(tmp_path):
    return Namespace(record=tmp_path / "training.json", seed=3, validation=False, checkpoint_minutes=0)


@pytest.fixture
def train(tmp_path, settings):
    """A function -> an instrumented trainer that has trained, from epoch `start` on."""

    def run(settings=settings, start=0):
        trainer = Trainer(tmp_path, start)
        steps.instrument(trainer, settings)
        trainer.run_training()
        return trainer

    return run


def test_records_and_checkpoints_of_a_training(tmp_path, settings, train):
    trainer = train()
    trainer.perform_actual_validation(False)
    record = load(settings.record)
    expected = {
        "epoch": 3,
        "epochs": 3,
        "iterations_per_epoch": 4,
        "curves": {"train_losses": [0.25, None, 0.25]},  # JSON has no NaN
        "patch_size": [32, 48],
        "mirroring_axes": [0, 1],
        "peak_memory_what": "process RSS",
        "resumed_at_epoch": [],
    }
    assert record.items() >= expected.items()
    assert record["peak_memory_bytes"] > 1e6
    # after the second epoch: the third is followed by nnU-Net's final checkpoint
    assert load(tmp_path / "checkpoint_latest.pth") == {"current_epoch": 2}
    assert trainer.current_epoch == 3
    assert not trainer.validated
    assert "left out" in trainer.said[-1]


def test_nothing_is_saved_before_it_is_due_and_validation_can_be_kept(tmp_path, settings, train):
    trainer = train(Namespace(**vars(settings) | {"validation": True, "checkpoint_minutes": 60}))
    trainer.perform_actual_validation()
    assert not (tmp_path / "checkpoint_latest.pth").exists()
    assert trainer.validated


def test_a_resumed_training_keeps_its_record_and_draws_anew(settings, train):
    steps.seed_everything(settings.seed)
    first = train()
    edit(settings.record, lambda record: record.update(peak_memory_bytes=10**15))
    steps.seed_everything(settings.seed)
    resumed = train(start=2)
    record = load(settings.record)
    assert (record["resumed_at_epoch"], record["peak_memory_bytes"]) == ([2], 10**15)
    assert resumed.drawn != first.drawn


def test_a_checkpoint_is_whole_or_not_there(tmp_path, settings):
    trainer = Trainer(tmp_path)
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("old")

    def die(filename):
        Path(filename).write_text("half")
        raise OSError("disk full")

    trainer.save_checkpoint = die
    steps.instrument(trainer, settings)
    with pytest.raises(OSError, match="disk full"):
        trainer.save_checkpoint(str(target))
    assert target.read_text() == "old"


def test_every_process_of_a_training_on_several_gpus_is_instrumented_and_seeded(tmp_path, settings, monkeypatch):
    from nnunetv2.run import run_training

    monkeypatch.setattr(run_training, "get_trainer_from_args", lambda *args: Trainer(tmp_path))
    ran = []

    def run_ddp(rank, *arguments):  # nnU-Net's, in the fresh interpreter of a rank
        ran.append((rank, arguments, torch.rand(1).item()))
        run_training.get_trainer_from_args().run_training()

    monkeypatch.setattr(run_training, "run_ddp", run_ddp)
    steps.install(settings)  # in the process that nnUNetv2_train starts in
    sent = pickle.loads(pickle.dumps(run_training.run_ddp))  # as torch.multiprocessing.spawn sends it
    for rank in (1, 0):
        run_training.run_ddp = run_ddp
        monkeypatch.setattr(Trainer, "local_rank", rank)
        sent(rank, "Dataset", "2d")
        assert settings.record.exists() is (rank == 0)
    assert [entry[:2] for entry in ran] == [(1, ("Dataset", "2d")), (0, ("Dataset", "2d"))]
    assert ran[0][2] != ran[1][2]


def test_seeds():
    def draw(*parts):
        steps.seed_everything(*parts)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw(5) == draw(5)
    for one, other in (((5,), (6,)), ((5, 0), (5, 1))):
        assert all(a != b for a, b in zip(draw(*one), draw(*other)))
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    assert draw(5)[2] == expected  # seed 5 is what everybody calls seed 5


@pytest.mark.parametrize("command", [["rm", "-r"], ["nnUNetv2_trian", "901"], []])
def test_only_commands_of_nnunet_and_this_package_are_run(capsys, command):
    with pytest.raises(SystemExit):
        steps.main(["--seed", "0", "--", *command])
    assert_names(capsys.readouterr().err, "nnUNetv2_train", command)
