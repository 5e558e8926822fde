"""Every environment variable of this package, once: its name, what it means, and which values are a yes.

Code, `swin-umamba doctor`, README and tests read this table.  A start-up line imports this file in every Python process
of the environment, so it imports nothing but `os`.
"""

import os

MEANINGS = {
    "SWIN_UMAMBA_BACKEND": "scan backend to use instead of the automatic choice",
    "SWIN_UMAMBA_WEIGHTS": "file with the ImageNet weights, or a folder to search first",
    "SWIN_UMAMBA_FUSED_GLUE": "0: norm and gate after the scan in torch's own operations instead of one fused one",
    "SWIN_UMAMBA_NO_AUTOREGISTER": "1: do not make the trainers known to nnU-Net at start-up",
}

_YES, _NO = ("1", "true", "t", "yes", "on"), ("0", "false", "f", "no", "off")


def switch(name: str, default: bool = False) -> bool:
    """Whether a variable says yes; `default` where it is not set or empty.

    Raises:
        ValueError: it says neither yes nor no.
    """
    said = os.environ.get(name, "").strip().lower()
    if said and said not in _YES + _NO:
        raise ValueError(f"the environment variable {name} is {said!r}; set it to 1 or 0 ({MEANINGS[name]})")
    return said in _YES if said else default
