"""Getting hold of a checked checkpoint: found on this machine, or downloaded; or one message that says what to do."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
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
from swin_umamba_nnunet.pretrained.registry import WeightsRecord, get_alternatives, get_record

logger = logging.getLogger(__name__)


def ensure_weights(name: str, explicit: str | os.PathLike | None = None, *, scratch_trainer: str | None = None) -> Path:
    """Make sure that the ImageNet weights are on this machine and are what they should be, before any work starts.

    Args:
        name: of a network ("swin_umamba", "swin_umamba_d", "vm_unet") or of a checkpoint ("vmamba_tiny_v0").
        explicit: file or folder, instead of SWIN_UMAMBA_WEIGHTS (see `locate` for the order).
        scratch_trainer: trainer to recommend to someone who cannot get the weights.

    Returns:
        Absolute path of the file, found or just downloaded.

    Raises:
        ValueError: no such name.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: a file was found that is damaged, of another kind, or under a published name but not that file.
    """
    record, alternatives = get_record(name), get_alternatives(name)
    return obtain_checkpoint(record, explicit, scratch_trainer=scratch_trainer, alternatives=alternatives).path


def obtain_checkpoint(
    record: WeightsRecord,
    explicit: str | os.PathLike | None = None,
    *,
    scratch_trainer: str | None = None,
    alternatives: Sequence[WeightsRecord] = (),
) -> Checkpoint:
    """As `ensure_weights`, for a record; returns what was read.

    A file under one of the published names, found or downloaded, must be the published one: all its keys and shapes,
    its size where the registry knows it, and its hash where the registry's is confirmed.  A file of another name that
    the user points at may be a re-saved copy: the encoder's keys and shapes decide, norm and head may be missing, and
    a size or hash that differs does not matter (the hash is logged).

    `alternatives` are taken only from a file that the user points at.  One that happens to lie in a folder, for another
    network, would silently change what the training starts from.
    """
    try:
        path = find_weights(record, explicit)
        if path is None:
            path = download_weights(record, cache_folder(), check=_checks(record))
    except (DownloadError, WeightsNotFoundError) as error:
        raise WeightsNotFoundError(_what_to_do(record, error, explicit, scratch_trainer, alternatives)) from error
    accepted = (record, *alternatives)
    published = next((each for each in accepted if path.name in each.file_names), None)
    checkpoint = read_checkpoint(path, *accepted) if published is None else read_published(published, path)
    record = checkpoint.record
    level = logging.INFO if record.sha256 in (None, checkpoint.sha256) else logging.WARNING
    verdict = hash_verdict(record, checkpoint.sha256)
    logger.log(level, "ImageNet weights %s: %s, sha256 %s (%s).", record.name, path, checkpoint.sha256, verdict)
    return checkpoint


def fetch_weights(record: WeightsRecord, folder: Path | None = None, sources: Sequence[str] = ()) -> Checkpoint:
    """Download a checkpoint into `folder` (the cache by default) unless it is there, and check what is there.

    Args:
        record: what to fetch.
        folder: made if missing.
        sources: addresses to try instead of the published ones, see `addresses.mirror_urls`.

    Raises:
        DownloadError: it could not be fetched; nothing is left under its name.
        CheckpointError: a file of that name was there and is not the published one.
    """
    target = cache_folder() if folder is None else folder.expanduser().absolute()
    return read_published(record, download_weights(record, target, sources=sources, check=_checks(record)))


def _checks(record: WeightsRecord) -> Callable[[Path], object]:
    return lambda file: read_published(record, file)


def read_published(record: WeightsRecord, path: Path) -> Checkpoint:
    """Read a file that goes under a published name: all its tensors, its size and hash as far as they are known.

    Raises:
        CheckpointError: it is not the published file.
    """
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


def _what_to_do(
    record: WeightsRecord,
    cause: Exception,
    explicit,
    scratch_trainer: str | None,
    alternatives: Sequence[WeightsRecord],
) -> str:
    folders: list[Path] = []
    with contextlib.suppress(WeightsNotFoundError):  # then it is `cause`
        folders = default_folders()
    with contextlib.suppress(WeightsNotFoundError):
        named = named_path(explicit)
        folders = [*([named] if named else []), *folders]
    searched = f" ({', '.join(map(str, folders))})" if folders else ""
    others = " or ".join(f"{each.title} ({each.file_name})" for each in alternatives)
    instead = f" {others} serves instead if {ENVIRONMENT_VARIABLE} names that file." if others else ""
    scratch = f" To train without ImageNet weights, use {scratch_trainer}." if scratch_trainer else ""
    return (
        f"The ImageNet weights {record.name} ({record.description}) are not available: {cause}. Download {record.url} "
        f"where there is a network and put the file into a folder that is searched{searched}, or set "
        f"{ENVIRONMENT_VARIABLE} to the file or to its folder.{instead}{scratch}"
    )
