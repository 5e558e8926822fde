"""The trainers of full length.  Only class attributes; the recipe's common part is in `base`."""

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
from swin_umamba_nnunet.trainers.mamba import MambaTrainer


class nnUNetTrainerSwinUMamba(MambaTrainer):
    """Swin-UMamba with its encoder from ImageNet (arXiv:2402.03302)."""

    network_class = SwinUMamba
    imagenet_weights = "vmamba_tiny_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaScratch"


class nnUNetTrainerSwinUMambaD(MambaTrainer):
    """Swin-UMamba-dagger with its encoder from ImageNet (arXiv:2402.03302)."""

    network_class = SwinUMambaD
    imagenet_weights = "vmamba_tiny_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaDScratch"


class nnUNetTrainerSwinUMambaScratch(MambaTrainer):
    """Swin-UMamba from random weights (arXiv:2402.03302)."""

    network_class = SwinUMamba


class nnUNetTrainerSwinUMambaDScratch(MambaTrainer):
    """Swin-UMamba-dagger from random weights, without deep supervision (arXiv:2402.03302)."""

    network_class = SwinUMambaD
    enable_deep_supervision = False
