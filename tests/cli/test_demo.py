"""`swin-umamba demo` with nnU-Net's commands replaced by a recorder: the steps, what is printed, what is repeated."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swin_umamba_nnunet import pretrained
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.benchmark import jobs, process, runner
from swin_umamba_nnunet.benchmark.process import command_line
from swin_umamba_nnunet.cli import demo as verb
from swin_umamba_nnunet.datasets import brain
from swin_umamba_nnunet.datasets.brain import SLABS
from swin_umamba_nnunet.pictures import overlay
from swin_umamba_nnunet.settings import FOLDERS
from tests.benchmark.conftest import LABELS, Probe, Steps, ends
from tests.evaluation.files import write_volume
from tests.jsons import dump
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
        for made in ("nnUNetPlans_2d/{}.pkl", "gt_segmentations/{}.nii.gz"):
            for slab in SLABS:
                file = preprocessed / made.format(slab.case)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        (preprocessed / "dataset.json").write_text(DESCRIPTION)
        plans = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
        dump(preprocessed / "nnUNetPlans.json", plans)

    def did(self):
        """The steps since it was asked last."""
        names, self.names, self.commands = self.names, [], []
        return names


def write_small_dataset(raw):
    """Three held-out cases of 4 x 12 x 10 voxels and a dataset.json."""
    rng = np.random.default_rng(0)
    for case in (slab.case for slab in SLABS if slab.held_out):
        for name in (f"imagesTs/{case}_0000", f"labelsTs/{case}"):
            write_volume(raw / DATASET / f"{name}.nii.gz", rng.integers(0, 3, (4, 12, 10)).astype(np.uint8))
    (raw / DATASET / "dataset.json").write_text(DESCRIPTION)


@pytest.fixture
def nnunet(monkeypatch, capsys):
    fake, probe = Nnunet(capsys), Probe()
    probe.hardware = {"gpus": ["one"], "mps": False}
    for module in (process, runner):
        monkeypatch.setattr(module, "run_child", fake)
    monkeypatch.setattr(jobs, "ask", probe)
    monkeypatch.setattr(brain, "write_brain_dataset", write_small_dataset)
    for name in FOLDERS:
        monkeypatch.setenv(name, f"/the/users/own/{name}")
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    return fake


@pytest.fixture
def unseen(nnunet, monkeypatch):
    """Without the picture, which takes its time."""
    monkeypatch.setattr(overlay, "overview", lambda *arguments, log: arguments[3].touch())
    return nnunet


@pytest.fixture
def demo(told):
    """A function (exit code, folder, *arguments, device="cpu") -> what the demo said."""
    return lambda code, folder, *more, device="cpu": told(code, "demo", "--work", folder, "--device", device, *more)


@pytest.fixture
def refused(demo):
    """A function (exit code, folder, *arguments) -> the sentence on stderr."""
    return lambda *arguments, **options: demo(*arguments, **options).err


def test_the_whole_way(nnunet, demo, tmp_path):
    before, work = dict(os.environ), tmp_path / "demo"
    last = demo(0, work).out
    (_, train, *_) = nnunet.commands
    assert train == f"nnUNetv2_train {DATASET} 2d 0 -tr {TRAINER} -p nnUNetPlans -device cpu -num_gpus 1".split()
    for command, shown in zip(nnunet.commands, nnunet.shown, strict=True):  # each is printed before it runs
        assert command_line(command) in shown
    assert f"export nnUNet_raw={work}/nnUNet_raw" in nnunet.shown[0]
    assert {environment["nnUNet_raw"] for environment in nnunet.environments} == {f"{work}/nnUNet_raw"}
    assert dict(os.environ) == before  # the user's own folders are left alone
    assert nnunet.did() == ALL
    image = work / f"{TRAINER}.png"
    text = "".join([*nnunet.shown, last])
    assert_names(text, *(f"[{n}/6]" for n in range(1, 7)), "brain_z050", "0.850", "not a benchmark", image)
    assert image.read_bytes().startswith(b"\x89PNG")
    assert_names((work / f"{TRAINER}.txt").read_text(), "grey matter", "0.900", "0.850")


def test_what_is_done_is_not_done_again(unseen, demo, tmp_path):
    """Another trainer shares the dataset."""
    (tmp_path / verb._LOCK).touch()  # alone, this is no foreign folder
    demo(0, tmp_path)
    assert unseen.did() == ALL
    text = demo(0, tmp_path).out
    assert unseen.did() == []
    assert sum(line.startswith("[") and "already" in line for line in text.splitlines()) == 6
    demo(0, tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch_5epochs")
    assert "nnUNetTrainerSwinUMambaScratch_5epochs" in unseen.commands[0]
    assert unseen.did() == ALL[1:]
    (tmp_path / "notes.txt").write_text("mine")
    demo(0, tmp_path, "--fresh")
    assert unseen.did() == ALL
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), process.Interrupted()])  # Ctrl-C; somebody ends the child
def test_an_interrupted_demo_says_how_to_go_on(unseen, refused, tmp_path, error):
    """And does: below, where a training needs no weights a second time."""
    unseen.at["train"] = ends(error)
    assert_names(refused(130, tmp_path), "interrupted", "same command")


@pytest.mark.parametrize("step", ["plan", "predict"])
def test_a_failing_command_stops_the_demo(unseen, demo, refused, tmp_path, step):
    unseen.at[step] = ends(3)
    assert_names(refused(1, tmp_path), "exit code 3", tmp_path, f"{step}.log", "same command")
    assert unseen.did()[-1] == step
    unseen.at.clear()
    demo(0, tmp_path)  # the folder is free again
    unseen.did()
    shutil.rmtree(tmp_path / "nnUNet_preprocessed" / DATASET / "gt_segmentations")  # what nnU-Net's planner writes last
    demo(0, tmp_path)
    assert unseen.did() == ALL[:1]


def test_a_low_score_is_a_failure_of_the_default_trainer(unseen, demo, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "EXPECTED_DICE", 0.86)
    assert_names(refused(1, tmp_path), "0.850", "0.86 ", "swin-umamba doctor")
    demo(0, tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch")


def test_a_second_demo_in_the_same_folder_is_refused(unseen, demo, refused, tmp_path):
    second = []

    def start_another(log):
        second.append(refused(2, tmp_path / "demo", "--fresh"))
        return 3

    unseen.at["plan"] = start_another
    demo(1, tmp_path / "demo")
    assert_names(*second, "another demo", tmp_path / "demo", "--work DIR")
    assert unseen.did() == ALL[:1]
    assert (tmp_path / "demo" / "nnUNet_raw").exists()  # --fresh has deleted nothing


def test_a_foreign_folder_is_left_alone(unseen, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "ensure_weights", None)  # quick checks come first
    file = tmp_path / "thesis.tex"
    file.write_text("years of work")
    assert_names(refused(2, tmp_path, "--fresh", *PRETRAINED), tmp_path, "thesis.tex", "--work DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert_names(refused(2, file), file, "folder", "--work")
    # nobody, root included, can make a folder inside a file
    assert_names(refused(2, file / "demo"), file / "demo", "Not a directory", "--work DIR")
    assert unseen.did() == []


def test_a_full_disk_is_noticed_before_the_work_starts_or_meanwhile(unseen, refused, tmp_path, monkeypatch):
    def fill(log):
        monkeypatch.setattr(verb.shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(0.2e9)))
        return 1

    unseen.at = {"train": fill}
    assert_names(refused(1, tmp_path / "old"), tmp_path, "full", "same command")
    unseen.did()
    assert_names(refused(2, tmp_path / "demo"), tmp_path / "demo", "0.2 GB", " 1.", "--work DIR")
    assert not (tmp_path / "demo").exists()
    assert unseen.did() == []


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("nnUNetTrainerSwinUMambaDScrath", "nnUNetTrainerSwinUMambaDScratch, "), ("xyz", "swin-umamba list")],
)
def test_a_wrong_trainer(unseen, refused, tmp_path, wrong, hint):
    message = refused(2, tmp_path / "demo", "--trainer", wrong)
    assert_names(message, f"'{wrong}'", hint, "`swin-umamba list`")
    assert message.count("nnUNetTrainer") <= 4
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("library", ["nilearn", "surface_distance"])
def test_without_a_library_the_install_line_is_given(unseen, refused, tmp_path, monkeypatch, library):
    find = verb.importlib.util.find_spec
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None if name == library else find(name))
    assert_names(refused(2, tmp_path / "demo"), library, install_line("demo"))


def test_a_missing_gpu_is_one_sentence(unseen, demo, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_names(refused(2, tmp_path, device="cuda"), "--device cuda", "NVIDIA GPU", "--device cpu")
    demo(0, tmp_path, device="auto")
    assert unseen.commands[1][unseen.commands[1].index("-device") + 1] == "cpu"


@pytest.mark.parametrize(("device", "users", "seen"), [("cuda", "0", "1"), ("cuda", "6", "6"), ("cpu", "0", "1")])
def test_nnunets_planner_gets_a_number_of_workers_it_can_take(unseen, demo, tmp_path, monkeypatch, device, users, seen):
    monkeypatch.setenv("nnUNet_n_proc_DA", users)
    monkeypatch.setattr(verb, "_resolve_device", lambda asked: device)
    demo(0, tmp_path / "demo")
    assert {environment.get("nnUNet_n_proc_DA") for environment in unseen.environments} == {seen}


@pytest.mark.parametrize(
    ("at", "first", "second"),
    [
        ({}, 0, 0),
        ({"train": ends(KeyboardInterrupt(), "latest")}, 130, 0),
        ({"train": ends(KeyboardInterrupt())}, 130, 1),
    ],
)
def test_weights_are_needed_only_to_begin_a_training(unseen, demo, tmp_path, monkeypatch, at, first, second):
    folder = tmp_path / "demo"

    def nowhere(name, scratch_trainer):
        raise pretrained.WeightsNotFoundError(f"{name} is nowhere; {scratch_trainer} needs none")

    with monkeypatch.context() as context:
        context.setattr(pretrained, "ensure_weights", lambda name, scratch_trainer: None)
        unseen.at = at
        demo(first, folder, *PRETRAINED)
    monkeypatch.setattr(pretrained, "ensure_weights", nowhere)
    unseen.at = {}
    demo(second, folder, *PRETRAINED)
    assert_names(demo(1, folder, "--fresh", *PRETRAINED).err, "vmamba_tiny_v0", "nnUNetTrainerSwinUMambaDScratch")
    demo(1, tmp_path / "new", *PRETRAINED)
    assert not (tmp_path / "new").exists()
