"""The one folder in which this package keeps what can be had again: fetched weights, compiled kernels."""

import os
import sys
from pathlib import Path


def user_cache_folder() -> Path:
    """$XDG_CACHE_HOME/swin_umamba_nnunet, by default ~/.cache/swin_umamba_nnunet; it need not exist.

    Where the variable is not set, macOS keeps caches in ~/Library/Caches and Windows in %LOCALAPPDATA%; a folder of the
    first name that is there already is used all the same.

    Raises:
        RuntimeError: this user has no home folder and XDG_CACHE_HOME is not set.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the XDG specification has relative values ignored
        return Path(base) / "swin_umamba_nnunet"
    usual = Path.home() / ".cache" / "swin_umamba_nnunet"
    instead = {
        "darwin": Path.home() / "Library" / "Caches" / "swin_umamba_nnunet",
        "win32": Path(os.environ.get("LOCALAPPDATA") or usual.parent) / "swin_umamba_nnunet",
    }
    return usual if usual.is_dir() else instead.get(sys.platform, usual)
