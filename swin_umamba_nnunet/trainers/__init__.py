"""nnU-Net trainers of this package's networks, with the recipes of their papers.

    nnUNetv2_train DATASET 2d FOLD -tr nnUNetTrainerSwinUMambaD

Write your own variant by subclassing one in a file of your own `nnUNet_extTrainer` folder and setting class attributes:

    from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaD

    class MyTrainer(nnUNetTrainerSwinUMambaD):
        num_epochs = 300
"""

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.trainers.generated import *  # noqa: F403
from swin_umamba_nnunet.trainers.generated import __all__ as __all__

_autoregister.register()  # for code that has assigned nnUNet_extTrainer since Python started
