"""From a configuration to the jobs of its runs: everything is checked first, and all that is wrong said at once."""

import functools
import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._distribution import version_of
from swin_umamba_nnunet.benchmark import fairness
from swin_umamba_nnunet.benchmark.config import BenchmarkConfig, Row, build_config
from swin_umamba_nnunet.benchmark.files import (
    BenchmarkError,
    ConfigError,
    Record,
    files_sha256,
    json_sha256,
    now,
    read_json,
    write_json,
)
from swin_umamba_nnunet.benchmark.process import ask
from swin_umamba_nnunet.benchmark.runs import Run
from swin_umamba_nnunet.benchmark.sources import (
    Case,
    Dataset,
    check_fold,
    check_plans,
    find_dataset,
    nnunet_folder,
    observed,
    observer_folders,
)

# Those besides this one whose code decides what is trained, predicted and scored.
PACKAGES = (
    "nnunetv2",
    "torch",
    "dynamic_network_architectures",
    "batchgenerators",
    "batchgeneratorsv2",
    "numba",
    "numpy",
)


@dataclass(frozen=True, eq=False)  # the job of a run is that run
class Job(Run):
    """A run with everything a process needs to do it, wherever it does.

    Attributes:
        inputs: what its numbers depend on, recorded with them, see `_jobs`.
        cases: name -> images and ground truth of what is predicted and scored.
        file_ending: of images and segmentations.
        validation, checkpoint_minutes: see `BenchmarkConfig`.
        given: name -> file, of what an observer's predictions are; {} of a trainer.
        recipe: what is known about training this row on this dataset, see `probe`: "epochs", "cost", ...
    """

    inputs: Record
    cases: Mapping[str, Case]
    file_ending: str
    validation: bool = False
    checkpoint_minutes: float = 10.0
    recipe: Record = field(default_factory=dict)
    given: Mapping[str, Path] = field(default_factory=dict)

    def is_predicted(self) -> bool:
        """Whether every case has its prediction, and the step that makes them came to its end."""
        files = (self.predictions / f"{case}{self.file_ending}" for case in self.cases)
        return (self.row.human or self.measured_prediction.is_file()) and all(file.is_file() for file in files)

    def is_done(self) -> bool:
        """Whether it is finished and its outputs are all there.

        The checkpoint is not asked for: who deletes it to make room does not want to train again.
        """
        return self.read()["state"] == "done" and self.is_predicted() and self.is_evaluated()

    def changes(self) -> list[str]:
        """In what the recorded inputs differ from the present ones, if anything was made of them.

        A run that failed before its first checkpoint has nothing to keep or to lose, so it simply starts again, as
        after a mistake in a trainer has been put right.
        """
        recorded = self.read().get("inputs")
        made_something = self.has_checkpoint() or self.predictions.is_dir()
        return _differences(recorded, self.inputs) if recorded and made_something else []


def _differences(recorded: Record, present: Record) -> list[str]:
    """What has changed, one "NAME: BEFORE -> NOW" each."""
    changed = []
    for name in {**recorded, **present}:
        before, after = recorded.get(name), present.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += [f"{name} of {line}" for line in _differences(before, after)]
        elif before != after:
            changed.append(f"{name}: {_short(before)} -> {_short(after)}")
    return changed


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a hash


@dataclass(frozen=True)
class Prepared:
    """A checked benchmark.

    Attributes:
        config: what was asked for.
        device: what "auto" has become.
        jobs: all runs, in the order they are done.
        probed: what `probe` found out.
        findings: see `fairness`.
    """

    config: BenchmarkConfig
    device: str
    jobs: tuple[Job, ...]
    probed: Record
    findings: tuple[Record, ...]

    def write(self) -> None:
        """benchmark.json: what this benchmark is, for status and report."""
        file = self.config.output / "benchmark.json"
        pairs = self.probed["pairs"].items()
        content = {
            "config": self.config.to_dict(),
            "created": (read_json(file) or {}).get("created", now()),
            "updated": now(),
            "device": self.device,
            "versions": versions(),
            "hardware": self.probed["hardware"],
            "rows": [fairness.facts(row, self.probed) for row in self.config.trainers],
            "recipes": {pair: {key: what[key] for key in what if key != "cost"} for pair, what in pairs},
            "cells": [job.name for job in self.jobs],
            "findings": self.findings,
        }
        write_json(file, content)


def prepare(
    settings: Record,
    *,
    launcher: str = "local",
    gpus: Sequence[int] = (),
    dry: bool = False,
) -> Prepared:
    """Check a configuration against this machine and lay out its runs.

    Args:
        settings: of the benchmark, see `build_config`; what that finds wrong is said with the rest.
        launcher: "local", or "slurm", with which this machine need not have the GPU.
        gpus: numbers of those to use; () for whatever PyTorch sees.
        dry: write nothing and download nothing.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    try:
        config = build_config(settings)
    except ConfigError as error:
        if error.partial is None:
            raise
        problems += error.problems
        config = error.partial

    def holds(check: Callable, *what: Any) -> Any:
        try:
            return check(*what) or True
        except BenchmarkError as error:
            problems.append(str(error))
            return None

    folders = [holds(nnunet_folder, variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed")]
    found = {wanted: holds(find_dataset, wanted, *folders) for wanted in config.datasets if all(folders)}
    datasets = {dataset.name: dataset for dataset in found.values() if dataset}
    if len(datasets) < sum(map(bool, found.values())):
        problems.append("`datasets` names one dataset twice, by id and by name: two runs would write into one folder")
    pairs = [
        (dataset.name, row.key)
        for dataset in datasets.values()
        for row in config.trainers
        if holds(check_plans, dataset, row)
    ]
    complete = len(datasets) == len(config.datasets)
    observers = [
        (row, *found)
        for row in config.rows
        if row.human and complete
        for found in (holds(observer_folders, row.name, config.observers[row.name], [*datasets.values()]) or {}).items()
    ]
    for dataset in datasets.values():  # before the probe, which would have nnU-Net make splits of its own
        for fold in config.folds:
            if holds(check_fold, dataset, fold, config.test) and dataset.knows(fold, config.test):
                for row, of, folder in observers:
                    if of == dataset:
                        holds(observed, row.name, folder, dataset, dataset.scored_cases(fold, config.test))
    request = {
        "rows": [row.to_dict() for row in config.trainers],
        "pairs": pairs,
        "folds": config.folds,
        "device": config.device if launcher == "local" else "cpu",
        "fetch": not (dry or problems),  # or only look what else is wrong
        "cost": not problems,
    }
    probed = ask(request)
    problems += probed["problems"]
    for answer in (*probed["trainers"].values(), *probed["pairs"].values()):
        problems += answer["problems"]
    device = _device(config, launcher, gpus, probed["hardware"], problems)
    if problems:
        raise ConfigError(problems)
    findings = tuple(fairness.findings(config, probed, sorted(datasets)))
    jobs = _jobs(config, list(found.values()), observers, device, probed, dry)
    return Prepared(config, device, jobs, probed, findings)


def _jobs(
    config: BenchmarkConfig,
    datasets: Sequence[Dataset],
    observers: Sequence[tuple[Row, Dataset, Path]],
    device: str,
    probed: Record,
    dry: bool,
) -> tuple[Job, ...]:
    """All runs, so that early on every row has one: seeds and folds outside, rows inside; then the observers'."""

    @functools.cache
    def cases(dataset: Dataset, fold: int | str) -> Any:
        unknown_yet = dry and not dataset.knows(fold, config.test)
        return {} if unknown_yet else dataset.scored_cases(fold, config.test)

    trainings = itertools.product(config.seeds, config.folds, datasets, config.trainers)
    runs: list[tuple[int, int | str, Dataset, Row, Path | None]] = [(*run, None) for run in trainings]
    runs += [(0, fold, of, row, folder) for fold, (row, of, folder) in itertools.product(config.folds, observers)]
    jobs = []
    for seed, fold, dataset, row, segmentations in runs:
        scored, given, recipe = cases(dataset, fold), dict[str, Path](), {}
        inputs = {
            "dataset": dataset.name,
            "fold": fold,
            # of what the files say, so that their formatting does not matter
            "splits_sha256": json_sha256(dataset.splits_file) if fold != "all" else None,
            "versions": versions(),
            "scored_on": "test set" if config.test or fold == "all" else "validation cases of the fold",
        }
        if segmentations is None:
            trainer, recipe = probed["trainers"][row.name], probed["pairs"][f"{dataset.name} {row.key}"]
            inputs |= {
                "trainer": row.name,
                "plans": row.plans,
                "configuration": row.configuration,
                "seed": seed,
                "plans_sha256": json_sha256(dataset.plans_file(row.plans)),
                "dataset_fingerprint_sha256": json_sha256(dataset.preprocessed / "dataset_fingerprint.json"),
                "weights_sha256": (trainer["weights"] or {}).get("sha256"),
                "trainer_sha256": trainer["file_sha256"],
                "device": device,
                "num_gpus": row.num_gpus,
                "mirroring": config.mirroring,
                "checkpoint": config.checkpoint,
            }
        else:
            given = observed(row.name, segmentations, dataset, scored)
            inputs |= {"observer": row.name, "segmentations_sha256": files_sha256(given), "device": "cpu"}
        run = (config.output, dataset.name, row, fold, seed, inputs, scored, dataset.file_ending)
        jobs.append(Job(*run, config.validation, config.checkpoint_minutes, recipe, given))
    return tuple(jobs)


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and the packages, as installed for this interpreter, which the children run too."""
    found = {package: version_of(package) or "not installed as a package" for package in PACKAGES}
    return {"python": platform.python_version(), "swin_umamba_nnunet": __version__, **found}


def asks_for_gpu(resources: Record) -> bool:
    """Whether some of these parameters of submitit's SlurmExecutor have SLURM give a job GPUs."""
    wanted = {**resources, **resources.get("additional_parameters", {})}
    return any(value and (name.startswith("gpus") or name in ("gres", "num_gpus")) for name, value in wanted.items())


def _device(config: BenchmarkConfig, launcher: str, gpus: Sequence[int], hardware: Record, problems: list[str]) -> str:
    """What "auto" becomes; what is asked for and not there is added to `problems`."""
    here, flag = len(hardware["gpus"]), f"--gpus {','.join(map(str, gpus))}"
    if launcher == "slurm":
        wants = [{**config.slurm, **row.slurm} for row in config.trainers]
        auto = "cuda" if any(map(asks_for_gpu, wants)) else "cpu"
        return auto if config.device == "auto" else config.device
    device = config.device if config.device != "auto" else "cuda" if here else "cpu"
    absent = [number for number in gpus if not 0 <= number < here]
    available = (len(gpus) or here) if device == "cuda" else 1
    asked = f'`device = "{device}"` was asked for, but PyTorch sees no'
    checks: list[tuple[Any, str]] = [
        (device == "cuda" and not here, f'{asked} GPU here; use "cpu", or --launcher slurm'),
        (device == "mps" and not hardware["mps"], f'{asked} Apple GPU here; use "cpu"'),
        (gpus and device != "cuda", f"{flag} was given, but the runs are on {device}"),
        (len(set(gpus)) < len(gpus), f"{flag} names a GPU twice"),
        (device == "cuda" and here and absent, f"{flag} names {absent}, but PyTorch sees {here} here, 0 to {here - 1}"),
    ]
    for row in config.trainers:
        wrong = row.num_gpus > available and (here or device != "cuda")
        checks.append((wrong, f"row {row.label} wants {row.num_gpus} GPUs, but there are {available} on {device}"))
    problems += [text for wrong, text in checks if wrong]
    return device
