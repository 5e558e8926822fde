"""When ImageNet weights are asked for, loaded and recorded; the files themselves are `pretrained`'s matter."""

import dataclasses
import hashlib
import json
import pickle
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    LoadReport,
    WeightsNotFoundError,
    cache_folder,
    get_record,
    registry,
)
from swin_umamba_nnunet.trainers import _imagenet
from swin_umamba_nnunet.trainers._checkpoints import CheckpointFileError
from swin_umamba_nnunet.trainers._checks import told_alone
from swin_umamba_nnunet.trainers._loaders import WorkerDiedError
from swin_umamba_nnunet.trainers._step import NonFiniteError
from tests.messages import assert_names, raises
from tests.pretrained.conftest import save, secluded, state_dict  # noqa: F401  (fixtures)
from tests.trainers.conftest import log_of, tiny

PRETRAINED, SCRATCH = "nnUNetTrainerSwinUMambaD", "nnUNetTrainerSwinUMambaDScratch"
FILE = Path("weights.pth")
REPORT = LoadReport(str(FILE), "ab" * 32, "vmamba_tiny_v0", ("a", "b"), ("c",), ("norm.weight",), (), ())


@pytest.fixture
def calls(monkeypatch):
    """What was asked of `pretrained`, in order; what is found there is handed on, and sets one parameter to 7."""
    calls = []

    def ensure(name, *, scratch_trainer):
        calls.append(("ensure", name, scratch_trainer))
        return FILE

    def load(network, found):
        calls.append(("load", found))
        with torch.no_grad():
            network.imagenet_encoder.patch_embed.proj.bias.fill_(7)
        return REPORT

    monkeypatch.setattr(_imagenet, "ensure_weights", ensure)
    monkeypatch.setattr(_imagenet, "load_imagenet_weights", load)
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: calls.append("nnU-Net starts"))
    return calls


@pytest.fixture
def trainer(make_trainer, calls):
    return make_trainer(tiny(PRETRAINED))


def bias(trainer):
    return trainer.network.imagenet_encoder.patch_embed.proj.bias[0].item()


def saved(trainer):
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    trainer.save_checkpoint(str(path))
    return path


def test_fresh_training_loads_before_nnunet_starts(trainer, calls, monkeypatch):
    """And asks for the file before it looks at the data; also where --c finds no checkpoint to go on from."""
    initialize = trainer.initialize
    monkeypatch.setattr(trainer, "initialize", lambda: (calls.append("initialize"), initialize()))
    maybe_load_checkpoint(trainer, True, False)
    assert calls == []
    trainer.on_train_start()
    assert calls == [("ensure", "vmamba_tiny_v0", SCRATCH), "initialize", ("load", FILE), "nnU-Net starts"]
    assert bias(trainer) == 7
    assert_names(log_of(trainer), REPORT.summary(), REPORT.sha256)


def test_the_file_is_read_and_hashed_once(make_trainer, save, state_dict, monkeypatch, no_start):
    """Whether it has to be fetched, as the first time, or is there."""
    url = save(state_dict(), "published.pth").as_uri()
    record = dataclasses.replace(get_record("vmamba_tiny_v0"), urls=(url,), size_bytes=None)
    monkeypatch.setattr(registry, "RECORDS", [record])
    for _ in range(2):
        trainer = make_trainer(getattr(trainers, PRETRAINED))
        with (
            mock.patch.object(torch, "load", wraps=torch.load) as read,
            mock.patch.object(hashlib, "sha256", wraps=hashlib.sha256) as hashed,
        ):
            trainer.on_train_start()
        assert (read.call_count, hashed.call_count) == (1, 1)
        assert trainer.imagenet_record["source"] == str(cache_folder() / record.file_name)


@pytest.mark.parametrize("validation_only", [False, True])
def test_resume_and_validation_need_no_file(validation_only, trainer, make_trainer, calls):
    trainer.on_train_start()
    saved(trainer)
    calls.clear()
    trainer = make_trainer(tiny(PRETRAINED))
    maybe_load_checkpoint(trainer, not validation_only, validation_only)
    assert calls == []
    assert trainer.imagenet_record == REPORT.to_dict()
    trainer.on_train_start()
    assert calls == ["nnU-Net starts"]
    assert f"the ImageNet weights vmamba_tiny_v0 (sha256 {REPORT.sha256})" in log_of(trainer)
    assert torch.load(saved(trainer), weights_only=False)["imagenet_weights"] == REPORT.to_dict()


def test_fine_tuning_keeps_its_weights(trainer, make_trainer, calls):
    source = make_trainer(tiny(SCRATCH))
    source.initialize()
    maybe_load_checkpoint(trainer, False, False, str(saved(source)))
    trainer.on_train_start()
    assert calls == ["nnU-Net starts"]


def test_checkpoint_is_nnunets_with_one_more_key(trainer):
    trainer.on_train_start()
    ours = torch.load(saved(trainer), weights_only=False)
    trainer.imagenet_record = None
    theirs = torch.load(saved(trainer), weights_only=False)
    assert ours.keys() - theirs.keys() == {"imagenet_weights"}
    assert ours["network_weights"].keys() == theirs["network_weights"].keys()
    assert ours["trainer_name"] == type(trainer).__name__
    assert sorted(Path(trainer.output_folder).glob("*.pth*")) == [Path(trainer.output_folder) / "checkpoint_final.pth"]


def test_disabled_checkpointing_writes_nothing(trainer):
    trainer.on_train_start()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert not list(Path(trainer.output_folder).glob("*.pth*"))


@pytest.mark.parametrize("stage", ["ensure_weights", "load_imagenet_weights"])
def test_without_a_usable_file_nothing_is_left_but_what_others_wrote(
    stage, trainer, calls, monkeypatch, nnunet_folders
):
    error = WeightsNotFoundError if stage == "ensure_weights" else CheckpointError
    monkeypatch.setattr(_imagenet, stage, mock.Mock(side_effect=error("unusable")))
    theirs = Path(trainer.output_folder) / "checkpoint_best.pth"
    theirs.touch()
    with pytest.raises(error):
        trainer.run_training()
    assert "nnU-Net starts" not in calls
    assert [path for path in (nnunet_folders / "nnUNet_results").rglob("*") if path.is_file()] == [theirs]


@pytest.mark.parametrize("error", [WeightsNotFoundError, CheckpointFileError, NonFiniteError, WorkerDiedError])
def test_an_error_for_the_user_is_what_it_was_and_ends_python_with_its_message(error, trainer, monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "run_training", mock.Mock(side_effect=error("what to do")))
    with raises(error, "what to do") as caught:
        trainer.run_training()
    assert isinstance(caught.value, SystemExit)
    assert caught.value.code == "what to do"
    assert type(pickle.loads(pickle.dumps(caught.value))) is error  # as DDP sends it from rank to rank
    assert "ERROR: what to do" in log_of(trainer)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [(lambda: json.loads("{"), json.JSONDecodeError), (lambda: b"\xff".decode("utf-8"), UnicodeDecodeError)],
)
def test_errors_that_are_not_made_of_a_message_keep_theirs(spoil, kind):
    """JSONDecodeError takes other arguments than it keeps; nothing can be UnicodeDecodeError and SystemExit."""
    with pytest.raises(kind) as before:
        spoil()
    with pytest.raises(kind) as caught, told_alone(ValueError):
        spoil()
    assert str(caught.value) == str(before.value)
    alone = isinstance(caught.value, SystemExit)
    assert alone == (kind is json.JSONDecodeError)
    assert not alone or (caught.value.code, caught.value.pos) == (str(before.value), before.value.pos)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (type(sent), str(sent)) == (kind, str(before.value))


def test_an_interactive_python_goes_on(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(WeightsNotFoundError) as caught, told_alone(WeightsNotFoundError):
        raise WeightsNotFoundError("not here")
    assert not isinstance(caught.value, SystemExit)


def test_every_rank_searches_for_itself_and_the_first_one_cleans_up(trainer, monkeypatch, writes_nothing):
    """No rank waits for another in a collective, which a slow download would let time out."""

    ensure = mock.Mock(side_effect=WeightsNotFoundError("not here"))
    monkeypatch.setattr(_imagenet, "ensure_weights", ensure)
    trainer.is_ddp = True  # without a process group: every collective would be an error
    for rank, log_is_left in ((1, True), (0, False)):
        trainer.local_rank = rank
        with raises(WeightsNotFoundError, "not here"):
            trainer.on_train_start()
        assert Path(trainer.log_file).exists() is log_is_left
    assert ensure.mock_calls == [mock.call("vmamba_tiny_v0", scratch_trainer=SCRATCH)] * 2
