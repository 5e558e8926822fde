"""Makes nnU-Net find the trainers: appends this package's `nnunet_ext` folder to `nnUNet_extTrainer`.

Run by a start-up line (`swin_umamba_nnunet_autoregister.pth`, installed beside the package) in every Python process of
the environment, so it imports nothing but `os` and `settings`.  What the user has set in the variable stays, and stays
in front.  `SWIN_UMAMBA_NO_AUTOREGISTER=1` switches it off.  Code that assigns the variable while Python runs replaces
what was added here; `register()`, or importing `swin_umamba_nnunet.trainers`, adds the folder again.
"""

import os

from swin_umamba_nnunet import settings

VARIABLE = "nnUNet_extTrainer"
SWITCH = "SWIN_UMAMBA_NO_AUTOREGISTER"
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nnunet_ext")


def switched_off() -> bool:
    """True if the user has set the switch, to anything but a no."""
    try:
        return settings.switch(SWITCH)
    except ValueError:  # a start-up line has nobody to tell
        return True


def _entries() -> list[str]:
    return [entry.strip() for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry.strip()]


def _is_ours(folder: str) -> bool:
    return os.path.normcase(folder) == os.path.normcase(FOLDER)


def users_folders() -> list[str]:
    """What the variable names besides the folder of this package."""
    return [folder for folder in _entries() if not _is_ours(folder)]


def register() -> bool:
    """Add the folder to this process's environment, once; True if the variable names it afterwards."""
    if any(map(_is_ours, _entries())):
        return True
    if switched_off() or not os.path.isdir(FOLDER):
        return False
    current = os.environ.get(VARIABLE, "")
    os.environ[VARIABLE] = current + os.pathsep + FOLDER if current.strip() else FOLDER
    return True
