"""The trainers of the example benchmark: the recipes as they are, in 15 epochs of 20 iterations."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet import trainers

EPOCHS, ITERATIONS = 15, 20


class nnUNetTrainerShort(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = EPOCHS
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = ITERATIONS, 4


class _Short:
    num_epochs = EPOCHS
    num_iterations_per_epoch, num_val_iterations_per_epoch = ITERATIONS, 4


class UMambaEncShort(_Short, trainers.nnUNetTrainerUMambaEnc):
    pass


class UMambaEncNoMambaShort(_Short, trainers.nnUNetTrainerUMambaEncNoMamba):
    pass


class SwinUMambaDShort(_Short, trainers.nnUNetTrainerSwinUMambaDScratch):
    pass


class SwinUMambaDNoScanShort(_Short, trainers.nnUNetTrainerSwinUMambaDNoScanScratch):
    pass


class VMUNetShort(_Short, trainers.nnUNetTrainerVMUNetScratch):
    pass
