"""Checkpoints that survive: complete or not there, and with an older one behind the latest."""

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from swin_umamba_nnunet.pretrained.checkpoint import damage_in, is_of_the_file_system, why_not_written
from swin_umamba_nnunet.trainers._checks import told_alone

LATEST, PREVIOUS, BEST = "checkpoint_latest.pth", "checkpoint_previous.pth", "checkpoint_best.pth"


class CheckpointFileError(RuntimeError):
    """A checkpoint that cannot be written, or that cannot be read and has no replacement."""


class SafeCheckpoints:
    """The part of a trainer that writes and reads checkpoints, around nnU-Net's own.

    A checkpoint is written beside its name and renamed when it is complete, so a training that is killed, or a disk
    that is full, leaves the old one as it was.  The one before the latest is kept as `checkpoint_previous.pth` until
    the training has ended.  A latest checkpoint that is damaged is replaced by the newer of previous and best; a final
    or best one never is, because what it is asked for is its own weights.
    """

    # what nnUNetTrainer provides
    is_ddp: bool
    local_rank: int
    disable_checkpointing: bool
    output_folder: str
    print_to_log_file: Any

    def additions(self) -> dict[str, Any]:
        """What a checkpoint is to hold besides nnU-Net's own, which offers no place for more; nothing here."""
        return {}

    def save_checkpoint(self, filename: str) -> None:
        """As nnU-Net's, complete or not at all.

        Raises:
            CheckpointFileError: it cannot be written; what was there under that name is untouched.
        """
        if self.disable_checkpointing or self.local_rank != 0:
            super().save_checkpoint(filename)  # type: ignore[misc]
            return
        partial = f"{filename}.partial"
        try:
            super().save_checkpoint(partial)  # type: ignore[misc]
            if added := self.additions():
                torch.save({**torch.load(partial, map_location="cpu", weights_only=False), **added}, partial)
            if os.path.basename(filename) == LATEST:
                _keep(filename, os.path.join(os.path.dirname(filename), PREVIOUS))
            os.replace(partial, filename)
        except (OSError, RuntimeError) as error:
            raise CheckpointFileError(
                f"{filename} could not be written ({why_not_written(error)}); earlier checkpoints are intact: see "
                "whether the disk is full or the folder read-only, then continue with --c"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                Path(partial).unlink(missing_ok=True)

    def adopt_checkpoint(self, checkpoint: dict) -> None:
        """Take over what a checkpoint holds besides nnU-Net's own; nothing here."""

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As nnU-Net's; where the latest checkpoint is damaged, from the newest of its folder that is not.

        Raises:
            CheckpointFileError: none can be read; training does not start anew by itself.
        """
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            with told_alone(CheckpointFileError):
                filename_or_checkpoint, checkpoint = self._agree(checkpoint)
        # nnU-Net gets the name and reads the file itself: given a dict, its own code fails (as of 2.8)
        super().load_checkpoint(filename_or_checkpoint)  # type: ignore[misc]
        self.adopt_checkpoint(checkpoint)

    def _agree(self, filename: str) -> tuple[str, dict]:
        """The file all processes read, and what it holds: the first process looks, the others follow."""
        if not self.is_ddp:
            return self._readable(filename)
        found: list[Any] = [None]
        checkpoint = None
        if self.local_rank == 0:
            try:
                path, checkpoint = self._readable(filename)
                found = [path]
            except CheckpointFileError as error:
                found = [error]
        distributed.broadcast_object_list(found, src=0)
        if isinstance(found[0], CheckpointFileError):
            raise found[0]
        return found[0], _load(found[0]) if checkpoint is None else checkpoint

    def _readable(self, filename: str) -> tuple[str, dict]:
        """The file to use instead of `filename`, itself if nothing is wrong with it, and what it holds."""
        folder = Path(filename).parent
        replaceable = os.path.basename(filename) == LATEST
        others = [path for path in (folder / name for name in (PREVIOUS, BEST)) if replaceable and path.is_file()]
        newest_first = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        reason = ""
        for path in dict.fromkeys((filename, *map(str, newest_first))):
            try:
                checkpoint = _load(path)
            except Exception as error:
                if not _is_damage(error):
                    raise
                reason = reason or f"{type(error).__name__}: {(str(error).splitlines() or ['no details'])[0]}"
                continue
            if path != filename:
                self.print_to_log_file(f"WARNING: {filename} cannot be read ({reason}); {path} is used instead")
            return path, checkpoint
        instead = f", and {folder} has no other checkpoint that can" if replaceable else ""
        raise CheckpointFileError(
            f"{filename} cannot be read ({reason}){instead}: restore it from a backup, or delete it, upon which --c "
            "goes on from the latest or best checkpoint there is, or starts anew if there is none"
        )

    def on_train_end(self) -> None:
        """As nnU-Net's, which deletes the latest checkpoint; so does this the one before it."""
        super().on_train_end()  # type: ignore[misc]
        if self.local_rank == 0 and not self.disable_checkpointing:
            Path(self.output_folder, PREVIOUS).unlink(missing_ok=True)


def _load(filename: str) -> dict:
    """A checkpoint with its check sums verified, on the CPU.

    Raises:
        Exception: whatever zipfile, pickle and torch stumble over in a damaged one, see `_is_damage`.
    """
    with zipfile.ZipFile(filename) as archive:
        if damage := damage_in(archive):
            raise zipfile.BadZipFile(damage)
    checkpoint = torch.load(filename, map_location="cpu", weights_only=False)
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise ValueError("it holds no network_weights")
    return checkpoint


def _is_damage(error: Exception) -> bool:
    """Whether a checkpoint cannot be read because of what is in it: a flipped bit raises nearly anything.

    No reason to lose epochs is what a file system or a network drive may do for a moment, memory that does not suffice,
    and a class that this environment lacks or has elsewhere.
    """
    if is_of_the_file_system(error) or isinstance(error, MemoryError | ImportError | AttributeError):
        return False
    return not (isinstance(error, RuntimeError) and "memory" in str(error))  # torch's allocator


def _keep(latest: str, previous: str) -> None:
    """A second name for the latest checkpoint; at no moment is there none under its own.

    Where the file system knows no hard links there is no previous checkpoint, only the latest and the best.
    """
    spare = f"{previous}.partial"
    with contextlib.suppress(OSError):
        Path(spare).unlink(missing_ok=True)
        os.link(latest, spare)
        os.replace(spare, previous)
