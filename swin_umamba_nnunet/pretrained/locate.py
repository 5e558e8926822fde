"""Where a checkpoint is looked for on this machine, in which order.

1. An explicit path, or else the environment variable SWIN_UMAMBA_WEIGHTS.  A file must be used, whatever its name; a
   folder is searched first.  A path that does not exist is an error, never passed over.
2. `pretrained_weights/` of the checkout this package runs from (a clone or an editable install).
3. The user's cache: $XDG_CACHE_HOME/swin_umamba_nnunet, by default ~/.cache/swin_umamba_nnunet.  Downloads go here and
   not into torch.hub's folder, so that the one folder named in every message holds nothing but these files.

The current working directory is never searched.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from swin_umamba_nnunet.pretrained.errors import WeightsNotFoundError
from swin_umamba_nnunet.pretrained.registry import WeightsRecord
from swin_umamba_nnunet.settings import user_cache_folder

ENVIRONMENT_VARIABLE = "SWIN_UMAMBA_WEIGHTS"


def named_path(explicit: str | os.PathLike | None = None) -> Path | None:
    """The path the user named: `explicit`, else what SWIN_UMAMBA_WEIGHTS holds, else None.

    Raises:
        WeightsNotFoundError: it is neither a file nor a folder.
    """
    if explicit is not None:
        path, origin = Path(explicit).expanduser(), "the given path"
    elif os.environ.get(ENVIRONMENT_VARIABLE):
        path, origin = Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser(), ENVIRONMENT_VARIABLE
    else:
        return None
    if not path.exists():
        raise WeightsNotFoundError(
            f"{origin} names {path.absolute()}, which does not exist; name a checkpoint file or a folder that holds one"
        )
    return path.absolute()


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


def default_folders() -> list[Path]:
    """The folders searched when the user names none, in order."""
    return [folder for folder in (checkout_folder(), cache_folder()) if folder is not None]


def find_weights(record: WeightsRecord, explicit: str | os.PathLike | None = None) -> Path | None:
    """Absolute path of the first file found in the module's order, or None.

    Only names are compared; what is in the file is checked when it is read.

    Raises:
        WeightsNotFoundError: the path the user named does not exist.
    """
    named = named_path(explicit)
    if named is not None and not named.is_dir():
        return named
    return find_in_folders(record, default_folders() if named is None else [named, *default_folders()])


def find_in_folders(record: WeightsRecord, folders: Iterable[Path]) -> Path | None:
    """The first file in `folders` that has one of the record's names, or None."""
    for folder in folders:
        for file_name in record.file_names:
            if (folder / file_name).is_file():
                return folder / file_name
    return None
