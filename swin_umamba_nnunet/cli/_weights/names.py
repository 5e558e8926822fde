"""Checkpoints by the names people use for them, the trainers that go with them, and how far a hash is trusted."""

import dataclasses
import difflib
import textwrap

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.catalogue import TRAINERS, TrainerRecord, get_trainer, trainer_names
from swin_umamba_nnunet.cli.errors import CliError
from swin_umamba_nnunet.pretrained.registry import (
    RECORDS,
    WEIGHTS_OF_NETWORK,
    WeightsRecord,
    get_alternatives,
    get_record,
)


def record_called(name: str) -> WeightsRecord:
    """A record by its own name, a network's, or that of a trainer that starts from it."""
    wanted = name
    if name.startswith("nnUNetTrainer"):
        try:
            trainer = trainer_called(name)
        except ValueError as error:
            raise CliError(str(error)) from error
        if trainer.weights is None:
            raise CliError(f"{name} starts from random weights; it needs no checkpoint")
        wanted = trainer.weights
    try:
        return get_record(wanted)
    except ValueError as error:
        known = [record.name for record in RECORDS] + [one.name for one in TRAINERS if one.pretrained]
        close = difflib.get_close_matches(name, [*known, *WEIGHTS_OF_NETWORK], n=1)
        raise CliError(f"{error}, or a trainer's name" + (f"; did you mean {close[0]}?" if close else "")) from error


def trainer_called(name: str) -> TrainerRecord:
    """The record of a trainer of this package, or of a user's that is built on one, with the weights that one has.

    Raises:
        ValueError: there is none.
    """
    try:
        return get_trainer(name)
    except ValueError as unknown:
        if not _autoregister.users_folders():  # the user has none: spare them the import of nnU-Net
            raise
        from swin_umamba_nnunet.trainers.finding import find_trainer

        try:
            found = find_trainer(name)
        except ValueError:
            raise unknown from None
        except Exception as error:  # a user's module may raise anything when it is imported
            raise ValueError(f"nnU-Net stops while it looks for {name} ({type(error).__name__}: {error})") from error
        parents = [each.__name__ for each in found.__mro__ if each.__name__ in trainer_names()]
        if not parents:
            raise
        return dataclasses.replace(get_trainer(parents[0]), name=name, weights=found.imagenet_weights)


def trainers_from(record: WeightsRecord) -> tuple[list[str], list[str]]:
    """Trainers that start from a checkpoint, and those that also take it where the user names the file."""
    starting, also = [], []
    for trainer in TRAINERS:
        if trainer.weights is None:
            continue
        if get_record(trainer.weights) == record:
            starting.append(trainer.name)
        elif record in get_alternatives(trainer.weights):
            also.append(trainer.name)
    return starting, also


def pretrained_trainer(name: str) -> TrainerRecord:
    """The trainer called `name`, which has to start from a checkpoint."""
    try:
        trainer = trainer_called(name)
    except ValueError as error:
        raise CliError(f"--for {name}: {error}") from error
    if trainer.weights is None:
        raise CliError(f"--for {name}: this trainer starts from random weights; it takes no checkpoint")
    return trainer


def accepted_by(trainer: TrainerRecord) -> tuple[WeightsRecord, ...]:
    """What a pretrained trainer takes: the checkpoint it starts from first."""
    assert trainer.weights is not None
    return (get_record(trainer.weights), *get_alternatives(trainer.weights))


def trust(record: WeightsRecord) -> str:
    """The published hash, and what happens to a file with another one."""
    if record.sha256 is None:
        size = "size and " if record.size_bytes is not None else ""
        return f"unknown; {size}the name and shape of every tensor are checked instead"
    if record.sha256_confirmed:
        return f"{record.sha256} (confirmed: another one is refused)"
    return f"{record.sha256} (second-hand: another one is reported, not refused)"


def fits(record: WeightsRecord) -> str:
    """The trainers a checkpoint fits, in words."""
    starting, also = trainers_from(record)
    if not (starting or also):
        return "no trainer of this package"
    named = f"{', '.join(also)} where SWIN_UMAMBA_WEIGHTS names the file" if also else ""
    return "; ".join(filter(None, [", ".join(starting), named]))


def wrapped(name: str, text: str) -> str:
    """A named fact, broken into lines of a terminal's width."""
    head = f"    {name:<10}"
    return textwrap.fill(text, 118, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)
