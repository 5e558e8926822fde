"""What the probe says about real trainers, in this process; and the estimates made of it."""

import dataclasses
import itertools
import os
from pathlib import Path

import pytest

from swin_umamba_nnunet.benchmark import Row, estimates, jobs, probe, process, runner
from swin_umamba_nnunet.benchmark.files import plain
from swin_umamba_nnunet.pretrained.registry import WeightsNotFoundError
from tests.benchmark.conftest import NAME
from tests.jsons import dump, load

OWN = """
from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaDScratch


class ProbedTiny(nnUNetTrainerSwinUMambaDScratch):
    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    num_epochs = 7
    num_iterations_per_epoch = 3
    enable_deep_supervision = True


class ProbedOwnSplit(ProbedTiny):
    def do_split(self):
        return ["a"], ["b", "c", "d"]

    def _build_loss(self):
        return super()._build_loss()


class Probed3D(ProbedTiny):
    dims = (3,)
"""


@pytest.fixture
def own_trainers(folders, tmp_path, monkeypatch):
    """The dataset with plans that nnU-Net can use, and a user's folder of trainers."""
    common = {"batch_size": 2, "batch_dice": True, "architecture": {}, "data_identifier": "nnUNetPlans_2d"}
    plans = {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"2d": {**common, "patch_size": [33, 40]}},
    }
    dump(folders.preprocessed / "nnUNetPlans.json", plans)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "probed_trainers.py").write_text(OWN)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "own"))
    monkeypatch.setenv("nnUNet_results", "/as/it/was")
    return folders


def ask(*trainers, folds=(0, 1), fetch=True, cost=False):
    rows = [Row(name) for name in trainers]
    pairs = [[NAME, row.key] for row in rows]
    request = {"rows": [row.to_dict() for row in rows], "pairs": pairs, "folds": folds, "fetch": fetch, "cost": cost}
    return plain(probe.inspect_rows(request))  # as it comes out of the child process


def test_a_users_trainer(own_trainers, tmp_path):
    answer = ask("ProbedTiny", "ProbedOwnSplit", cost=True)
    trainer, other = answer["trainers"].values()
    assert trainer.items() >= {"problems": [], "weights": None, "own_protocol": [], "stock_network": False}.items()
    mine, ours, *further = trainer["ancestors"]
    assert mine == "probed_trainers.ProbedTiny"
    assert ours == "swin_umamba_nnunet.trainers.generated.nnUNetTrainerSwinUMambaDScratch"
    assert "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer" in further
    assert len(trainer["file_sha256"]) == 64
    assert other["own_protocol"] == ["the split", "the loss"]
    recipe = answer["pairs"][f"{NAME} ProbedTiny__nnUNetPlans__2d"]
    assert (recipe["cost"]["parameters"] > 1000, recipe["cost"]["batch_size"]) == (True, 2)
    expected = {
        "problems": [],
        "epochs": 7,
        "iterations_per_epoch": 3,
        "validation_iterations_per_epoch": 50,
        "batch_size": 2,
        "patch_size": [33, 40],
        "mirroring_axes": [0, 1],
        "deep_supervision": True,
        "split": [],
    }
    assert recipe.items() >= expected.items()
    assert answer["pairs"][f"{NAME} ProbedOwnSplit__nnUNetPlans__2d"]["split"] == [0, 1]
    assert answer["hardware"]["cores"] >= 1


def test_missing_splits_are_made_by_nnunet_unless_it_is_a_dry_run(own_trainers):
    file = own_trainers.preprocessed / "splits_final.json"
    file.unlink()
    ask("ProbedTiny", fetch=False)
    assert not file.exists()
    (own_trainers.preprocessed / "nnUNetPlans_2d" / "e.b2nd").touch()  # nnU-Net makes five folds
    ask("ProbedTiny")
    assert len(load(file)) == 5


def test_trainers_that_do_not_exist_or_do_not_fit(own_trainers):
    answer = ask("nnUNetTrainerSwinUmambaD", "Probed3D")
    (problem,) = answer["trainers"]["nnUNetTrainerSwinUmambaD"]["problems"]
    assert "nnU-Net finds no trainer called 'nnUNetTrainerSwinUmambaD'" in problem
    assert problem.endswith("did you mean nnUNetTrainerSwinUMambaD?")
    (problem,) = answer["pairs"][f"{NAME} Probed3D__nnUNetPlans__2d"]["problems"]
    assert problem.startswith(f"{NAME}, Probed3D__nnUNetPlans__2d: ValueError")


def test_a_trainer_file_that_cannot_be_imported(own_trainers, tmp_path):
    (tmp_path / "own" / "a_broken.py").write_text("import a_library_that_nobody_has\n")
    (problem,) = ask("ProbedTiny")["trainers"]["ProbedTiny"]["problems"]
    assert "a_library_that_nobody_has" in problem


def test_missing_weights(own_trainers, monkeypatch):
    from swin_umamba_nnunet import pretrained

    def ensure(name, *, scratch_trainer):
        raise WeightsNotFoundError(f"none, train {scratch_trainer}")

    monkeypatch.setattr(pretrained, "ensure_weights", ensure, raising=False)
    monkeypatch.setattr(pretrained, "find_weights", lambda record: None, raising=False)
    name = "nnUNetTrainerSwinUMambaD_5epochs"
    (problem,) = ask(name)["trainers"][name]["problems"]
    assert problem == f"trainer {name}: none, train nnUNetTrainerSwinUMambaDScratch_5epochs"
    answer = ask(name, fetch=False)["trainers"][name]
    assert (answer["problems"], answer["weights"]) == ([], {"name": "vmamba_tiny_v0", "sha256": None})


def test_a_missing_evaluation_library_is_a_problem_before_anything_runs(own_trainers, monkeypatch):
    assert ask()["problems"] == []
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda name: None)
    assert "surface-distance" in ask()["problems"][0]


def test_estimates(own_trainers, plan, monkeypatch):
    monkeypatch.setattr(jobs, "ask", probe.inspect_rows)
    prepared = plan(trainers=["ProbedTiny"], seeds=[0, 1])
    key = f"{NAME} ProbedTiny__nnUNetPlans__2d"
    counted = estimates.estimate(prepared)[key]
    assert (counted.basis, counted.seconds) == ("counted", None)
    assert counted.memory_bytes > prepared.jobs[0].recipe["cost"]["activation_bytes"]

    environments, broken = [], dataclasses.replace(prepared, device="cuda")

    def run(command, environment, log):  # in this process: a second Python would import torch once more
        environments.append(environment)
        if load(Path(command[-2]))["device"] == "cuda":
            log.write_text("Traceback\nRuntimeError: out of memory\n")
            return 1
        probe.main(command[-2:])
        return 0

    monkeypatch.setattr(probe, "end_with_parent", lambda: None)
    monkeypatch.setattr(process, "run_child", run)
    timed = estimates.estimate(prepared, time_iterations=1)[key]
    assert timed.basis == "timed"
    # as the training itself will run: threads that spin while they wait would make it seem ten times as long
    assert environments[0].items() >= runner.environment(prepared.jobs[0], "cpu").items()
    assert environments[0].get("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY")) == "PASSIVE"
    assert timed.seconds > 0
    assert timed.memory_bytes > 1e6
    (failed,) = estimates.estimate(broken, 1).values()
    assert (failed.basis, failed.error) == ("counted", "RuntimeError: out of memory")
    prepared.jobs[1].update(training={"seconds_per_epoch": 3.0, "epochs": 7, "peak_memory_bytes": 11})
    assert estimates.estimate(prepared, 1)[key] == estimates.Estimate(21.0, 11, "measured")


def test_the_first_iterations_do_not_count(monkeypatch):
    """Nor does one that something else on the machine made slow."""
    clock = itertools.chain.from_iterable((0.0, seconds) for seconds in (100.0, 50.0, 20.0, 1.0, 9.0, 1.5))
    monkeypatch.setattr(probe.time, "perf_counter", lambda: next(clock))
    assert probe._seconds(lambda: None, 3, "cpu") == 1.5
