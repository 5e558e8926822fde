"""The trainers of the example benchmark: the recipes in 10 epochs of 100 iterations, Swin-UMamba's at 5e-4."""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers

EPOCHS, ITERATIONS, VALIDATION = 10, 100, 10


class _OneThread:
    """nnUNetv2_train takes every core on a CPU; here two trainings share two."""

    def on_train_start(self):
        torch.set_num_threads(1)
        super().on_train_start()


class nnUNetTrainerShort(_OneThread, nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = EPOCHS
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = ITERATIONS, VALIDATION


class _Short(_OneThread):
    num_epochs = EPOCHS
    num_iterations_per_epoch, num_val_iterations_per_epoch = ITERATIONS, VALIDATION


class _ShortAdamW(_Short):
    initial_lr = 5e-4  # five times the papers', which are for 1000 epochs


class UMambaBotShort(_Short, trainers.nnUNetTrainerUMambaBot):
    pass


class UMambaEncShort(_Short, trainers.nnUNetTrainerUMambaEnc):
    pass


class SwinUMambaShort(_ShortAdamW, trainers.nnUNetTrainerSwinUMambaScratch):
    pass


class SwinUMambaDShort(_ShortAdamW, trainers.nnUNetTrainerSwinUMambaDScratch):
    pass


class SwinUMambaDNoScanShort(_ShortAdamW, trainers.nnUNetTrainerSwinUMambaDNoScanScratch):
    pass


class VMUNetShort(_Short, trainers.nnUNetTrainerVMUNetScratch):
    pass
