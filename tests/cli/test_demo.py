"""`swin-umamba demo` with nnU-Net's commands replaced by a recorder: the steps, what is printed, what is repeated."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from swin_umamba_nnunet import cli, pretrained
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.benchmark import jobs, process, runner
from swin_umamba_nnunet.benchmark.process import command_line
from swin_umamba_nnunet.cli import demo
from swin_umamba_nnunet.datasets import brain
from swin_umamba_nnunet.datasets.brain import SLABS
from swin_umamba_nnunet.pictures import overlay
from tests.benchmark.conftest import LABELS, Probe, Steps, ends
from tests.messages import assert_names

TRAINER = "nnUNetTrainerSwinUMambaDScratch_demo"
PRETRAINED = ("--trainer", "nnUNetTrainerSwinUMambaD")
ALL = ["plan", "train", "predict", "evaluate"]
DATASET = "Dataset152_MNI152Brain"
DESCRIPTION = json.dumps({"file_ending": ".nii.gz", "labels": {"background": 0, **LABELS}})


class Nnunet(Steps):
    """The steps of a run and nnU-Net's planner; `shown` has what had been printed when each command started."""

    def __init__(self, capsys):
        super().__init__()
        self.shown, self._capsys = [], capsys

    def __call__(self, command, environment, log, stop=None, echo=False):
        assert echo
        self.shown.append(self._capsys.readouterr().out)
        return super().__call__(command, environment, log)

    def plan(self, folder):
        preprocessed = Path(self.environments[-1]["nnUNet_preprocessed"], DATASET)
        (preprocessed / "nnUNetPlans_2d").mkdir(parents=True)
        for slab in SLABS:
            (preprocessed / "nnUNetPlans_2d" / f"{slab.case}.pkl").touch()
        (preprocessed / "dataset.json").write_text(DESCRIPTION)
        plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
        (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))

    def did(self):
        """The steps since it was asked last."""
        names, self.names, self.commands = self.names, [], []
        return names


def write_small_dataset(raw):
    """Three held-out cases of 4 x 12 x 10 voxels and a dataset.json."""
    rng = np.random.default_rng(0)
    for case in (slab.case for slab in SLABS if slab.held_out):
        for kind, name in (("imagesTs", f"{case}_0000"), ("labelsTs", case)):
            (raw / DATASET / kind).mkdir(parents=True, exist_ok=True)
            voxels = rng.integers(0, 3, (4, 12, 10)).astype(np.uint8)
            sitk.WriteImage(sitk.GetImageFromArray(voxels), str(raw / DATASET / kind / f"{name}.nii.gz"))
    (raw / DATASET / "dataset.json").write_text(DESCRIPTION)


@pytest.fixture
def nnunet(monkeypatch, capsys):
    fake, probe = Nnunet(capsys), Probe()
    probe.hardware = {"gpus": ["one"], "mps": False}
    for module in (process, runner):
        monkeypatch.setattr(module, "run_child", fake)
    monkeypatch.setattr(jobs, "ask", probe)
    monkeypatch.setattr(brain, "write_brain_dataset", write_small_dataset)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, f"/the/users/own/{name}")
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    return fake


@pytest.fixture
def unseen(nnunet, monkeypatch):
    """Without the picture, which takes its time."""
    monkeypatch.setattr(overlay, "overview", lambda *arguments, log: arguments[3].touch())
    return nnunet


def run(work, *more, device="cpu"):
    return cli.main(["demo", "--work", str(work), "--device", device, *more])


@pytest.fixture
def told(capsys):
    """A function (exit code, *arguments of `run`) -> what the demo has said on stderr."""

    def of(code, *arguments, **options):
        capsys.readouterr()
        assert run(*arguments, **options) == code
        return capsys.readouterr().err

    return of


def test_the_whole_way(nnunet, tmp_path, capsys):
    before, work = dict(os.environ), tmp_path / "demo"
    assert run(work) == 0
    (_, train, *_) = nnunet.commands
    assert train == f"nnUNetv2_train {DATASET} 2d 0 -tr {TRAINER} -p nnUNetPlans -device cpu -num_gpus 1".split()
    for command, shown in zip(nnunet.commands, nnunet.shown, strict=True):  # each is printed before it runs
        assert command_line(command) in shown
    assert f"export nnUNet_raw={work}/nnUNet_raw" in nnunet.shown[0]
    assert {environment["nnUNet_raw"] for environment in nnunet.environments} == {f"{work}/nnUNet_raw"}
    assert dict(os.environ) == before  # the user's own folders are left alone
    assert nnunet.did() == ALL
    image = work / f"{TRAINER}.png"
    text = "".join([*nnunet.shown, capsys.readouterr().out])
    assert_names(text, *(f"[{n}/6]" for n in range(1, 7)), "brain_z050", "0.850", "not a benchmark", image)
    assert image.read_bytes().startswith(b"\x89PNG")
    assert_names((work / f"{TRAINER}.txt").read_text(), "grey matter", "0.900", "0.850")


def test_what_is_done_is_not_done_again(unseen, tmp_path, capsys):
    run(tmp_path)
    assert unseen.did() == ALL
    assert run(tmp_path) == 0
    assert unseen.did() == []
    assert sum(line.startswith("[") and "already" in line for line in capsys.readouterr().out.splitlines()) == 6


def test_another_trainer_shares_the_dataset(unseen, tmp_path):
    run(tmp_path)
    assert unseen.did() == ALL
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch_5epochs") == 0
    assert "nnUNetTrainerSwinUMambaScratch_5epochs" in unseen.commands[0]
    assert unseen.did() == ALL[1:]
    run(tmp_path)
    assert unseen.did() == []


def test_fresh_starts_anew(unseen, tmp_path):
    (tmp_path / demo._LOCK).touch()  # alone, this is no foreign folder
    run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert unseen.did() == ALL
    assert run(tmp_path, "--fresh") == 0
    assert unseen.did() == ALL
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), process.Interrupted()])  # Ctrl-C; somebody ends the child
@pytest.mark.parametrize("kind", ["latest", ""])
def test_an_interrupted_training_goes_on_from_its_checkpoint(unseen, tmp_path, kind, error, told):
    unseen.at["train"] = ends(error, kind)
    assert_names(told(130, tmp_path), "interrupted", "same command")
    unseen.at.clear()
    assert unseen.did() == ALL[:2]
    assert run(tmp_path) == 0
    assert (unseen.commands[0][-1] == "--c") == bool(kind)
    assert unseen.did() == ALL[1:]


@pytest.mark.parametrize("step", ["plan", "predict"])
def test_a_failing_command_stops_the_demo(unseen, tmp_path, step, told):
    unseen.at[step] = ends(3)
    assert_names(told(1, tmp_path), "exit code 3", tmp_path, f"{step}.log", "same command")
    assert unseen.did()[-1] == step
    unseen.at.clear()
    assert run(tmp_path) == 0  # the folder is free again


def test_a_low_score_is_a_failure_of_the_default_trainer(unseen, tmp_path, monkeypatch, told):
    monkeypatch.setattr(demo, "EXPECTED_DICE", 0.86)
    message = told(1, tmp_path)
    assert_names(message, "0.850", "0.86 ", "swin-umamba doctor")
    assert message.count("\n") == 1
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch") == 0


def test_a_second_demo_in_the_same_folder_is_refused(unseen, tmp_path, told):
    second = []

    def start_another(log):
        second.append(told(2, tmp_path / "demo", "--fresh"))
        return 3

    unseen.at["plan"] = start_another
    assert run(tmp_path / "demo") == 1
    (message,) = second
    assert_names(message, "another demo", tmp_path / "demo", "--work DIR")
    assert message.count("\n") == 1
    assert unseen.did() == ALL[:1]
    assert (tmp_path / "demo" / "nnUNet_raw").exists()  # --fresh has deleted nothing


def test_a_foreign_folder_is_left_alone(unseen, tmp_path, monkeypatch, told):
    monkeypatch.setattr(pretrained, "ensure_weights", None)  # quick checks come first
    (tmp_path / "thesis.tex").write_text("years of work")
    assert_names(told(2, tmp_path, "--fresh", *PRETRAINED), tmp_path, "thesis.tex", "--work DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert unseen.did() == []


def test_a_folder_that_cannot_be_one(unseen, tmp_path, told):
    (tmp_path / "file").touch()
    assert_names(told(2, tmp_path / "file"), tmp_path / "file", "folder", "--work")
    message = told(2, tmp_path / "file" / "demo")  # nobody, root included, can make a folder inside a file
    assert_names(message, tmp_path / "file" / "demo", "Not a directory", "--work DIR")
    assert message.count("\n") == 1
    assert unseen.did() == []


def test_a_full_disk_is_noticed_before_the_work_starts(unseen, tmp_path, monkeypatch, told):
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(0.2e9)))
    message = told(2, tmp_path / "demo")
    assert_names(message, tmp_path / "demo", "0.2 GB", " 1.", "--work DIR")
    assert not (tmp_path / "demo").exists()
    assert unseen.did() == []


def test_a_disk_that_fills_up_meanwhile(unseen, tmp_path, monkeypatch, told):
    def no_space(raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(brain, "write_brain_dataset", no_space)
        message = told(2, tmp_path)
    assert_names(message, tmp_path, "No space left", "same command")
    assert message.count("\n") == 1

    def fill(log):
        monkeypatch.setattr(demo.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        return 1

    unseen.at = {"train": fill}
    assert_names(told(1, tmp_path), tmp_path, "full", "same command")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("nnUNetTrainerSwinUMambaDScrath", "nnUNetTrainerSwinUMambaDScratch, "), ("xyz", "swin-umamba list")],
)
def test_a_wrong_trainer(unseen, tmp_path, wrong, hint, told):
    message = told(2, tmp_path / "demo", "--trainer", wrong)
    assert_names(message, f"'{wrong}'", hint, "`swin-umamba list`")
    assert message.count("nnUNetTrainer") <= 4
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("library", ["nilearn", "surface_distance"])
def test_without_a_library_the_install_line_is_given(unseen, tmp_path, monkeypatch, library, told):
    find = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == library else find(name))
    assert_names(told(2, tmp_path / "demo"), library, install_line("demo"))


def test_a_missing_gpu_is_one_sentence(unseen, tmp_path, monkeypatch, told):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_names(told(2, tmp_path, device="cuda"), "--device cuda", "NVIDIA GPU", "--device cpu")
    assert run(tmp_path, device="auto") == 0
    assert unseen.commands[1][unseen.commands[1].index("-device") + 1] == "cpu"


@pytest.mark.parametrize(("device", "users", "seen"), [("cuda", "0", "1"), ("cuda", "6", "6"), ("cpu", "0", "1")])
def test_nnunets_planner_gets_a_number_of_workers_it_can_take(unseen, tmp_path, monkeypatch, device, users, seen):
    monkeypatch.setenv("nnUNet_n_proc_DA", users)
    monkeypatch.setattr(demo, "_resolve_device", lambda asked: device)
    assert run(tmp_path / "demo") == 0
    assert {environment.get("nnUNet_n_proc_DA") for environment in unseen.environments} == {seen}


@pytest.mark.parametrize(
    ("at", "first", "second"),
    [
        ({}, 0, 0),
        ({"train": ends(KeyboardInterrupt(), "latest")}, 130, 0),
        ({"train": ends(KeyboardInterrupt())}, 130, 2),
    ],
)
def test_weights_are_needed_only_to_begin_a_training(unseen, tmp_path, monkeypatch, at, first, second, told):
    def nowhere(name, scratch_trainer):
        raise pretrained.WeightsNotFoundError(f"{name} is nowhere; {scratch_trainer} needs none")

    with monkeypatch.context() as context:
        context.setattr(pretrained, "ensure_weights", lambda name, scratch_trainer: None)
        unseen.at = at
        assert run(tmp_path / "demo", *PRETRAINED) == first
    monkeypatch.setattr(pretrained, "ensure_weights", nowhere)
    unseen.at = {}
    assert run(tmp_path / "demo", *PRETRAINED) == second
    assert_names(
        told(2, tmp_path / "demo", "--fresh", *PRETRAINED), "vmamba_tiny_v0", "nnUNetTrainerSwinUMambaDScratch"
    )
    assert run(tmp_path / "new", *PRETRAINED) == 2
    assert not (tmp_path / "new").exists()
