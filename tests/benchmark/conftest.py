"""A preprocessed dataset as far as the benchmark looks at it, and answers of a probe, without nnU-Net."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from swin_umamba_nnunet.benchmark import Job, Row
from swin_umamba_nnunet.benchmark.sources import Case

NAME = "Dataset903_Matrix"
CASES = ("a", "b", "c", "d")
SPLITS = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
RECIPE = {
    "problems": [], "epochs": 10, "iterations_per_epoch": 250, "validation_iterations_per_epoch": 50, "batch_size": 2,
    "patch_size": [32, 32], "mirroring_axes": [0, 1], "deep_supervision": True, "split": [], "cost": None,
}  # fmt: skip
HARDWARE = {"host": "here", "gpus": [], "mps": False, "cores": 2, "processor": "some"}


def network_of(key: str) -> str:
    """What nnU-Net's plans of a row name."""
    kind = "ResidualEncoderUNet" if "ResEnc" in key else "PlainConvUNet"
    return f"dynamic_network_architectures.architectures.unet.{kind}"


@pytest.fixture
def folders(tmp_path, monkeypatch) -> SimpleNamespace:
    """Raw and preprocessed dataset with two folds, plans with one preprocessed configuration and one that is not."""
    raw, preprocessed = tmp_path / "raw" / NAME, tmp_path / "preprocessed" / NAME
    description = {"channel_names": {"0": "x", "1": "y"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed / "nnUNetPlans_2d"):
        folder.mkdir(parents=True)
    for folder in (raw, preprocessed):
        (folder / "dataset.json").write_text(json.dumps(description))
    for case in CASES:
        for channel in ("0000", "0001"):
            (raw / "imagesTr" / f"{case}_{channel}.png").write_text(case)
        (raw / "labelsTr" / f"{case}.png").write_text(case)
        (preprocessed / "nnUNetPlans_2d" / f"{case}.b2nd").touch()
    plans = {"configurations": {
        "2d": {"data_identifier": "nnUNetPlans_2d"},
        "2d_large": {"inherits_from": "2d"},
        "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres"},
    }}  # fmt: skip
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "splits_final.json").write_text(json.dumps(SPLITS))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return SimpleNamespace(raw=raw, preprocessed=preprocessed, output=tmp_path / "bench")


@pytest.fixture
def make_config(folders):
    """A function (**settings) -> settings of a benchmark of two rows."""
    usual = {"output": str(folders.output), "datasets": [903], "trainers": ["One", "Two"], "device": "cpu"}
    return lambda **settings: {**usual, **settings}


@pytest.fixture
def probe():
    """A probe that finds every trainer and every pair in order; its `trainers`, `pairs`, `hardware` can be changed."""

    class Probe:
        trainers: dict[str, dict] = {}
        pairs: dict[str, dict] = {}
        hardware: dict = HARDWARE
        problems: list[str] = []
        request: dict = {}

        def __call__(self, request: dict) -> dict:
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

    return Probe()


@pytest.fixture
def make_job(tmp_path):
    """A function (trainer=, seed=, num_gpus=) -> a run scored on the cases "a" and "b" with two channels."""
    raw = tmp_path / "images"
    raw.mkdir()
    cases = {}
    for name in ("a", "b"):
        files = [raw / f"{name}_{what}.png" for what in ("first", "second", "label")]
        for file in files:
            file.write_text(file.stem)
        cases[name] = Case(tuple(files[:2]), files[2])

    def make(trainer: str = "One", seed: int = 0, num_gpus: int = 1, slurm=None, **settings: Any) -> Job:
        row = Row(trainer, label=trainer, num_gpus=num_gpus, slurm=slurm or {})
        inputs = {"plans_sha256": "1" * 64, "device": "cpu", "mirroring": True, "checkpoint": "checkpoint_final.pth",
                  "versions": {"torch": "2.4"}}  # fmt: skip
        return Job(tmp_path / "bench", NAME, row, 0, seed, inputs, cases, ".png", **settings)

    return make


@pytest.fixture
def fake_steps(monkeypatch):
    """Children that write what the real steps write; `fail`, `interrupt` name a step that does not get there.

    `commands` lists what was run.
    """
    from swin_umamba_nnunet.benchmark import runner
    from swin_umamba_nnunet.benchmark.process import Interrupted

    class Steps:
        fail: dict[str, int] = {}
        interrupt: str = ""
        hook: Any = None

        def __init__(self) -> None:
            self.commands: list[list[str]] = []
            self.environments: list[dict[str, str]] = []

        @property
        def names(self) -> list[str]:
            return [_step_of(command) for command in self.commands]

        def __call__(self, command, environment, log, stop=None, echo=False) -> int:
            self.commands.append(command)
            self.environments.append(environment)
            step = _step_of(command)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"first line\nthe end of {step}\n")
            folder = log.parents[1]
            if self.hook is not None:
                self.hook(step, stop)
            if step == "train":
                key = f"{command[command.index('-tr') + 1]}__nnUNetPlans__2d"
                model = Path(environment["nnUNet_results"], NAME, key, "fold_0")
                model.mkdir(parents=True, exist_ok=True)
                (model / "checkpoint_best.pth").touch()
            if self.interrupt == step:
                raise Interrupted
            if step in self.fail:
                return self.fail[step]
            if step == "train":
                (model / "checkpoint_final.pth").touch()
                curves = {"epoch_start_timestamps": [0.0, 10.0, 30.0], "epoch_end_timestamps": [4.0, 16.0, 38.0]}
                record = {"epochs": 3, "epoch": 3, "iterations_per_epoch": 2, "finished": True, "curves": curves,
                          "peak_memory_bytes": 5, "peak_memory_what": "process RSS"}  # fmt: skip
                (folder / "training.json").write_text(json.dumps(record))
            elif step == "predict":
                predictions = folder / "predictions"
                predictions.mkdir(exist_ok=True)
                for image in (folder / "images").glob("*_0000.png"):
                    (predictions / image.name.replace("_0000", "")).touch()
                (folder / "prediction.json").write_text(json.dumps({"seconds": 3.0}))
            else:
                (folder / "evaluation").mkdir()
                for name in ("metrics.csv", "summary.json"):
                    (folder / "evaluation" / name).touch()
            return 0

    steps = Steps()
    monkeypatch.setattr(runner, "run_child", steps)
    return steps


def _step_of(command: list[str]) -> str:
    if "nnUNetv2_train" in command:
        return "train"
    return "predict" if "nnUNetv2_predict" in command else "evaluate"
