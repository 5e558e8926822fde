"""`swin-umamba weights verify`: what a file is, whatever its name, and which trainers it fits."""

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet.catalogue import TRAINERS, TrainerRecord, trainer_names
from swin_umamba_nnunet.cli._weights.names import (
    accepted_by,
    fits,
    pretrained_trainer,
    trainer_called,
    trainers_from,
    wrapped,
)
from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.files import require_checkpoint_file

if TYPE_CHECKING:
    from swin_umamba_nnunet.pretrained.examine import Finding


def verify(args: argparse.Namespace) -> int:
    """Say what the file is; 0 if it fits a trainer (the one asked for, if one was), else 1 and what fits instead.

    Raises:
        CheckpointError: it is no checkpoint of anything known here.
    """
    trainer = None if args.trainer is None else pretrained_trainer(args.trainer)
    try:
        require_checkpoint_file(args.file.expanduser())
    except CheckpointError as error:
        raise CheckpointError(f"{args.file} {error}") from error
    from swin_umamba_nnunet.pretrained.examine import examine_checkpoint  # imports torch

    try:
        finding = examine_checkpoint(args.file)
    except CheckpointError:
        if (model := _segmentation_model(args.file)) is None:
            raise
        print(f"{args.file}\n    what      {model}")
        _print_what_fits(trainer)
        return 1
    _print_finding(finding)
    record = finding.record
    if record is None or finding.faults or not any(trainers_from(record)):
        print("    fits      no trainer of this package")
        _print_what_fits(trainer)
        return 1
    print(wrapped("fits", fits(record)))
    if trainer is not None and record not in accepted_by(trainer):
        _print_what_fits(trainer)
        return 1
    return 0


def _print_finding(finding: "Finding") -> None:
    from swin_umamba_nnunet.pretrained.download import hash_verdict

    record = finding.record
    print(finding.path)
    print(wrapped("what", f"ImageNet classifier {finding.variant}"))
    classifier = "norm and head as published" if finding.classifier else "without the published norm and head"
    print(f"    tensors   {finding.tensors}" + (f", {classifier}" if record is not None else ""))
    published = ""
    if record is not None and record.size_bytes is not None:
        same = finding.size_bytes == record.size_bytes
        published = ", as published" if same else f"; the published file has {record.size_bytes:,}"
    print(f"    size      {finding.size_bytes:,} bytes{published}")
    verdict = f" ({hash_verdict(record, finding.sha256)})" if record is not None else ""
    print(f"    sha256    {finding.sha256}{verdict}")
    for fault in finding.faults:
        print(wrapped("fault", fault))


def _segmentation_model(path: Path) -> str | None:
    """What a segmentation checkpoint is and is good for; None where the file is none that is known."""
    from swin_umamba_nnunet.models.checkpoints import ModelError, read_segmentation_checkpoint
    from swin_umamba_nnunet.models.importing import recognise

    try:
        content = read_segmentation_checkpoint(path)
    except ModelError:
        return None
    name = content.get("trainer_name")
    name = name if isinstance(name, str) else ""
    try:
        trainer_called(name)
    except ValueError:
        pass
    else:
        whose = "of this package" if name in trainer_names() else "built on one of this package"
        return (
            f"a segmentation model trained with {name} {whose}: predict with nnUNetv2_predict, or fine-tune it "
            "with nnUNetv2_train ... -pretrained_weights FILE"
        )
    try:
        network, _ = recognise(content["network_weights"], str(path))
    except ModelError:
        return f"a segmentation model trained with {name}, no trainer of this package" if name else None
    return f"the authors' segmentation model {network}: `swin-umamba model import` makes it usable"


def _print_what_fits(trainer: TrainerRecord | None) -> None:
    """Which file each trainer takes, or the one that was asked for."""
    asked = [trainer] if trainer is not None else [one for one in TRAINERS if one.weights is not None]
    print("\nWhat fits instead:")
    for record in dict.fromkeys(accepted_by(one)[0] for one in asked):
        names = ", ".join(one.name for one in asked if accepted_by(one)[0] == record)
        print(textwrap.fill(f"{names}: {record.file_name}", 118, initial_indent="  ", subsequent_indent="    "))
        print(f"    swin-umamba weights fetch {record.name}")
