"""VM-UNet's trainers: its authors' optimiser and schedule inside nnU-Net's training."""

from typing import Any

import torch

from swin_umamba_nnunet.networks import VMUNet
from swin_umamba_nnunet.trainers._schedule import CosineSchedule
from swin_umamba_nnunet.trainers.mamba import MambaTrainer

HALF_PERIODS = 6  # T_max = 50 of 300 epochs: the learning rate falls and rises three times


class VMUNetTrainer(MambaTrainer):
    """What both of VM-UNet's trainers do.

    The authors': AdamW (learning rate 1e-3, weight decay 1e-2, eps 1e-8), a cosine that oscillates between 1e-3 and
    1e-5 with a half period of 50 epochs (theirs on the ISIC datasets; 100 on Synapse), 300 epochs, no deep supervision,
    nothing frozen.  In other lengths the half period is a sixth of the schedule too.

    nnU-Net's: everything else, so that only the network and its optimiser differ from the other trainers here: the loss
    (Dice and cross-entropy; the authors' are BCE or cross-entropy and Dice), gradients clipped at 12 (theirs are not),
    data augmentation, patches, 250 iterations per epoch, mirroring at test time, the last checkpoint for prediction
    (they choose the one with the lowest validation loss).
    """

    network_class = VMUNet
    eps = 1e-8
    final_lr = 1e-5
    frozen_epochs = 0

    num_epochs: int = 300
    initial_lr: float = 1e-3
    weight_decay: float = 1e-2
    enable_deep_supervision: bool = False

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, CosineSchedule]:
        """AdamW on every parameter alike, and a cosine that oscillates."""
        optimizer, _ = super().configure_optimizers()
        epochs = self.schedule_length()
        return optimizer, CosineSchedule(optimizer, self.initial_lr, epochs, self.final_lr, epochs / HALF_PERIODS)

    def _get_deep_supervision_scales(self) -> Any:
        """None.

        Raises:
            ValueError: deep supervision was switched on: nnU-Net gives the coarsest head, here the only one, no weight.
        """
        if self.enable_deep_supervision:
            raise ValueError(
                f"{type(self).__name__} has enable_deep_supervision = True, but VM-UNet has a single head and nothing "
                "to supervise below it; set it to False"
            )
        return None


class nnUNetTrainerVMUNet(VMUNetTrainer):
    """VM-UNet (arXiv:2402.02491), encoder and decoder from VMamba-Small's ImageNet weights as its authors start it.

    VMamba-Tiny's are taken too, where SWIN_UMAMBA_WEIGHTS names that file.  Optimiser, learning rate and number of
    epochs are the authors'; loss, gradient clipping, mirroring and everything else are nnU-Net's (see VMUNetTrainer).
    """

    imagenet_weights = "vm_unet"
    scratch_trainer = "nnUNetTrainerVMUNetScratch"


class nnUNetTrainerVMUNetScratch(VMUNetTrainer):
    """VM-UNet (arXiv:2402.02491) from random weights.

    Optimiser, learning rate and number of epochs are the authors'; loss, gradient clipping, mirroring and everything
    else are nnU-Net's (see VMUNetTrainer).
    """
