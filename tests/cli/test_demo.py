"""`swin-umamba demo` with nnU-Net's commands replaced by a recorder: the steps, what is printed, what is repeated."""

import errno
import json
import os
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from filelock import FileLock

from swin_umamba_nnunet import cli
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.cli import demo
from swin_umamba_nnunet.cli._demo import picture, runner, steps, workspace
from swin_umamba_nnunet.datasets.brain import SLABS
from tests.messages import assert_names

TRAINER = "nnUNetTrainerSwinUMambaDScratch_demo"
COMMANDS = ["nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_evaluate_folder"]
CURVE = picture.Curve([0.5, -0.2], [0.4, -0.3], [0.6, 0.8])


class FakeNnunet:
    """Stands in for nnU-Net's commands: remembers each call and writes what the next step needs.

    Attributes:
        calls: the command lines, as lists.
        environments: what each command gets on top of the process's environment.
        shown: what had been printed when each command started.
        fails: command -> what to do instead of succeeding.
    """

    def __init__(self, capsys):
        self.calls, self.environments, self.shown, self.fails = [], [], [], {}
        self._capsys = capsys

    def __call__(self, command, additions, log):
        self.calls.append(list(command))
        self.environments.append(additions)
        self.shown.append(self._capsys.readouterr().out)
        if command[0] in self.fails:
            return self.fails[command[0]](additions)
        option = dict(zip(command, command[1:]))
        if command[0] == "nnUNetv2_plan_and_preprocess":
            os.makedirs(f"{additions['nnUNet_preprocessed']}/Dataset152_MNI152Brain/nnUNetPlans_2d")
        elif command[0] == "nnUNetv2_train":
            write_checkpoint(additions, "final", option["-tr"])
        elif command[0] == "nnUNetv2_predict":
            shutil.copytree(option["-i"].replace("imagesTs", "labelsTs"), option["-o"], dirs_exist_ok=True)
        else:
            write_summary(command[2])
        return 0

    @property
    def names(self):
        """The commands called, in order, forgetting them."""
        names = [call[0] for call in self.calls]
        self.calls = []
        return names


def write_checkpoint(additions, kind, trainer=TRAINER, whole=True):
    fold = f"{additions['nnUNet_results']}/Dataset152_MNI152Brain/{trainer}__nnUNetPlans__2d/fold_0"
    os.makedirs(fold, exist_ok=True)
    with zipfile.ZipFile(f"{fold}/checkpoint_{kind}.pth", "w") as file:
        file.writestr("data.pkl", b"weights" * 100)
    if not whole:
        os.truncate(f"{fold}/checkpoint_{kind}.pth", 200)


def write_summary(folder):
    metrics = {"1": {"Dice": 0.9}, "2": {"Dice": 0.8}}
    cases = [{"metrics": metrics, "prediction_file": f"{folder}/{slab.case}.nii.gz"} for slab in SLABS if slab.held_out]
    summary = {"metric_per_case": cases, "mean": metrics, "foreground_mean": {"Dice": 0.85}}
    with open(f"{folder}/summary.json", "w") as file:
        json.dump(summary, file)


def write_small_dataset(raw):
    """Three held-out cases of 4 x 12 x 10 voxels and a dataset.json."""
    folder = raw / "Dataset152_MNI152Brain"
    rng = np.random.default_rng(0)
    for slab in SLABS:
        if slab.held_out:
            for kind, name in (("imagesTs", f"{slab.case}_0000"), ("labelsTs", slab.case)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                voxels = rng.integers(0, 3, (4, 12, 10)).astype(np.uint8)
                sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / kind / f"{name}.nii.gz"))
    (folder / "dataset.json").write_text("{}")


def interrupted(additions):
    raise KeyboardInterrupt


@pytest.fixture
def nnunet(monkeypatch, capsys):
    fake = FakeNnunet(capsys)
    monkeypatch.setattr(runner, "run_command", fake)
    monkeypatch.setattr(runner, "find_command", lambda name: f"/bin/{name}")
    monkeypatch.setattr(steps, "write_brain_dataset", write_small_dataset)
    monkeypatch.setattr(picture, "read_curve", lambda checkpoint: CURVE)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, f"/the/users/own/{name}")
    return fake


def run(work, *more):
    return cli.main(["demo", "--work", str(work), "--device", "cpu", *more])


def test_the_whole_way(nnunet, tmp_path, capsys):
    work = tmp_path / "demo"
    assert run(work) == 0
    train = nnunet.calls[1]
    assert train == ["nnUNetv2_train", "152", "2d", "0", "-tr", TRAINER, "-device", "cpu"]
    assert nnunet.names == COMMANDS
    text = "".join([*nnunet.shown, capsys.readouterr().out])
    for n in range(1, 7):
        assert f"[{n}/6]" in text
    assert "brain_z050" in text
    assert "0.850" in text
    assert "not a benchmark" in text
    image = work / f"{TRAINER}.png"
    assert str(image) in text
    assert image.read_bytes().startswith(b"\x89PNG")
    assert "grey matter" in (work / f"{TRAINER}.txt").read_text()


def test_each_command_is_printed_before_it_runs(nnunet, tmp_path):
    run(tmp_path / "demo")
    for call, shown in zip(nnunet.calls, nnunet.shown):
        assert runner.command_line(call) in shown
    assert f"export nnUNet_raw={tmp_path}/demo/nnUNet_raw" in nnunet.shown[0]


def test_the_users_own_folders_are_left_alone(nnunet, tmp_path):
    before = dict(os.environ)
    run(tmp_path / "demo")
    assert dict(os.environ) == before
    for additions in nnunet.environments:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            assert additions[name] == f"{tmp_path}/demo/{name}"


def test_what_is_done_is_not_done_again(nnunet, tmp_path, capsys):
    run(tmp_path)
    assert nnunet.names == COMMANDS
    assert run(tmp_path) == 0
    assert nnunet.names == []
    assert sum(line.startswith("[") and "already" in line for line in capsys.readouterr().out.splitlines()) == 6


def test_deleted_results_are_made_again_with_all_that_follows(nnunet, tmp_path):
    run(tmp_path)
    shutil.rmtree(tmp_path / "predictions")
    assert nnunet.names == COMMANDS
    run(tmp_path)
    assert nnunet.names == COMMANDS[2:]


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


def _interrupt_after(kind, whole=True):
    def stop(additions):
        write_checkpoint(additions, kind, whole=whole)
        raise KeyboardInterrupt

    return stop


def test_interrupted_training_goes_on_from_its_checkpoint(nnunet, tmp_path, capsys):
    nnunet.fails["nnUNetv2_train"] = _interrupt_after("latest")
    assert run(tmp_path) == 130
    assert_names(capsys.readouterr().err, "step 3 of 6", "same command")
    nnunet.fails.clear()
    assert nnunet.names == COMMANDS[:2]
    assert run(tmp_path) == 0
    assert nnunet.calls[0][-1] == "--c"
    assert nnunet.names == COMMANDS[1:]


def test_interrupted_before_the_first_checkpoint_starts_the_training_again(nnunet, tmp_path):
    nnunet.fails["nnUNetv2_train"] = interrupted
    run(tmp_path)
    nnunet.fails.clear()
    run(tmp_path)
    assert "--c" not in nnunet.calls[2]


def test_a_checkpoint_cut_short_is_not_continued_from(nnunet, tmp_path):
    nnunet.fails["nnUNetv2_train"] = _interrupt_after("latest", whole=False)
    run(tmp_path)
    nnunet.fails.clear()
    run(tmp_path)
    assert "--c" not in nnunet.calls[2]


def test_a_training_on_former_data_is_not_continued(nnunet, tmp_path):
    run(tmp_path)
    assert nnunet.names == COMMANDS
    shutil.rmtree(tmp_path / "nnUNet_raw")
    shutil.rmtree(tmp_path / "nnUNet_preprocessed")
    run(tmp_path)
    assert "--c" not in nnunet.calls[1]
    assert nnunet.names == COMMANDS


def test_a_failing_command_stops_the_demo(nnunet, tmp_path, capsys):
    nnunet.fails["nnUNetv2_predict"] = lambda additions: 3
    assert run(tmp_path) == 1
    assert_names(capsys.readouterr().err, "nnUNetv2_predict", "exit code 3", tmp_path / "logs", "same command")
    assert nnunet.names == COMMANDS[:3]


def test_a_low_score_is_remarked_on(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "EXPECTED_DICE", 0.86)
    assert run(tmp_path) == 1
    message = capsys.readouterr().err
    assert_names(message, "0.850", "0.86 ", "swin-umamba doctor")
    assert message.count("\n") == 1


def test_a_low_score_of_another_trainer_is_no_failure(nnunet, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "EXPECTED_DICE", 0.86)
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaScratch") == 0


def test_a_second_demo_in_the_same_folder_is_refused(nnunet, tmp_path, capsys):
    second = []

    def start_another(additions):
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


@pytest.mark.parametrize("fails", [{}, {"nnUNetv2_train": lambda additions: 3}, {"nnUNetv2_train": interrupted}])
def test_the_folder_is_free_again_at_the_end(nnunet, tmp_path, fails):
    nnunet.fails = fails
    run(tmp_path)
    with FileLock(tmp_path / workspace._LOCK, timeout=0):
        pass


def test_a_lock_file_alone_is_not_a_foreign_folder(nnunet, tmp_path):
    (tmp_path / workspace._LOCK).touch()
    assert run(tmp_path) == 0


def test_a_foreign_folder_is_left_alone(nnunet, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run(tmp_path, "--fresh") == 2
    assert_names(capsys.readouterr().err, tmp_path, "thesis.tex", "--work DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert nnunet.names == []


def test_a_file_instead_of_a_folder(nnunet, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file") == 2
    assert_names(capsys.readouterr().err, tmp_path / "file", "folder", "--work")


def test_an_unwritable_folder_is_one_sentence(nnunet, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "demo") == 2  # nobody, root included, can make a folder inside a file
    message = capsys.readouterr().err
    assert_names(message, tmp_path / "file" / "demo", "Not a directory", "--work DIR")
    assert message.count("\n") == 1
    assert nnunet.names == []


def test_a_full_disk_is_noticed_before_the_work_starts(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workspace.shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(0.2e9)))
    assert run(tmp_path / "demo") == 2
    message = capsys.readouterr().err
    assert_names(message, tmp_path / "demo", "0.2 GB", " 1.", "--work DIR")
    assert not (tmp_path / "demo").exists()
    assert nnunet.names == []


def test_a_disk_that_fills_up_meanwhile(nnunet, tmp_path, capsys, monkeypatch):
    def no_space(raw):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(steps, "write_brain_dataset", no_space)
    assert run(tmp_path) == 2
    message = capsys.readouterr().err
    assert_names(message, tmp_path, " full", "same command")
    assert message.count("\n") == 1


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


def test_without_nilearn_the_install_line_is_given(nnunet, tmp_path, capsys, monkeypatch):
    find = demo.importlib.util.find_spec
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None if name == "nilearn" else find(name))
    assert run(tmp_path / "demo") == 2
    assert install_line("demo") in capsys.readouterr().err


def test_a_missing_gpu_is_one_sentence(nnunet, tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["demo", "--work", str(tmp_path), "--device", "cuda"]) == 2
    assert_names(capsys.readouterr().err, "--device cuda", "NVIDIA GPU", "--device cpu")
    assert cli.main(["demo", "--work", str(tmp_path), "--device", "auto"]) == 0
    assert nnunet.calls[1][-1] == "cpu"


@pytest.mark.parametrize(("device", "users", "added"), [("cuda", "0", "1"), ("cuda", "6", None), ("cpu", "0", "1")])
def test_nnunets_planner_gets_a_number_of_workers_it_can_take(nnunet, tmp_path, monkeypatch, device, users, added):
    monkeypatch.setenv("nnUNet_n_proc_DA", users)
    monkeypatch.setattr(demo, "_resolve_device", lambda asked: device)
    run(tmp_path / "demo")
    assert nnunet.names[0] == "nnUNetv2_plan_and_preprocess"
    assert nnunet.environments[0].get("nnUNet_n_proc_DA") == added


@pytest.fixture
def without_weights(monkeypatch):
    """The ImageNet weights are nowhere to be had."""
    from swin_umamba_nnunet import pretrained

    def nowhere(name, scratch_trainer):
        raise pretrained.WeightsNotFoundError(f"{name} is nowhere; {scratch_trainer} needs none")

    monkeypatch.setattr(pretrained, "ensure_weights", nowhere)


def test_quick_checks_come_before_the_weights(nnunet, without_weights, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run(tmp_path, "--trainer", "nnUNetTrainerSwinUMambaD") == 2
    assert "thesis.tex" in capsys.readouterr().err


def _in_training(kind):
    def stop(additions):
        write_checkpoint(additions, kind, "nnUNetTrainerSwinUMambaD_demo")
        raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(
    ("train", "first", "second"), [(None, 0, 0), (_in_training("latest"), 130, 0), (interrupted, 130, 2)]
)
def test_weights_are_needed_only_to_begin_a_training(
    nnunet, without_weights, tmp_path, monkeypatch, train, first, second
):
    command = ("--trainer", "nnUNetTrainerSwinUMambaD")
    with monkeypatch.context() as context:
        context.setattr(demo, "_ensure_weights", lambda record: None)
        nnunet.fails = {"nnUNetv2_train": train} if train else {}
        assert run(tmp_path, *command) == first
    nnunet.fails = {}
    assert run(tmp_path, *command) == second
    assert run(tmp_path, *command, "--fresh") == 2


def test_missing_imagenet_weights_stop_the_demo_first(nnunet, without_weights, tmp_path, capsys):
    assert run(tmp_path / "demo", "--trainer", "nnUNetTrainerSwinUMambaD") == 2
    assert_names(capsys.readouterr().err, "vmamba_tiny_v0", "nnUNetTrainerSwinUMambaDScratch")
    assert not (tmp_path / "demo").exists()
