"""nnU-Net's own commands on a tiny dataset, with the package installed (editable) and nothing exported for it.

The stages build on each other (preprocessed data, then a trained model), hence the fixtures of module scope.
"""

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from tests import synthetic_dataset as dataset
from tests.synthetic_dataset import predicted
from tests.workspace import TRAIN, Workspace, write_imagenet_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(workspace) -> Workspace:
    """With a TinyScratch that died in its second epoch and was continued to its end."""
    assert workspace.cold.run(*TRAIN, "TinyScratch").returncode == 9
    assert workspace.checkpoint("TinyScratch", "checkpoint_latest.pth")["current_epoch"] == 1
    workspace.ok(*TRAIN, "TinyScratch", "--c", SKIP_VALIDATION="1")
    return workspace


@pytest.fixture(scope="module")
def imagenet_file(workspace) -> Path:
    """A file with the keys and shapes of the published one."""
    # not the published name, which would ask for its size
    return write_imagenet_file(workspace.folder / "imagenet" / "constants.pth")


@pytest.fixture(scope="module")
def trained_from_imagenet(workspace, imagenet_file) -> Workspace:
    """With a ShortPretrained that had its ImageNet file, died, and was continued without it."""
    result = workspace.run(*TRAIN, "ShortPretrained", SWIN_UMAMBA_WEIGHTS=str(imagenet_file))
    assert result.returncode == 9, result.stdout[-3000:] + result.stderr[-3000:]
    workspace.ok(*TRAIN, "ShortPretrained", "--c", SKIP_VALIDATION="1")
    return workspace


def test_training_and_resume(trained):
    log = trained.log("TinyScratch")
    assert log.count("Epoch 0") == 1
    assert log.count("Epoch 1") == 2  # begun twice, finished once
    assert log.count("Epoch time") == 2
    assert log.count("Selective scan backend on cpu: numba") == 2  # once per run
    checkpoint = trained.checkpoint("TinyScratch")
    assert checkpoint["trainer_name"] == "TinyScratch"
    assert checkpoint["current_epoch"] == 2
    assert checkpoint["logging"]["lrs"] == pytest.approx([1e-4, (1e-4 + 1e-6) / 2])


def test_prediction_by_name_and_by_folder(trained):
    """The latter with `swin-umamba predict`; nnU-Net's own command for folders finds trainers the same way."""
    moved, by_name, ours = (trained.folder / name for name in ("a moved model", "by_name", "by_us"))
    shutil.copytree(trained.results("TinyScratch"), moved)
    trained.ok(*trained.prediction("TinyScratch", by_name), "-npp", "1", "-nps", "1")
    scan = trained.folder / "a scan.nii.gz"
    shutil.copyfile(trained.images / f"case{dataset.TRAINING_CASES}_0000.nii.gz", scan)
    trained.ok("swin-umamba", "predict", "-m", moved, "-i", scan, "-o", ours, "--device", "cpu")
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(ours / scan.name))) == predicted(by_name)).all()


def test_swin_umamba_is_trained_and_predicts(workspace):
    workspace.ok(*TRAIN, "TinyPlain", SKIP_VALIDATION="1")
    assert workspace.log("TinyPlain").count("Epoch time") == 1
    assert workspace.checkpoint("TinyPlain")["current_epoch"] == 1
    output = workspace.folder / "predicted_with_workers"
    settings = ("-npp", "1", "-nps", "1", "--disable_tta")
    workspace.cold.ok(*workspace.prediction("TinyPlain", output), *settings)  # all of which start from nothing
    predicted(output)


def test_imagenet_weights_in_a_training(trained_from_imagenet, imagenet_file):
    log = trained_from_imagenet.log("ShortPretrained")
    assert log.count("208 of 208 encoder tensors loaded") == 1
    assert "adapted to the image's channels: patch_embed.proj.weight" in log
    assert "Continuing a training that started from the ImageNet weights vmamba_tiny_v0" in log
    checkpoint = trained_from_imagenet.checkpoint("ShortPretrained")
    recorded = checkpoint["imagenet_weights"]
    assert recorded["source"] == str(imagenet_file)
    assert recorded["sha256"] in log
    best = trained_from_imagenet.checkpoint("ShortPretrained", "checkpoint_best.pth")
    assert best["imagenet_weights"] == recorded
    # Held in epoch 0 and trained in epoch 1: AdamW has seen the held part half as often as the rest.
    states = checkpoint["optimizer_state"]["state"].values()
    assert {int(state["step"]) for state in states} == {1, 2}


def test_refusals(workspace):
    before = workspace.everything
    three, cuda = workspace.run_all(
        ("nnUNetv2_train", "901", "3d_fullres", "0", "-device", "cpu", "-tr", "nnUNetTrainerSwinUMamba"),
        ("nnUNetv2_train", "901", "2d", "0", "-tr", "TinyScratch"),
        CUDA_VISIBLE_DEVICES="-1",
    )
    assert (three.returncode, cuda.returncode) == (1, 1)
    assert "is for 2D networks" in three.stderr.strip().splitlines()[-1]
    assert "-device cuda" in cuda.stderr.strip().splitlines()[-1]
    assert "Traceback" not in three.stderr + cuda.stderr
    assert workspace.everything == before
