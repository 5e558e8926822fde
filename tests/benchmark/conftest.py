"""A preprocessed dataset as far as the benchmark looks at it, and answers of a probe, without nnU-Net."""

import os
import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from swin_umamba_nnunet.benchmark import jobs, runner
from swin_umamba_nnunet.benchmark.runner import shown
from tests.jsons import dump

NAME = "Dataset903_Matrix"
CASES = ("a", "b", "c", "d")
SPLITS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
RECIPE = {
    "problems": [],
    "epochs": 10,
    "iterations_per_epoch": 250,
    "batch_size": 2,
    "patch_size": [32, 32],
    "mirroring_axes": [0, 1],
    "split": [],
    "cost": {"parameter_bytes": 2**28, "activation_bytes": 2**30},
}
LABELS = {"grey matter": 1, "white matter": 2}
HARDWARE = {"host": "here", "gpus": [], "mps": False, "cores": 2, "processor": "some"}


def network_of(key):
    """What nnU-Net's plans of a row name."""
    kind = "ResidualEncoderUNet" if "ResEnc" in key else "PlainConvUNet"
    return f"dynamic_network_architectures.architectures.unet.{kind}"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    return make_dataset(tmp_path, monkeypatch)


def make_dataset(tmp_path, monkeypatch):
    """Raw and preprocessed dataset with two folds, plans with one preprocessed configuration and one that is not."""
    raw, preprocessed = tmp_path / "raw" / NAME, tmp_path / "preprocessed" / NAME
    description = {"channel_names": {"0": "x", "1": "y"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed / "nnUNetPlans_2d"):
        folder.mkdir(parents=True)
    for folder in (raw, preprocessed):
        dump(folder / "dataset.json", description)
    for case in CASES:
        for channel in ("0000", "0001"):
            (raw / "imagesTr" / f"{case}_{channel}.png").write_text(f"{case}_{channel}")
        (raw / "labelsTr" / f"{case}.png").write_text(f"truth of {case}")
        (preprocessed / "nnUNetPlans_2d" / f"{case}.b2nd").touch()
    plans = {
        "configurations": {
            "2d": {"data_identifier": "nnUNetPlans_2d"},
            "2d_large": {"inherits_from": "2d"},
            "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres"},
        }
    }
    dump(preprocessed / "nnUNetPlans.json", plans)
    dump(preprocessed / "splits_final.json", SPLITS)
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return SimpleNamespace(raw=raw, preprocessed=preprocessed, output=tmp_path / "bench")


class Probe:
    """A probe that finds every trainer and every pair in order; its `trainers`, `pairs`, `hardware` can be changed."""

    def __init__(self):
        self.trainers: dict[str, dict] = {}
        self.pairs: dict[str, dict] = {}
        self.hardware, self.problems, self.request = HARDWARE, [], {}

    def __call__(self, request):
        self.request = request
        known = {"problems": [], "weights": None, "file_sha256": None, "own_protocol": [], "stock_network": True}
        trainers = {
            name: {**known, "ancestors": [f"swin_umamba_nnunet.trainers.{name}"], **self.trainers.get(name, {})}
            for name in (row["name"] for row in request["rows"])
        }
        pairs = {
            f"{dataset} {key}": {**RECIPE, "network_class": network_of(key), **self.pairs.get(key, {})}
            for dataset, key in request["pairs"]
        }
        return {"problems": self.problems, "hardware": self.hardware, "trainers": trainers, "pairs": pairs}


@pytest.fixture
def probe(monkeypatch):
    monkeypatch.setattr(jobs, "ask", Probe())
    return jobs.ask


@pytest.fixture
def plan(folders, probe):
    """A function (**settings and options of `prepare`) -> what it makes of a benchmark of two rows."""
    usual = {"output": str(folders.output), "datasets": [903], "trainers": ["One", "Two"], "device": "cpu"}

    def make(**given):
        options = {name: given.pop(name) for name in ("launcher", "gpus", "dry") if name in given}
        return jobs.prepare({**usual, **given}, **options)

    return make


DICE = {"grey matter": 0.9, "white matter": 0.8}


class Steps:
    """In place of child processes: writes what the real steps write.

    Attributes:
        names, commands, environments: of what was run; the commands as one would type them.
        at: step -> what to do at its end instead of succeeding, given its log; an exit code, or None to succeed still.
    """

    def __init__(self):
        self.names: list[str] = []
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.at: dict[str, Any] = {}

    def __call__(self, command, environment, log, stop=None, echo=False):
        self.commands.append(shown(command))
        self.environments.append({**os.environ, **environment})
        self.names.append(step := log.stem)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"first line\nthe end of {step}\n")
        if step in self.at and (code := self.at[step](log)) is not None:
            return code
        getattr(self, step)(log.parents[1])
        return 0

    def train(self, folder):
        write_checkpoint(folder, "final")
        curves = {"epoch_start_timestamps": [0.0, 10.0, 30.0], "epoch_end_timestamps": [4.0, 16.0, 38.0]}
        curves |= {"train_losses": [0.5, 0.0, -0.2], "val_losses": [0.4, 0.0, -0.3], "mean_fg_dice": [0.6, 0.7, 0.8]}
        record = {
            "epochs": 3,
            "epoch": 3,
            "iterations_per_epoch": 2,
            "finished": True,
            "curves": curves,
            "peak_memory_bytes": 5,
            "peak_memory_what": "process RSS",
        }
        dump(folder / "training.json", record)

    def predict(self, folder):
        shutil.copytree(folder / "references", folder / "predictions")
        dump(folder / "predictions" / "dataset.json", {"labels": {"background": 0, **LABELS}})
        dump(folder / "prediction.json", {"seconds": 3.0})

    def evaluate(self, folder):
        (folder / "evaluation").mkdir()
        cases = [path.name.partition(".")[0] for path in (folder / "references").iterdir()]
        lines = [f"{case},{name},Dice,{value},1,plain" for case in cases for name, value in DICE.items()]
        text = "\n".join(["case,class,metric,value,unit,convention", *lines, f"{cases[0]},grey matter,TP,7,1,plain"])
        (folder / "evaluation" / "metrics.csv").write_text(text)
        (folder / "evaluation" / "summary.json").write_text("{}")


def write_checkpoint(folder, kind):
    """Beginning or end of a training in the folder of a run."""
    dataset, key = folder.parts[-4:-2]
    model = folder / "nnUNet_results" / dataset / key / "fold_0"
    model.mkdir(parents=True, exist_ok=True)
    (model / f"checkpoint_{kind}.pth").touch()


def ends(how, kind=""):
    """An end of a step: an exit code, or an exception to raise; with a checkpoint first."""

    def end(log):
        if kind:
            write_checkpoint(log.parents[1], kind)
        if isinstance(how, int):
            return how
        raise how

    return end


@pytest.fixture
def fake_steps(monkeypatch):
    steps = Steps()
    monkeypatch.setattr(runner, "run_child", steps)
    return steps
