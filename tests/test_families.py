"""Every family of trainers through nnU-Net's own commands: two iterations of training, then a prediction."""

import pytest
import SimpleITK as sitk
import torch

from swin_umamba_nnunet.pretrained import get_record
from swin_umamba_nnunet.pretrained.variants import inventory
from tests import synthetic_dataset as dataset
from tests.workspace import NO_WORKERS, TRAIN

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
FAMILIES = {
    "BriefVMUNet": "2d",
    "BriefUMambaEnc": "2d",
    "BriefUMambaEncNoMamba": "2d",
    "BriefUMambaEncPaper": "2d",
    "BriefVMUNetImageNet": "2d",
    "BriefDV2ImageNet": "2d",
    "BriefDNoScanImageNet": "2d",
    "BriefUMambaBotPaper": "3d_fullres",
    "BriefV2": "2d",
    "BriefDV2": "2d",
    "BriefNoScan": "2d",
}


@pytest.fixture(scope="module")
def trained(workspace):
    """With every family trained."""
    (workspace.folder / "own" / "families.py").write_text(TRAINERS)
    weights = workspace.folder / "families_imagenet"
    weights.mkdir()
    for name in IMAGENET.values():  # the keys and shapes of the published files
        record = get_record(name)
        state_dict = {key: torch.tensor(0.01).expand(shape) for key, shape in inventory(record).items()}
        torch.save({"model": state_dict}, weights / f"{name}.pth")
    results = workspace.run_all(*(
        ("nnUNetv2_train", "901", configuration, "0", "-device", "cpu", "-tr", trainer)
        for trainer, configuration in FAMILIES.items() if trainer not in IMAGENET
    ))  # fmt: skip
    results += [
        workspace.run(*TRAIN, trainer, SWIN_UMAMBA_WEIGHTS=str(weights / f"{name}.pth"))
        for trainer, name in IMAGENET.items()
    ]
    failed = [result.stdout[-2000:] + result.stderr[-3000:] for result in results if result.returncode != 0]
    assert not failed, failed[0]
    return workspace


def test_trained(trained):
    for trainer, configuration in FAMILIES.items():
        folder = trained.results(trainer, configuration) / "fold_0"
        assert (folder / "checkpoint_final.pth").is_file()
        (log,) = folder.glob("training_log_*.txt")
        text = log.read_text()
        assert text.count("Epoch time") == 1
        assert "nan" not in text.split("Epoch 0")[1]
        assert ("sha256 of the ImageNet weights" in text) is (trainer in IMAGENET)


def test_predicted(trained):
    images = trained.folder / "nnUNet_raw" / dataset.NAME / "imagesTs"
    results = trained.run_all(*(
        ("nnUNetv2_predict", *NO_WORKERS, "-d", "901", "-c", configuration, "-tr", trainer, "-f", "0", "-device", "cpu",
         "-i", images, "-o", trained.folder / f"predicted_{trainer}", "--disable_tta")
        for trainer, configuration in FAMILIES.items()
    ))  # fmt: skip
    failed = [result.stdout[-2000:] + result.stderr[-3000:] for result in results if result.returncode != 0]
    assert not failed, failed[0]
    for trainer in FAMILIES:
        path = trained.folder / f"predicted_{trainer}" / f"case{dataset.TRAINING_CASES}.nii.gz"
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        assert found.shape == (dataset.SLICES, dataset.ROWS, dataset.COLUMNS)
