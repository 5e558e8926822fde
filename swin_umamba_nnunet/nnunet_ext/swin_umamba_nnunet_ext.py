"""What nnU-Net's finder sees of this package: it imports this file as a top-level module and asks it for a class."""

from swin_umamba_nnunet.trainers import *  # noqa: F403
