"""nnU-Net's own commands on a tiny dataset, with the package installed (editable) and nothing exported for it.

A training from ImageNet weights that dies and goes on, hand-over and fine-tuning of what it leaves, disturbances,
prediction, refusals.  The stages build on each other, hence the fixtures of module scope.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from swin_umamba_nnunet import models
from tests import synthetic_dataset as dataset
from tests.jsons import edit
from tests.messages import assert_names
from tests.workspace import write_imagenet_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals to process groups"),
]

REAL = "nnUNetTrainerSwinUMambaD"
TRAINERS = '''
import os
import time

from swin_umamba_nnunet import trainers


class nnUNetTrainerSwinUMambaD(trainers.nnUNetTrainerSwinUMambaD):
    """In place of the real one and under its name, so that it leaves behind what the real one does, but sooner."""

    num_epochs = int(os.environ.get("EPOCHS", "1"))
    num_iterations_per_epoch = 1
    num_val_iterations_per_epoch = 1
    frozen_epochs = 1
    save_every = 1

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if self.current_epoch == 1 and "DIES" in os.environ:
            os._exit(9)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy, initial, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None  # a quarter of the time in validation and prediction
        return rotation, dummy, initial, None

    def perform_actual_validation(self, save_probabilities=False):
        if "SKIP_VALIDATION" not in os.environ:
            super().perform_actual_validation(save_probabilities)


class Disturbed(trainers.nnUNetTrainerSwinUMambaDScratch):
    """Small; the variable DISTURBANCE says what happens in the second epoch, or in prediction."""

    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    num_epochs = 3
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1
    save_every = 1

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        what = os.environ.get("DISTURBANCE")
        if self.current_epoch == 1 and what == "a worker dies":
            self.dataloader_train._processes[0].kill()
        if self.current_epoch == 1 and what:
            self.num_iterations_per_epoch = 10**9  # ends when it is made to

    def train_step(self, batch):
        if self.current_epoch == 1 and "MARKER" in os.environ:
            mark()
        return super().train_step(batch)

    def perform_actual_validation(self, save_probabilities=False):
        pass

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        network = super().build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if os.environ.get("DISTURBANCE") == "prediction takes long":
            network.register_forward_pre_hook(dawdle)
        return network


def mark():
    """Tell the group of this process, to which a terminal would send Ctrl-C."""
    with open(os.environ["MARKER"] + ".partial", "w") as file:
        file.write(str(os.getpgrp()))
    os.replace(file.name, os.environ["MARKER"])


def dawdle(module, inputs):
    mark()
    for _ in range(3000):
        time.sleep(0.1)
'''

# Runs a command as a terminal does, in a process group of its own, and presses Ctrl-C once the file named MARKER is
# there, which names the group.  What is left of it afterwards are orphans; zombies are the container's business.
CTRL_C = """
import json, os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)  # not inherited as ignored, as a background job's is
marker = pathlib.Path(os.environ["MARKER"])
output = open(f"{marker}.output", "w")
process = subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True, stdout=output, stderr=output)
while not marker.exists() and process.poll() is None:
    time.sleep(0.1)
interrupted = marker.exists()
group = int(marker.read_text()) if interrupted else process.pid
def left():
    rows = subprocess.run(["ps", "-A", "-o", "pgid=,stat=,pid="], capture_output=True, text=True, check=True).stdout
    rows = [row.split() for row in rows.splitlines()]
    return [row for row in rows if row[0] == str(group) and not row[1].startswith("Z")]
running = len(left())
if interrupted:
    os.killpg(group, signal.SIGINT)
try:
    status = process.wait(90)
    deadline = time.monotonic() + 20
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
finally:
    orphans = left()
    if orphans:
        os.killpg(group, signal.SIGKILL)
print(json.dumps({"status": status, "orphans": orphans, "interrupted": interrupted, "running": running}))
"""


@pytest.fixture(scope="module")
def own(workspace):
    """The workspace with the trainers of this file."""
    (workspace.folder / "own" / "end_to_end.py").write_text(TRAINERS)
    return workspace


def train(number, trainer, *options, configuration="2d"):
    return ("nnUNetv2_train", str(number), configuration, "0", "-device", "cpu", "-tr", trainer, *options)


# ---------------------------------------------------------------------------------------------- from ImageNet weights


@pytest.fixture(scope="module")
def trained(own):
    """With a nnUNetTrainerSwinUMambaD that had its ImageNet file, died, and was continued without it."""
    file = write_imagenet_file(own.folder / "imagenet" / "constants.pth")  # the published name would ask for its size
    result = own.command(*train(901, REAL), SWIN_UMAMBA_WEIGHTS=str(file), EPOCHS="2", DIES="1")
    assert result.returncode == 9, result.stdout[-3000:] + result.stderr[-3000:]
    file.unlink()
    own.ok(*train(901, REAL, "--c"), EPOCHS="2")
    return own


def test_imagenet_weights_in_a_training(trained):
    log = trained.log(REAL)
    assert log.count("208 of 208 encoder tensors loaded") == 1
    assert "adapted to the image's channels: patch_embed.proj.weight" in log
    assert "Continuing a training that started from the ImageNet weights vmamba_tiny_v0" in log
    checkpoint = trained.checkpoint(REAL)
    recorded = checkpoint["imagenet_weights"]
    assert Path(recorded["source"]).name == "constants.pth"
    assert recorded["sha256"] in log
    assert trained.checkpoint(REAL, "checkpoint_best.pth")["imagenet_weights"] == recorded
    # Held in epoch 0 and trained in epoch 1: AdamW has seen the held part half as often as the rest.
    states = checkpoint["optimizer_state"]["state"].values()
    assert {int(state["step"]) for state in states} == {1, 2}


def test_an_exported_model_predicts_on_a_machine_that_has_only_the_plugin(trained, tmp_path):
    """Another machine: its own nnUNet_results, nothing else but the plugin, and the archive installed."""
    archive = tmp_path / "model.zip"
    trained.ok("nnUNetv2_export_model_to_zip", "-d", "901", "-o", archive, "-c", "2d", "-tr", REAL, "-f", "0")
    (tmp_path / "results").mkdir()
    kept = ("nnUNet_def_n_proc", "OMP_NUM_THREADS", "HTTPS_PROXY", "https_proxy")
    variables = {name: trained.variables[name] for name in kept}
    places = {"nnUNet_results": str(tmp_path / "results"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    there = dataclasses.replace(trained, variables=variables | places)
    there.ok("nnUNetv2_install_pretrained_model_from_zip", archive)
    there.ok(*trained.prediction(REAL, tmp_path / "there"))
    models.predict(trained.results(REAL), trained.images, tmp_path / "here", device="cpu")
    ours, theirs = (dataset.predicted(tmp_path / where) for where in ("here", "there"))
    assert (ours == theirs).mean() > 0.999  # other numbers of threads add in another order


def test_fine_tuning_to_other_classes(trained):
    """More of them, of which only the first occurs.  To other channels: `tests/models/test_adapting.py`."""
    name, preprocessed = "Dataset904_Other", trained.folder / "nnUNet_preprocessed"
    shutil.copytree(preprocessed / dataset.NAME, preprocessed / name)
    labels = {"background": 0, "box": 1, "absent 2": 2, "absent 3": 3}
    edit(preprocessed / name / "dataset.json", lambda content: content.update(labels=labels))
    edit(preprocessed / name / "nnUNetPlans.json", lambda plans: plans.update(dataset_name=name))
    start = trained.fold(REAL) / "checkpoint_final.pth"
    trained.ok(*train(904, REAL, "-pretrained_weights", start), SKIP_VALIDATION="1")
    folder = trained.folder / "nnUNet_results" / name / f"{REAL}__nnUNetPlans__2d" / "fold_0"
    (log,) = folder.glob("training_log_*.txt")
    assert_names(log.read_text(), "ImageNet weights were NOT loaded", "The encoder is held until epoch 1")
    before = trained.checkpoint(REAL)["network_weights"]
    checkpoint = torch.load(folder / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    after, curves = checkpoint["network_weights"], checkpoint["logging"]
    assert np.isfinite([*curves["train_losses"], *curves["val_losses"]]).all()
    heads = {key for key in after if ".seg_layers." in key}
    assert {after[key].shape[0] for key in heads} == {4}
    body = after.keys() - heads
    assert all(value.isfinite().all() for value in after.values())
    # one step of AdamW moves a weight by its learning rate of 1e-4, and by its decay
    assert max((before[key] - after[key]).abs().max() for key in body) < 1e-3
    held = {key for key in body if key.startswith("encoder.layers.")}
    assert len(held) == 204
    assert all(torch.equal(before[key], after[key]) for key in held)
    assert not all(torch.equal(before[key], after[key]) for key in body - held)


# ------------------------------------------------------------------------------------------------------- disturbances


def press_ctrl_c(workspace, command, **variables):
    """Interrupt a command that has workers, which has to end with all of them."""
    marker = workspace.folder / f"marker_{command[0]}"
    script = workspace.script(str(command[0]))
    result = workspace.run("-c", CTRL_C, script, *command[1:], MARKER=str(marker), **variables)
    output = Path(f"{marker}.output").read_text()
    assert result.returncode == 0, result.stderr + output[-3000:]
    outcome = json.loads(result.stdout)
    assert outcome["interrupted"], output[-3000:]
    assert outcome["status"] != 0
    assert outcome["running"] > 1  # with workers
    assert outcome["orphans"] == []
    assert "KeyboardInterrupt" in output


@pytest.fixture(scope="module")
def worker_killed(own):
    """A training of which one data-loader worker was killed in the second epoch."""
    return own, own.cold.command(*train(901, "Disturbed"), DISTURBANCE="a worker dies", nnUNet_n_proc_DA="2")


@pytest.fixture(scope="module")
def interrupted(worker_killed):
    """The same training, continued and interrupted in its second epoch."""
    own, _ = worker_killed
    press_ctrl_c(own, train(901, "Disturbed", "--c"), DISTURBANCE="none", nnUNet_n_proc_DA="2")
    return own


@pytest.fixture(scope="module")
def finished(interrupted):
    """The same training, continued to its end."""
    interrupted.ok(*train(901, "Disturbed", "--c"))
    return interrupted


def test_a_killed_data_loader_worker_ends_the_training_with_an_error(worker_killed):
    own, result = worker_killed
    assert result.returncode == 1
    assert "One or more background workers are no longer alive" in result.stderr
    assert own.checkpoint("Disturbed", "checkpoint_latest.pth")["current_epoch"] == 1


def test_ctrl_c_ends_a_training_at_once_and_it_can_be_continued(interrupted, request):
    assert interrupted.checkpoint("Disturbed", "checkpoint_latest.pth")["current_epoch"] == 1
    assert not list(interrupted.fold("Disturbed").glob("*.partial"))
    finished = request.getfixturevalue("finished")
    checkpoint, log = finished.checkpoint("Disturbed"), finished.log("Disturbed")
    assert (checkpoint["trainer_name"], checkpoint["current_epoch"]) == ("Disturbed", 3)
    assert checkpoint["logging"]["lrs"] == pytest.approx([1e-4, 1e-6 + 0.75 * 99e-6, 1e-6 + 0.25 * 99e-6])
    assert log.count("Epoch time") == 3  # each epoch was finished once
    assert log.count("Selective scan backend on cpu: numba") == 3  # once per run


def test_prediction_by_name_and_by_folder(finished):
    """The latter with `swin-umamba predict`; nnU-Net's own command for folders finds trainers the same way."""
    moved, by_name, ours = (finished.folder / name for name in ("a moved model", "by_name", "by_us"))
    shutil.copytree(finished.results("Disturbed"), moved)
    # with workers, and all of them start from nothing
    finished.cold.ok(*finished.prediction("Disturbed", by_name), "-npp", "1", "-nps", "1")
    scan = finished.folder / "a scan.nii.gz"
    shutil.copyfile(finished.images / f"case{dataset.TRAINING_CASES}_0000.nii.gz", scan)
    finished.ok("swin-umamba", "predict", "-m", moved, "-i", scan, "-o", ours, "--device", "cpu")
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(ours / scan.name))) == dataset.predicted(by_name)).all()


def test_ctrl_c_ends_a_prediction_at_once(finished):
    name, *arguments = finished.prediction("Disturbed", finished.folder / "interrupted")
    arguments = [*arguments, "-npp", "1", "-nps", "1"]  # with workers; the last one counts
    press_ctrl_c(finished, (name, *arguments), DISTURBANCE="prediction takes long")


def test_refusals(own):
    """Each is a message alone, without a traceback, and leaves nothing behind."""
    before = own.everything
    for command, facts in (
        (train(901, f"{REAL}_1epoch", configuration="3d_fullres"), ("is for 2D networks",)),
        (("nnUNetv2_train", "901", "2d", "0", "-tr", "Disturbed"), ("-device cuda",)),
        (train(901, f"{REAL}_1epoch"), ("vmamba_tiny_v0", f"{REAL}Scratch_1epoch")),
    ):
        result = own.command(*command, CUDA_VISIBLE_DEVICES="-1", SWIN_UMAMBA_WEIGHTS="absent.pth")
        assert result.returncode == 1
        assert_names(result.stderr.strip().splitlines()[-1], *facts)
        assert "Traceback" not in result.stderr
        assert own.everything == before
