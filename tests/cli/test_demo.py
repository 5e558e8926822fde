"""`swin-umamba demo` with nnU-Net's commands replaced by a recorder: the steps, what is printed, what is repeated."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from filelock import FileLock

from swin_umamba_nnunet import cli, pretrained
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.benchmark import jobs, process, runner
from swin_umamba_nnunet.benchmark.process import command_line
from swin_umamba_nnunet.cli import demo
from swin_umamba_nnunet.datasets import brain
from swin_umamba_nnunet.datasets.brain import SLABS
from swin_umamba_nnunet.pictures import overlay
from tests.messages import assert_names

TRAINER = "nnUNetTrainerSwinUMambaDScratch_demo"
PRETRAINED = ("--trainer", "nnUNetTrainerSwinUMambaD")
COMMANDS = ["nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict", "swin-umamba"]
DATASET = "Dataset152_MNI152Brain"
DESCRIPTION = '{"file_ending": ".nii.gz", "labels": {"background": 0, "grey matter": 1, "white matter": 2}}'
HELD_OUT = [slab.case for slab in SLABS if slab.held_out]


class FakeNnunet:
    """Stands in for the child processes: remembers each call and writes what the next step needs.

    Attributes:
        calls: the commands as one would type them, as lists.
        shown: what had been printed when each command started.
        fails: command -> what to do at its end instead of succeeding.
        folders: nnU-Net's raw folder that each command sees.
        number_of_workers: nnUNet_n_proc_DA that each sees.
    """

    def __init__(self, capsys):
        self.calls, self.shown, self.fails, self.folders, self.number_of_workers = [], [], {}, [], []
        self._capsys = capsys

    def __call__(self, command, environment, log, stop=None, echo=False):
        command = runner.shown(command)
        self.calls.append(command)
        environment = {**os.environ, **environment}
        self.folders.append(environment["nnUNet_raw"])
        self.number_of_workers.append(environment.get("nnUNet_n_proc_DA"))
        self.shown.append(self._capsys.readouterr().out)
        assert echo
        if command[0] in self.fails:
            return self.fails[command[0]](log)
        {COMMANDS[0]: self._plan, COMMANDS[1]: self._train, COMMANDS[2]: self._predict}.get(command[0], self._evaluate)(
            Path(environment["nnUNet_preprocessed"], DATASET), log.parents[1]
        )
        return 0

    def _plan(self, preprocessed, folder):
        (preprocessed / "nnUNetPlans_2d").mkdir(parents=True, exist_ok=True)
        for slab in SLABS:
            (preprocessed / "nnUNetPlans_2d" / f"{slab.case}.pkl").touch()
        (preprocessed / "dataset.json").write_text(DESCRIPTION)
        plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
        (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))

    def _train(self, preprocessed, folder):
        write_checkpoint(folder, "final")
        curves = {"train_losses": [0.5, -0.2], "val_losses": [0.4, -0.3], "mean_fg_dice": [0.6, 0.8]}
        (folder / "training.json").write_text(json.dumps({"finished": True, "curves": curves, "epochs": 2}))

    def _predict(self, preprocessed, folder):
        shutil.copytree(folder / "references", folder / "predictions")
        (folder / "predictions" / "dataset.json").write_text(DESCRIPTION)
        (folder / "prediction.json").write_text('{"seconds": 3.0}')

    def _evaluate(self, preprocessed, folder):
        (folder / "evaluation").mkdir()
        scores = {"grey matter": 0.9, "white matter": 0.8}
        lines = [f"{case},{name},Dice,{value},1,plain" for case in HELD_OUT for name, value in scores.items()]
        text = "\n".join(["case,class,metric,value,unit,convention", *lines, f"{HELD_OUT[0]},grey matter,TP,7,1,plain"])
        (folder / "evaluation" / "metrics.csv").write_text(text)
        (folder / "evaluation" / "summary.json").write_text("{}")

    @property
    def names(self):
        """The commands called, in order, forgetting them."""
        names = [call[0] for call in self.calls]
        self.calls = []
        return names


def write_checkpoint(folder, kind):
    (key,) = [part for part in folder.parts if part.endswith("__nnUNetPlans__2d")]
    fold = folder / "nnUNet_results" / DATASET / key / "fold_0"
    fold.mkdir(parents=True, exist_ok=True)
    (fold / f"checkpoint_{kind}.pth").touch()


def write_small_dataset(raw):
    """Three held-out cases of 4 x 12 x 10 voxels and a dataset.json."""
    rng = np.random.default_rng(0)
    for case in HELD_OUT:
        for kind, name in (("imagesTs", f"{case}_0000"), ("labelsTs", case)):
            (raw / DATASET / kind).mkdir(parents=True, exist_ok=True)
            voxels = rng.integers(0, 3, (4, 12, 10)).astype(np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(raw / DATASET / kind / f"{name}.nii.gz"))
    (raw / DATASET / "dataset.json").write_text(DESCRIPTION)


def ask(request):
    """A probe that finds everything in order."""
    (row,) = request["rows"]
    trainer = {"problems": [], "weights": None, "file_sha256": None, "own_protocol": [], "ancestors": [],
               "stock_network": False}  # fmt: skip
    recipe = {"problems": [], "epochs": 2, "iterations_per_epoch": 20, "batch_size": 2, "patch_size": [160, 160],
              "mirroring_axes": [0, 1]}  # fmt: skip
    return {"problems": [], "hardware": {"gpus": ["one"], "mps": False}, "trainers": {row["name"]: trainer},
            "pairs": {f"{dataset} {key}": recipe for dataset, key in request["pairs"]}}  # fmt: skip


def interrupted(log):
    raise KeyboardInterrupt


def interrupted_after_an_epoch(log):
    write_checkpoint(log.parents[1], "latest")
    raise KeyboardInterrupt


@pytest.fixture
def nnunet(monkeypatch, capsys):
    fake = FakeNnunet(capsys)
    for module in (process, runner):
        monkeypatch.setattr(module, "run_child", fake)
    monkeypatch.setattr(jobs, "ask", ask)
    monkeypatch.setattr(brain, "write_brain_dataset", write_small_dataset)
    monkeypatch.setattr(overlay, "overview", lambda *arguments, log: arguments[3].touch())
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, f"/the/users/own/{name}")
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    return fake


def run(work, *more, device="cpu"):
    return cli.main(["demo", "--work", str(work), "--device", device, *more])


def test_the_whole_way(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    nnunet = FakeNnunet(capsys)
    for module in (process, runner):
        monkeypatch.setattr(module, "run_child", nnunet)
    monkeypatch.setattr(jobs, "ask", ask)
    monkeypatch.setattr(brain, "write_brain_dataset", write_small_dataset)
    before, work = dict(os.environ), tmp_path / "demo"
    assert run(work) == 0
    assert nnunet.calls[1] == [
        "nnUNetv2_train", DATASET, "2d", "0", "-tr", TRAINER, "-p", "nnUNetPlans", "-device", "cpu", "-num_gpus", "1",
    ]  # fmt: skip
    for call, shown in zip(nnunet.calls, nnunet.shown, strict=True):  # each is printed before it runs
        assert command_line(call) in shown
    assert f"export nnUNet_raw={work}/nnUNet_raw" in nnunet.shown[0]
    assert set(nnunet.folders) == {f"{work}/nnUNet_raw"}
    assert dict(os.environ) == before  # the user's own folders are left alone
    assert nnunet.names == COMMANDS
    image = work / f"{TRAINER}.png"
    text = "".join([*nnunet.shown, capsys.readouterr().out])
    assert_names(text, *(f"[{n}/6]" for n in range(1, 7)), "brain_z050", "0.850", "not a benchmark", image)
    assert image.read_bytes().startswith(b"\x89PNG")
    assert_names((work / f"{TRAINER}.txt").read_text(), "grey matter", "0.900", "0.850")


def test_what_is_done_is_not_done_again(nnunet, tmp_path, capsys):
    run(tmp_path)
    assert nnunet.names == COMMANDS
    assert run(tmp_path) == 0
    assert nnunet.names == []
    assert sum(line.startswith("[") and "already" in line for line in capsys.readouterr().out.splitlines()) == 6


def test_deleted_results_are_made_again_with_all_that_follows(nnunet, tmp_path, capsys):
    run(tmp_path)
    (predictions,) = tmp_path.glob("benchmark/cells/*/*/*/*/predictions")
    shutil.rmtree(predictions)
    assert nnunet.names == COMMANDS
    run(tmp_path)
    assert nnunet.names == COMMANDS[2:]
    shutil.rmtree(tmp_path / "nnUNet_raw")
    shutil.rmtree(tmp_path / "nnUNet_preprocessed")
    shutil.rmtree(tmp_path / "benchmark")
    run(tmp_path)
    assert nnunet.names == COMMANDS


def test_another_trainer_shares_the_dataset(nnunet, tmp_path):
    run(tmp_path)
    assert nnunet.names == COMMANDS
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch_5epochs") == 0
    assert "nnUNetTrainerSwinUMambaScratch_5epochs" in nnunet.calls[0]
    assert nnunet.names == COMMANDS[1:]
    run(tmp_path)
    assert nnunet.names == []


def test_fresh_starts_anew(nnunet, tmp_path):
    run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert nnunet.names == COMMANDS
    assert run(tmp_path, "--fresh") == 0
    assert nnunet.names == COMMANDS
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("end", "continued"), [(interrupted_after_an_epoch, True), (interrupted, False)])
def test_an_interrupted_training_goes_on_from_its_checkpoint(nnunet, tmp_path, capsys, end, continued):
    nnunet.fails["nnUNetv2_train"] = end
    assert run(tmp_path) == 130
    assert_names(capsys.readouterr().err, "interrupted", "same command")
    nnunet.fails.clear()
    assert nnunet.names == COMMANDS[:2]
    assert run(tmp_path) == 0
    assert (nnunet.calls[0][-1] == "--c") == continued
    assert nnunet.names == COMMANDS[1:]


@pytest.mark.parametrize(("command", "log"), [(COMMANDS[0], "plan.log"), (COMMANDS[2], "predict.log")])
def test_a_failing_command_stops_the_demo(nnunet, tmp_path, capsys, command, log):
    nnunet.fails[command] = lambda log: 3
    assert run(tmp_path) == 1
    assert_names(capsys.readouterr().err, "exit code 3", tmp_path, log, "same command")
    assert nnunet.names[-1] == command


def test_a_low_score_is_a_failure_of_the_default_trainer(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "EXPECTED_DICE", 0.86)
    assert run(tmp_path) == 1
    message = capsys.readouterr().err
    assert_names(message, "0.850", "0.86 ", "swin-umamba doctor")
    assert message.count("\n") == 1
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch") == 0


def test_a_second_demo_in_the_same_folder_is_refused(nnunet, tmp_path, capsys):
    second = []

    def start_another(log):
        capsys.readouterr()
        second.append((run(tmp_path / "demo", "--fresh"), capsys.readouterr().err))
        return 3

    nnunet.fails["nnUNetv2_plan_and_preprocess"] = start_another
    assert run(tmp_path / "demo") == 1
    [(exit_code, message)] = second
    assert exit_code == 2
    assert_names(message, "another demo", tmp_path / "demo", "--work DIR")
    assert message.count("\n") == 1
    assert nnunet.names == COMMANDS[:1]
    assert (tmp_path / "demo" / "nnUNet_raw").exists()  # --fresh has deleted nothing


@pytest.mark.parametrize("fails", [{}, {"nnUNetv2_train": lambda log: 3}, {"nnUNetv2_train": interrupted}])
def test_the_folder_is_free_again_at_the_end(nnunet, tmp_path, fails):
    (tmp_path / demo._LOCK).touch()  # alone, this is no foreign folder
    nnunet.fails = fails
    run(tmp_path)
    assert nnunet.names
    with FileLock(tmp_path / demo._LOCK, timeout=0):
        pass


def test_a_foreign_folder_is_left_alone(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretrained, "ensure_weights", None)  # quick checks come first
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run(tmp_path, "--fresh", *PRETRAINED) == 2
    assert_names(capsys.readouterr().err, tmp_path, "thesis.tex", "--work DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert nnunet.names == []


def test_a_folder_that_cannot_be_one(nnunet, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file") == 2
    assert_names(capsys.readouterr().err, tmp_path / "file", "folder", "--work")
    assert run(tmp_path / "file" / "demo") == 2  # nobody, root included, can make a folder inside a file
    message = capsys.readouterr().err
    assert_names(message, tmp_path / "file" / "demo", "Not a directory", "--work DIR")
    assert message.count("\n") == 1
    assert nnunet.names == []


def test_a_full_disk_is_noticed_before_the_work_starts(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(0.2e9)))
    assert run(tmp_path / "demo") == 2
    message = capsys.readouterr().err
    assert_names(message, tmp_path / "demo", "0.2 GB", " 1.", "--work DIR")
    assert not (tmp_path / "demo").exists()
    assert nnunet.names == []


def test_a_disk_that_fills_up_meanwhile(nnunet, tmp_path, capsys, monkeypatch):
    def no_space(raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(brain, "write_brain_dataset", no_space)
        assert run(tmp_path) == 2
    message = capsys.readouterr().err
    assert_names(message, tmp_path, "No space left", "same command")
    assert message.count("\n") == 1

    def fill(log):
        monkeypatch.setattr(demo.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        return 1

    nnunet.fails = {"nnUNetv2_train": fill}
    assert run(tmp_path) == 1
    assert_names(capsys.readouterr().err, tmp_path, "full", "same command")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("nnUNetTrainerSwinUMambaDScrath", "nnUNetTrainerSwinUMambaDScratch, "), ("xyz", "swin-umamba list")],
)
def test_a_wrong_trainer(nnunet, tmp_path, capsys, wrong, hint):
    assert run(tmp_path / "demo", "--trainer", wrong) == 2
    message = capsys.readouterr().err
    assert_names(message, f"'{wrong}'", hint, "`swin-umamba list`")
    assert message.count("nnUNetTrainer") <= 4
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("library", ["nilearn", "surface_distance"])
def test_without_a_library_the_install_line_is_given(nnunet, tmp_path, capsys, monkeypatch, library):
    find = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == library else find(name))
    assert run(tmp_path / "demo") == 2
    assert_names(capsys.readouterr().err, library, install_line("demo"))


def test_a_missing_gpu_is_one_sentence(nnunet, tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(tmp_path, device="cuda") == 2
    assert_names(capsys.readouterr().err, "--device cuda", "NVIDIA GPU", "--device cpu")
    assert run(tmp_path, device="auto") == 0
    assert nnunet.calls[1][nnunet.calls[1].index("-device") + 1] == "cpu"


@pytest.mark.parametrize(("device", "users", "seen"), [("cuda", "0", "1"), ("cuda", "6", "6"), ("cpu", "0", "1")])
def test_nnunets_planner_gets_a_number_of_workers_it_can_take(nnunet, tmp_path, monkeypatch, device, users, seen):
    monkeypatch.setenv("nnUNet_n_proc_DA", users)
    monkeypatch.setattr(demo, "_resolve_device", lambda asked: device)
    assert run(tmp_path / "demo") == 0
    assert nnunet.number_of_workers == [seen] * 4


@pytest.mark.parametrize(
    ("train", "first", "second"), [(None, 0, 0), (interrupted_after_an_epoch, 130, 0), (interrupted, 130, 2)]
)
def test_weights_are_needed_only_to_begin_a_training(nnunet, tmp_path, monkeypatch, capsys, train, first, second):
    def nowhere(name, scratch_trainer):
        raise pretrained.WeightsNotFoundError(f"{name} is nowhere; {scratch_trainer} needs none")

    with monkeypatch.context() as context:
        context.setattr(pretrained, "ensure_weights", lambda name, scratch_trainer: None)
        nnunet.fails = {"nnUNetv2_train": train} if train else {}
        assert run(tmp_path / "demo", *PRETRAINED) == first
    monkeypatch.setattr(pretrained, "ensure_weights", nowhere)
    nnunet.fails = {}
    assert run(tmp_path / "demo", *PRETRAINED) == second
    assert run(tmp_path / "demo", "--fresh", *PRETRAINED) == 2
    assert_names(capsys.readouterr().err, "vmamba_tiny_v0", "nnUNetTrainerSwinUMambaDScratch")
    assert run(tmp_path / "new", *PRETRAINED) == 2
    assert not (tmp_path / "new").exists()
