"""The whole loop through the real commands: runs of one epoch, a failing one and a killed one.

Trainers are tiny.  The runs that are killed start as a user starts them, the others from a warm interpreter.
"""

import csv
import dataclasses
import os
import shutil
import signal
import time

import numpy as np
import pytest
import SimpleITK as sitk

from tests import synthetic_dataset as dataset
from tests.benchmark.bench import VERB, make_bench
from tests.jsons import edit
from tests.messages import assert_names
from tests.workspace import once_per_run, prepare

pytestmark = pytest.mark.slow

TRAINERS = '''
import os
import time

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaDScratch


class Ours(nnUNetTrainerSwinUMambaDScratch):
    """A small network of this package."""

    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    num_epochs = 1
    num_iterations_per_epoch = 2
    num_val_iterations_per_epoch = 1


class Stock(nnUNetTrainer):
    """nnU-Net's network; cannot begin while the file beside this one says so."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1

    def on_train_start(self):
        if os.path.exists(os.path.join(os.environ["nnUNet_raw"], "stock_is_broken")):
            raise RuntimeError("the network has a hole")
        super().on_train_start()


class Slow(Ours):
    """Epochs long enough to be killed in, while the file beside those above says so."""

    num_epochs = 5

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if os.path.exists(os.path.join(os.environ["nnUNet_raw"], "epochs_are_long")):
            time.sleep(1.5)
'''


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    shutil.copytree(once_per_run(tmp_path_factory, "prepared", prepare), folder, dirs_exist_ok=True)
    (folder / "nnUNet_results").rmdir()
    small = {"patch_size": [40, 56], "batch_size": 2}  # a size that nnU-Net's network takes
    plans = folder / "nnUNet_preprocessed" / dataset.NAME / "nnUNetPlans.json"
    edit(plans, lambda content: content["configurations"]["2d"].update(small))
    return make_bench(folder, TRAINERS)


@pytest.fixture(scope="module")
def ran(bench, warm_python):
    """With two trainers run, of which one fails at first, and an observer who drew all with an offset."""
    bench = dataclasses.replace(bench, python=warm_python)
    (bench.folder / "second").mkdir()
    for file in (bench.folder / "nnUNet_raw" / dataset.NAME / "labelsTr").iterdir():
        label = sitk.ReadImage(str(file))
        moved = sitk.GetImageFromArray(np.roll(sitk.GetArrayFromImage(label), 2, axis=1))
        moved.CopyInformation(label)
        sitk.WriteImage(moved, str(bench.folder / "second" / file.name))
    config = bench.write_config("bench", "Stock", "Ours", more='observers = {second = "second"}\n')
    marker = bench.folder / "nnUNet_raw" / "stock_is_broken"
    marker.touch()
    out = bench.run(*VERB, "run", "--config", config, code=1)
    assert_names(out, "1 failed, 2 done", "RuntimeError: the network has a hole")  # the end of its log
    assert bench.cell("bench", "Stock")["error"]["step"] == "train"
    assert bench.cell("bench", "Ours")["state"] == "done"
    marker.unlink()
    return bench


def test_a_failed_cell_is_taken_up_again_and_a_finished_one_is_not(ran):
    before = ran.cell("bench", "Ours")
    assert "3 done" in ran.run(*VERB, "run", "--config", "bench.toml")
    assert ran.cell("bench", "Ours") == before
    stock = ran.cell("bench", "Stock")
    assert (stock["state"], stock["attempts"], stock["error"]) == ("done", 2, None)
    for trainer in ("Stock", "Ours"):
        record = ran.cell("bench", trainer)
        assert record["training"]["epochs"] == record["prediction"]["cases"] == 1
        assert record["training"]["seconds_per_epoch"] > 0
        assert record["training"]["peak_memory_what"] == "process RSS"
        assert record["cost"]["parameters"] > 0
        assert len(record["curves"]["train_losses"]) == 1
        place = ran.place("bench", trainer)
        assert (
            (place / "evaluation/metrics.csv").read_text().startswith("case,class,metric,value,unit,convention\ncase0,")
        )
        log = (place / "logs/train.log").read_text()
        assert "nnU-Net's own validation is left out" in log
        # what a seed fixes in trainings of this package: tests/trainers/test_replay.py
        assert record["training"]["replays"] is ("Seed 0: " in log) is (trainer == "Ours")
    assert not (ran.folder / "nnUNet_results").exists()
    assert "3 runs: 3 done" in ran.run(*VERB, "status", "bench")


def test_an_observer_is_scored(ran):
    """A box of 16 rows, moved by two."""
    scores = ran.folder / "bench/cells" / dataset.NAME / "second/fold_0/seed_0/evaluation/metrics.csv"
    with open(scores, newline="") as file:
        (dice,) = (float(line["value"]) for line in csv.DictReader(file) if line["metric"] == "Dice")
    assert dice == pytest.approx(14 / 16)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_run_is_continued(bench, warm_python):
    """Killed without a chance to clean up: the training must notice by itself that it is alone.

    What Ctrl-C does: tests/cli/test_benchmark.py, test_process.py and test_runner.py.
    """
    warm = dataclasses.replace(bench, python=warm_python)
    config = bench.write_config("killed", "Slow")
    marker = bench.folder / "nnUNet_raw" / "epochs_are_long"
    marker.touch()
    end = time.monotonic() + 300
    with bench.start(*VERB, "run", "--config", config) as process:
        try:
            while not (reached := bench.cell("killed", "Slow", "training.json").get("epoch", 0)):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.1)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert "1 interrupted" in warm.run(*VERB, "status", "killed")
    marker.unlink()
    warm.run(*VERB, "run", "--config", config)
    record = bench.cell("killed", "Slow")
    assert (record["state"], record["attempts"]) == ("done", 2)
    (resumed,) = record["training"]["resumed_at_epoch"]
    assert resumed >= reached
    assert len(record["curves"]["train_losses"]) == len(record["curves"]["epoch_end_timestamps"]) == 5
    trainings = [command for command in record["commands"] if "nnUNetv2_train" in command]
    assert ["--c" in command for command in trainings] == [False, True]
