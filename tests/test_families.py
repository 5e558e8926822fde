"""Every family of trainers through nnU-Net's own commands: two iterations of training, then a prediction.

All networks are small, but those that start from ImageNet weights, which fit no other.
"""

import shutil
from pathlib import Path

import pytest

from tests import synthetic_dataset as dataset
from tests.workspace import write_imagenet_file

pytestmark = pytest.mark.slow

# The user's own folder of trainers; small networks where the plans do not decide.
TRAINERS = """
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

from swin_umamba_nnunet import trainers


class _Brief:
    num_epochs = 1
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities=False):
        pass


SMALL = {"depths": (1, 1, 1, 1), "width": 16}


class BriefSwinUMamba(_Brief, trainers.nnUNetTrainerSwinUMambaScratch):
    network_settings = {**SMALL, "d_state": 2}


class BriefVMUNet(_Brief, trainers.nnUNetTrainerVMUNetScratch):
    network_settings = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1), "width": 16, "d_state": 2}


class BriefUMambaEnc(_Brief, trainers.nnUNetTrainerUMambaEnc):
    pass


class BriefUMambaEncNoMamba(_Brief, trainers.nnUNetTrainerUMambaEncNoMamba):
    pass


class BriefUMambaEncPaper(_Brief, trainers.nnUNetTrainerUMambaEncPaper):
    pass


class BriefVMUNetImageNet(_Brief, trainers.nnUNetTrainerVMUNet):
    pass


class BriefDV2ImageNet(_Brief, trainers.nnUNetTrainerSwinUMambaDV2):
    pass


class BriefDNoScanImageNet(_Brief, trainers.nnUNetTrainerSwinUMambaDNoScan):
    pass


class BriefUMambaBotPaper(_Brief, trainers.nnUNetTrainerUMambaBotPaper, nnUNetTrainerNoDA):
    pass  # no augmentation: nnU-Net's blur cannot take volumes of two slices, and comes at random


class BriefV2(_Brief, trainers.nnUNetTrainerSwinUMambaV2Scratch):
    network_settings = {**trainers.nnUNetTrainerSwinUMambaV2Scratch.network_settings, **SMALL}


class BriefDV2(_Brief, trainers.nnUNetTrainerSwinUMambaDV2Scratch):
    network_settings = {**trainers.nnUNetTrainerSwinUMambaDV2Scratch.network_settings, **SMALL}


class BriefNoScan(_Brief, trainers.nnUNetTrainerSwinUMambaDNoScanScratch):
    network_settings = {**trainers.nnUNetTrainerSwinUMambaDNoScanScratch.network_settings, **SMALL}
"""
IMAGENET = {
    "BriefVMUNetImageNet": "vmamba_small_v0",
    "BriefDV2ImageNet": "vmamba_tiny_v2",
    "BriefDNoScanImageNet": "vmamba_tiny_v0",
}
FAMILIES = [line.split()[1].split("(")[0] for line in TRAINERS.splitlines() if line.startswith("class Brief")]


@pytest.fixture(scope="module")
def imagenet(workspace):
    """Files with the keys and shapes of the published ones."""
    weights = workspace.folder / "families_imagenet"
    for name in IMAGENET.values():
        write_imagenet_file(weights / f"{name}.pth", name)
    (workspace.folder / "own" / "families.py").write_text(TRAINERS)
    return weights


@pytest.mark.parametrize("trainer", FAMILIES)
def test_trains_and_predicts(workspace, imagenet, trainer):
    configuration = "3d_fullres" if "BotPaper" in trainer else "2d"
    plans = dataset.NARROW if "UMambaEnc" in trainer or "UMambaBot" in trainer else "nnUNetPlans"
    weights = str(imagenet / f"{IMAGENET[trainer]}.pth") if trainer in IMAGENET else ""
    which = ("-tr", trainer, "-p", plans, "-device", "cpu")
    workspace.ok("nnUNetv2_train", "901", configuration, "0", *which, SWIN_UMAMBA_WEIGHTS=weights)
    folder = workspace.results(trainer, configuration, plans) / "fold_0"
    assert (folder / "checkpoint_final.pth").is_file()
    (log,) = folder.glob("training_log_*.txt")
    text = log.read_text()
    assert text.count("Epoch time") == 1
    assert "nan" not in text.split("Epoch 0")[1]
    assert ("sha256 of the ImageNet weights" in text) is (trainer in IMAGENET)
    if trainer not in IMAGENET:  # `test_end_to_end` predicts with one of these, and their small twins do here
        output = workspace.folder / f"predicted_{trainer}"
        workspace.ok(*workspace.prediction(trainer, output, configuration, plans), "--disable_tta")
        found = dataset.predicted(output)
        if configuration == "3d_fullres":
            which = ("-m", folder.parent, "-o", f"{output}_too", "--no-mirroring", "--device", "cpu")
            workspace.ok("swin-umamba", "predict", "-i", workspace.images, *which)
            assert (dataset.predicted(Path(f"{output}_too")) == found).all()
    shutil.rmtree(folder)  # up to 0.5 GB of checkpoints
