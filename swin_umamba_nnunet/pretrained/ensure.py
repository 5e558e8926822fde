"""Getting hold of a checked checkpoint: found on this machine, or downloaded; or one message that says what to do."""

import contextlib
import logging
import os
from pathlib import Path

from swin_umamba_nnunet.pretrained.checkpoint import Checkpoint, read_checkpoint
from swin_umamba_nnunet.pretrained.download import download_weights, hash_verdict
from swin_umamba_nnunet.pretrained.errors import CheckpointError, DownloadError, WeightsNotFoundError
from swin_umamba_nnunet.pretrained.locate import (
    ENVIRONMENT_VARIABLE,
    cache_folder,
    default_folders,
    find_weights,
    named_path,
)
from swin_umamba_nnunet.pretrained.registry import WeightsRecord, get_record
from swin_umamba_nnunet.pretrained.variants import inventory

logger = logging.getLogger(__name__)


def ensure_weights(name: str, explicit: str | os.PathLike | None = None, *, scratch_trainer: str | None = None) -> Path:
    """Make sure that the ImageNet weights are on this machine and are what they should be, before any work starts.

    Args:
        name: of a network ("swin_umamba", "swin_umamba_d") or of a checkpoint ("vmamba_tiny_v0").
        explicit: file or folder, instead of SWIN_UMAMBA_WEIGHTS (see `locate` for the order).
        scratch_trainer: trainer to recommend to someone who cannot get the weights.

    Returns:
        Absolute path of the file, found or just downloaded.

    Raises:
        ValueError: no such name, or a checkpoint that no network of this package takes.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: a file was found that is damaged, of another kind, or under a published name but not that file.
    """
    return obtain_checkpoint(get_record(name), explicit, scratch_trainer=scratch_trainer).path


def obtain_checkpoint(
    record: WeightsRecord, explicit: str | os.PathLike | None = None, *, scratch_trainer: str | None = None
) -> Checkpoint:
    """As `ensure_weights`, for a first-generation record; returns what was read.

    A file under one of the published names, found or downloaded, must be the published one: all its keys and shapes,
    its size where the registry knows it, and its hash where the registry's is confirmed.  A file of another name that
    the user points at may be a re-saved copy: the encoder's keys and shapes decide, norm and head may be missing, and
    a size or hash that differs does not matter (the hash is logged).
    """
    inventory(record)  # raises for what cannot be checked, before anything is fetched
    try:
        path = find_weights(record, explicit)
        if path is None:
            path = download_weights(record, cache_folder(), check=lambda file: _read(record, file))
    except (DownloadError, WeightsNotFoundError) as error:
        raise WeightsNotFoundError(_what_to_do(record, error, explicit, scratch_trainer)) from error
    checkpoint = _read(record, path) if path.name in record.file_names else read_checkpoint(path, record)
    level = logging.INFO if record.sha256 in (None, checkpoint.sha256) else logging.WARNING
    verdict = hash_verdict(record, checkpoint.sha256)
    logger.log(level, "ImageNet weights %s: %s, sha256 %s (%s).", record.name, path, checkpoint.sha256, verdict)
    return checkpoint


def _read(record: WeightsRecord, path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path, record, classifier=True)  # first: it can say what the file is instead
    size = path.stat().st_size
    if record.size_bytes not in (None, size):
        raise CheckpointError(
            f"{path} has {size:,} bytes, but the published file of that name has {record.size_bytes:,}; if it is a "
            f"copy saved again that you trust, give it another name and set {ENVIRONMENT_VARIABLE} to it, else delete "
            f"it and fetch {record.url}"
        )
    if record.sha256_confirmed and checkpoint.sha256 != record.sha256:
        raise CheckpointError(
            f"{path} has sha256 {checkpoint.sha256}, expected {record.sha256}; delete it and fetch {record.url}"
        )
    return checkpoint


def _what_to_do(record: WeightsRecord, cause: Exception, explicit, scratch_trainer: str | None) -> str:
    folders: list[Path] = []
    with contextlib.suppress(WeightsNotFoundError):  # then it is `cause`
        folders = default_folders()
    with contextlib.suppress(WeightsNotFoundError):
        named = named_path(explicit)
        folders = [*([named] if named else []), *folders]
    searched = f" ({', '.join(map(str, folders))})" if folders else ""
    scratch = f" To train without ImageNet weights, use {scratch_trainer}." if scratch_trainer else ""
    return (
        f"The ImageNet weights {record.name} ({record.description}) are not available: {cause}. Download {record.url} "
        f"where there is a network and put the file into a folder that is searched{searched}, or set "
        f"{ENVIRONMENT_VARIABLE} to the file or to its folder.{scratch}"
    )
