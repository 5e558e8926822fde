"""A checkpoint by its name: found on this machine or downloaded, read and checked; or one message that says what to do.

It is looked for in this order:

1. An explicit path, or else the environment variable SWIN_UMAMBA_WEIGHTS.  A file must be used, whatever its name; a
   folder is searched first.  A path that does not exist is an error, never passed over.
2. `pretrained_weights/` of the checkout this package runs from (a clone or an editable install).
3. The user's cache: $XDG_CACHE_HOME/swin_umamba_nnunet, by default ~/.cache/swin_umamba_nnunet.  Downloads go here and
   not into torch.hub's folder, so that the one folder named in every message holds nothing but these files.

The current working directory is never searched.  Finding imports no torch; reading does.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet.pretrained.registry import (
    DownloadError,
    WeightsNotFoundError,
    WeightsRecord,
    accepted_records,
)
from swin_umamba_nnunet.settings import user_cache_folder

if TYPE_CHECKING:
    from swin_umamba_nnunet.pretrained.checkpoint import Checkpoint

ENVIRONMENT_VARIABLE = "SWIN_UMAMBA_WEIGHTS"

logger = logging.getLogger(__name__)


def ensure_weights(
    wanted: str | Sequence[WeightsRecord],
    explicit: str | os.PathLike | None = None,
    *,
    scratch_trainer: str | None = None,
) -> "Checkpoint":
    """Get hold of the ImageNet weights and make sure that they are what they should be, before any work starts.

    Args:
        wanted: name of a network ("swin_umamba", "swin_umamba_d", "vm_unet") or of a checkpoint ("vmamba_tiny_v0"); or
            records: the one that is looked for, and others that serve as well.  Those others are taken only from a file
            that the user points at: one that happens to lie in a folder, for another network, would silently change
            what the training starts from.
        explicit: file or folder, instead of SWIN_UMAMBA_WEIGHTS.
        scratch_trainer: trainer to recommend to someone who cannot get the weights.

    Returns:
        What was read, for `load_imagenet_weights`; its `path` is that of the file, found or just downloaded.

    Raises:
        ValueError: no such name.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: a file was found that is damaged, of another kind, or under a published name but not that file.
    """
    from swin_umamba_nnunet.pretrained.checkpoint import read_checkpoint
    from swin_umamba_nnunet.pretrained.download import download_weights

    accepted = accepted_records(wanted) if isinstance(wanted, str) else wanted
    try:
        path = find_weights(accepted[0], explicit)
        if path is None:
            checkpoint = download_weights(accepted[0], cache_folder())
        else:
            checkpoint = read_checkpoint(path, *accepted)
    except (DownloadError, WeightsNotFoundError) as error:
        raise WeightsNotFoundError(_what_to_do(accepted, error, explicit, scratch_trainer)) from error
    record, digest = checkpoint.record, checkpoint.sha256
    assert record is not None  # of a checkpoint that was accepted
    level = logging.INFO if record.sha256 in (None, digest) else logging.WARNING
    verdict = record.verdict_on(digest)
    logger.log(level, "ImageNet weights %s: %s, sha256 %s (%s).", record.name, checkpoint.path, digest, verdict)
    return checkpoint


def _what_to_do(
    accepted: Sequence[WeightsRecord], cause: Exception, explicit: str | os.PathLike | None, scratch_trainer: str | None
) -> str:
    record, *alternatives = accepted
    searched = ""
    for named in ("", explicit):  # "": none; what cannot be searched is `cause`
        with contextlib.suppress(WeightsNotFoundError):
            searched = f" ({', '.join(map(str, searched_folders(named)))})"
    others = " or ".join(f"{each.title} ({each.file_name})" for each in alternatives)
    instead = f" {others} serves instead if {ENVIRONMENT_VARIABLE} names that file." if others else ""
    scratch = f" To train without ImageNet weights, use {scratch_trainer}." if scratch_trainer else ""
    return (
        f"The ImageNet weights {record.name} ({record.description}) are not available: {cause}. Download {record.url} "
        f"where there is a network and put the file into a folder that is searched{searched}, or set "
        f"{ENVIRONMENT_VARIABLE} to the file or to its folder.{instead}{scratch}"
    )


def find_weights(record: WeightsRecord, explicit: str | os.PathLike | None = None) -> Path | None:
    """Absolute path of the first file found in the module's order, or None.

    Only names are compared; what is in the file is checked when it is read.

    Raises:
        WeightsNotFoundError: the path the user named does not exist.
    """
    return named_file(explicit) or find_in_folders(record, searched_folders(explicit))


def find_in_folders(record: WeightsRecord, folders: Iterable[Path]) -> Path | None:
    """The first file in `folders` that has one of the record's names, or None."""
    candidates = (folder / name for folder in folders for name in record.file_names)
    return next((path for path in candidates if path.is_file()), None)


def named_path(explicit: str | os.PathLike | None = None) -> Path | None:
    """The path the user named: `explicit`, else what SWIN_UMAMBA_WEIGHTS holds, else None.

    Raises:
        WeightsNotFoundError: it is neither a file nor a folder.
    """
    origin = ENVIRONMENT_VARIABLE if explicit is None else "the given path"
    named = os.environ.get(ENVIRONMENT_VARIABLE) if explicit is None else explicit
    if not named:
        return None
    path = Path(named).expanduser().absolute()
    if not path.exists():
        raise WeightsNotFoundError(
            f"{origin} names {path}, which does not exist; name a checkpoint file or a folder that holds one"
        )
    return path


def named_file(explicit: str | os.PathLike | None = None) -> Path | None:
    """The path the user named if it is that of a file; raises as `named_path` does."""
    named = named_path(explicit)
    return None if named is None or named.is_dir() else named


def searched_folders(explicit: str | os.PathLike | None = None) -> list[Path]:
    """Every folder that is searched, in order: the one the user named, if it is one, and the default ones.

    Raises:
        WeightsNotFoundError: the path the user named does not exist, or there is no cache folder.
    """
    named = named_path(explicit)
    folders = (named if named is not None and named.is_dir() else None, checkout_folder(), cache_folder())
    return [folder for folder in folders if folder is not None]


def checkout_folder() -> Path | None:
    """`pretrained_weights/` beside the package in a checkout; None where the package is installed as a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root / "pretrained_weights" if (root / "pyproject.toml").is_file() else None


def cache_folder() -> Path:
    """The user's cache folder of this package; it need not exist.

    Raises:
        WeightsNotFoundError: this user has no home folder and XDG_CACHE_HOME is not set.
    """
    try:
        return Path(user_cache_folder())
    except RuntimeError as error:
        raise WeightsNotFoundError(
            "this user has no home folder to keep downloads in; set XDG_CACHE_HOME to a folder that can be written"
        ) from error
