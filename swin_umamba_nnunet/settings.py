"""Every environment variable of this package, once: its name, what it means, how it is read; and what doctor lists.

Code, `swin-umamba doctor`, docs and tests read these tables.  A start-up line imports this file in every Python process
of the environment, so it imports nothing but `os` and `sys`.
"""

import os
import sys

MEANINGS = {
    "SWIN_UMAMBA_BACKEND": "scan backend to use instead of the automatic choice",
    "SWIN_UMAMBA_WEIGHTS": "file with the ImageNet weights, or a folder to search first",
    "SWIN_UMAMBA_SEED": "seed of this package's trainers, a whole number; with the same seed the same weights",
    "SWIN_UMAMBA_FUSED_GLUE": "0: norm and gate after the scan in torch's own operations instead of one fused one",
    "SWIN_UMAMBA_NO_AUTOREGISTER": "1: do not make the trainers known to nnU-Net at start-up",
}
# nnU-Net's folders -> what has to be there
FOLDERS = {
    "nnUNet_raw": "the folder your datasets are in",
    "nnUNet_preprocessed": "a folder on a fast disk, for what nnU-Net makes of them",
    "nnUNet_results": "a folder for trained models",
}
OTHERS = (
    "nnUNet_extTrainer",
    "nnUNet_compile",
    "nnUNet_def_n_proc",
    "nnUNet_n_proc_DA",
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "TRITON_INTERPRET",
    "CUDA_VISIBLE_DEVICES",
    "XDG_CACHE_HOME",
)
PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY")  # may hold a password: never shown

_YES, _NO = ("1", "true", "t", "yes", "on"), ("0", "false", "f", "no", "off")


def read(name: str) -> str | None:
    """What a variable holds, None where it is not set or empty."""
    return os.environ.get(name) or None


def switch(name: str, default: bool = False) -> bool:
    """Whether a variable says yes; `default` where it is not set or empty.

    Raises:
        ValueError: it says neither yes nor no.
    """
    said = os.environ.get(name, "").strip().lower()
    if said and said not in _YES + _NO:
        raise ValueError(f"the environment variable {name} is {said!r}; set it to 1 or 0 ({MEANINGS[name]})")
    return said in _YES if said else default


def number(name: str) -> int | None:
    """The whole number a variable holds; None where it is not set or empty.

    Raises:
        ValueError: it holds something else, or one below 0.
    """
    said = os.environ.get(name, "").strip()
    if said and not (said.isdecimal() and len(said) < 20):
        raise ValueError(
            f"the environment variable {name} is {said!r}; set it to a whole number of at most 19 digits, 0 or more "
            f"({MEANINGS[name]})"
        )
    return int(said) if said else None


def user_cache_folder() -> str:
    """The one folder for what can be had again (fetched weights, compiled kernels); it need not exist.

    $XDG_CACHE_HOME/swin_umamba_nnunet, by default ~/.cache/swin_umamba_nnunet.  Where the variable is not set, macOS
    keeps caches in ~/Library/Caches and Windows in %LOCALAPPDATA%; a folder of the first name that is there already is
    used all the same.

    Raises:
        RuntimeError: this user has no home folder and XDG_CACHE_HOME is not set.
    """
    name = "swin_umamba_nnunet"
    if os.path.isabs(base := read("XDG_CACHE_HOME") or ""):  # the XDG specification has relative values ignored
        return os.path.join(base, name)
    if (home := os.path.expanduser("~")) == "~":
        raise RuntimeError("this user has no home folder; set XDG_CACHE_HOME to a folder that can be written")
    usual = os.path.join(home, ".cache", name)
    instead = {
        "darwin": os.path.join(home, "Library", "Caches", name),
        "win32": os.path.join(read("LOCALAPPDATA") or os.path.dirname(usual), name),
    }
    return usual if os.path.isdir(usual) else instead.get(sys.platform, usual)
