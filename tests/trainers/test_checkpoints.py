"""Checkpoints under faults: killed or out of disk while writing, damaged when read."""

import os
import zlib
from pathlib import Path
from unittest import mock

import pytest
import torch

from swin_umamba_nnunet.trainers import _checkpoints
from swin_umamba_nnunet.trainers._checkpoints import CheckpointFileError, SafeCheckpoints
from tests.messages import assert_names, raises
from tests.trainers.conftest import log_of, tiny

CLASS = tiny("nnUNetTrainerSwinUMambaScratch")


@pytest.fixture
def trainer(make_trainer):
    trainer = make_trainer(CLASS)
    trainer.initialize()
    return trainer


def save(trainer, name, epoch):
    """A checkpoint that says that `epoch` epochs are done."""
    path = Path(trainer.output_folder) / name
    trainer.current_epoch = epoch - 1
    trainer.save_checkpoint(str(path))
    return path


def resume(make_trainer, path):
    trainer = make_trainer(CLASS)
    trainer.load_checkpoint(str(path))
    return trainer


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "bits flipped": lambda content: content.replace(
        middle := content[len(content) // 2 :][:200], bytes(each ^ 255 for each in middle)
    ),
    "not a checkpoint": None,
}


def damage(path, how="truncated"):
    if DAMAGE[how]:
        path.write_bytes(DAMAGE[how](path.read_bytes()))
    else:
        torch.save({"something": "else"}, path)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_latest_gives_way_to_the_one_before(how, trainer, make_trainer):
    save(trainer, "checkpoint_best.pth", 1)
    save(trainer, "checkpoint_latest.pth", 2)
    latest = save(trainer, "checkpoint_latest.pth", 3)
    assert resume(make_trainer, latest).current_epoch == 3
    damage(latest, how)
    resumed = resume(make_trainer, latest)
    assert resumed.current_epoch == 2
    assert_names(log_of(resumed), "checkpoint_latest.pth", "checkpoint_previous.pth")


@pytest.mark.filterwarnings("ignore")  # what zipfile and torch remark about such files
def test_a_latest_with_any_single_bit_flipped_is_read_or_gives_way(tmp_path):
    """Headers flipped make zipfile and torch raise nearly anything."""
    latest, previous = tmp_path / "checkpoint_latest.pth", tmp_path / "checkpoint_previous.pth"
    torch.save({"network_weights": {"a": torch.arange(5.0)}, "current_epoch": 2}, previous)
    torch.save({"network_weights": {"a": torch.arange(5.0)}, "current_epoch": 3}, latest)
    good, said = latest.read_bytes(), []
    checkpoints = SafeCheckpoints()
    checkpoints.print_to_log_file = said.append
    # the first local header, and the directory at the end
    bits = [*range(8 * 40), *range(8 * good.index(b"PK\x01\x02"), 8 * len(good), 4)]
    for bit in bits:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        latest.write_bytes(bad)
        said.clear()
        path, checkpoint = checkpoints._readable(str(latest))
        assert torch.equal(checkpoint["network_weights"]["a"], torch.arange(5.0))
        assert (path, checkpoint["current_epoch"]) in ((str(latest), 3), (str(previous), 2))
        assert bool(said) == (path == str(previous))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("File 'data.pkl' is encrypted, password required for extraction"),
        NotImplementedError("That compression method is not supported"),
        zlib.error("Error -3 while decompressing data"),
        OSError(22, "Invalid argument"),
        OSError("Invalid data stream"),
        RuntimeError("PytorchStreamReader failed reading zip archive"),
        TypeError("an integer is required"),
    ],
    ids=repr,
)
def test_what_damage_raises_is_damage(error, trainer, make_trainer, monkeypatch):
    save(trainer, "checkpoint_latest.pth", 2)
    latest, zip_file = save(trainer, "checkpoint_latest.pth", 3), _checkpoints.zipfile.ZipFile

    def stumble(path):
        if path == str(latest):
            raise error
        return zip_file(path)

    monkeypatch.setattr(_checkpoints.zipfile, "ZipFile", stumble)
    assert resume(make_trainer, latest).current_epoch == 2


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        ModuleNotFoundError("No module named 'mine'"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("where", [(torch, "load"), (_checkpoints.zipfile, "ZipFile")], ids=str)
def test_what_is_not_the_files_fault_loses_no_epochs(where, error, trainer, make_trainer, monkeypatch):
    save(trainer, "checkpoint_latest.pth", 2)
    latest = save(trainer, "checkpoint_latest.pth", 3)

    monkeypatch.setattr(*where, mock.Mock(side_effect=error))
    with pytest.raises(type(error)):
        resume(make_trainer, latest)


def test_the_check_sums_are_verified_once(trainer, make_trainer, monkeypatch):
    latest, opened = save(trainer, "checkpoint_latest.pth", 2), mock.Mock(wraps=_checkpoints.zipfile.ZipFile)
    monkeypatch.setattr(_checkpoints.zipfile, "ZipFile", opened)
    assert resume(make_trainer, latest).current_epoch == 2
    assert opened.mock_calls == [mock.call(str(latest))]


def test_with_nothing_readable_left_it_is_an_error_and_no_fresh_start(trainer, make_trainer):
    latest = save(trainer, "checkpoint_latest.pth", 2)
    damage(latest)
    with raises(CheckpointFileError, latest, "no other checkpoint"):
        resume(make_trainer, latest)


@pytest.mark.parametrize("name", ["checkpoint_final.pth", "checkpoint_best.pth"])
def test_a_damaged_final_or_best_is_never_replaced_by_other_weights(name, trainer, make_trainer):
    """--val would report the scores of an epoch nobody asked for."""
    save(trainer, "checkpoint_best.pth", 1)
    save(trainer, "checkpoint_latest.pth", 2)
    asked_for = save(trainer, name, 3)
    damage(asked_for)
    with raises(CheckpointFileError, asked_for, "delete"):
        resume(make_trainer, asked_for)


def test_a_full_disk_leaves_the_old_checkpoint(trainer, make_trainer, monkeypatch):
    """And so does the end of the process with half of the new one written: under the real name is the old one then."""
    latest = save(trainer, "checkpoint_latest.pth", 2)
    before = sorted(path.name for path in latest.parent.iterdir())

    def write_half(checkpoint, filename):
        Path(filename).write_bytes(b"half")
        assert torch.load(latest, weights_only=False)["current_epoch"] == 2
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", write_half)
    with raises(CheckpointFileError, latest, "No space left on device", "intact", "--c"):
        save(trainer, "checkpoint_latest.pth", 3)
    assert sorted(path.name for path in latest.parent.iterdir()) == before
    assert torch.load(latest, weights_only=False)["current_epoch"] == 2


def test_no_moment_without_a_latest_checkpoint(trainer, monkeypatch):
    """nnU-Net's --c starts anew where it finds none."""
    latest = save(trainer, "checkpoint_latest.pth", 1)
    replace, seen = os.replace, []

    def watch(source, target):
        seen.append(latest.is_file())
        replace(source, target)
        seen.append(latest.is_file())

    monkeypatch.setattr(os, "replace", watch)
    save(trainer, "checkpoint_latest.pth", 2)
    assert seen == [True] * 4


def test_without_hard_links_there_is_a_latest_and_no_previous(trainer, monkeypatch):
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError("not supported")))
    save(trainer, "checkpoint_latest.pth", 1)
    latest = save(trainer, "checkpoint_latest.pth", 2)
    assert torch.load(latest, weights_only=False)["current_epoch"] == 2
    assert not (latest.parent / _checkpoints.PREVIOUS).exists()


def test_the_end_of_a_training_removes_the_previous_one(trainer):
    save(trainer, "checkpoint_latest.pth", 1)
    latest = save(trainer, "checkpoint_latest.pth", 2)
    trainer.current_epoch = 3
    trainer.on_train_end()
    assert sorted(path.name for path in latest.parent.glob("*.pth")) == ["checkpoint_final.pth"]
