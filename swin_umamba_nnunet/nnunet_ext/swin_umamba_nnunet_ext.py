"""What nnU-Net's finder sees of this package: it imports this file as a top-level module and asks it for a class."""

try:
    from swin_umamba_nnunet.trainers import *  # noqa: F403
except ModuleNotFoundError as error:
    # A child process inherits nnUNet_extTrainer, even one of another environment that does not have this package.
    # There is nothing to find here for it, and nnU-Net goes on to its next folder.
    if error.name != "swin_umamba_nnunet":
        raise
