"""From a configuration to the tasks of its cells: everything is checked first, and all that is wrong said at once."""

import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark import fairness
from swin_umamba_nnunet.benchmark.child import run_child, tail
from swin_umamba_nnunet.benchmark.commands import Task
from swin_umamba_nnunet.benchmark.config import MatrixConfig, build_config
from swin_umamba_nnunet.benchmark.files import ConfigError, MatrixError, now, read_json, write_json
from swin_umamba_nnunet.benchmark.inputs import cell_inputs, versions
from swin_umamba_nnunet.benchmark.runs import expand
from swin_umamba_nnunet.benchmark.sources import Dataset, check_folds, check_plans, find_dataset

LAUNCHERS = ("local", "slurm")


@dataclass(frozen=True)
class Plan:
    """A checked benchmark.

    Attributes:
        config: what was asked for.
        device: what "auto" has become.
        tasks: of all cells, in the order they run.
        probed: what `probe` found out.
        findings: see `fairness`.
    """

    config: MatrixConfig
    device: str
    tasks: tuple[Task, ...]
    probed: Mapping[str, Any]
    findings: tuple[dict[str, Any], ...]

    def recipe(self, task: Task) -> Mapping[str, Any]:
        """What is known about training this task's row on its dataset."""
        return self.probed["pairs"][f"{task.cell.dataset} {task.cell.row.key}"]


def prepare(
    config: MatrixConfig,
    *,
    launcher: str = "local",
    gpus: tuple[int, ...] = (),
    dry: bool = False,
    probe: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Plan:
    """Check a configuration against this machine and lay out its cells.

    Args:
        config: the benchmark.
        launcher: one of `LAUNCHERS`; with "slurm" this machine need not have the GPU.
        gpus: numbers of those to use; () for whatever PyTorch sees.
        dry: write nothing and download nothing.
        probe: asks about trainers; a child process by default.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[str] = []
    found = {wanted: find_dataset(wanted, problems) for wanted in config.datasets}
    datasets = {wanted: dataset for wanted, dataset in found.items() if dataset is not None}
    by_name = {dataset.name: dataset for dataset in datasets.values()}
    if len(by_name) < len(datasets):
        problems.append("`datasets` names one dataset twice, by id and by name: two cells would write into one folder")
    pairs = [
        (dataset.name, row.key)
        for dataset in by_name.values()
        for row in config.trainers
        if check_plans(dataset, row, problems)
    ]
    request = {
        "rows": [{"name": r.name, "plans": r.plans, "configuration": r.configuration, "key": r.key}
                 for r in config.trainers],
        "pairs": pairs, "folds": list(config.folds), "fetch": not dry, "cost": True,
        "device": config.device if launcher == "local" else "cpu",
    }  # fmt: skip
    for dataset in by_name.values():  # before the probe, which would have nnU-Net make splits of its own
        check_folds(dataset, config.folds, config.test, problems)
    if problems:
        request |= {"fetch": False, "cost": False}  # nothing will run: only look what else is wrong
    probed = (probe or _ask)(request)
    problems += probed["problems"]
    for answer in (*probed["trainers"].values(), *probed["pairs"].values()):
        problems += answer["problems"]
    device = _device(config, launcher, gpus, probed["hardware"], problems)
    if problems:
        raise ConfigError(problems)
    tasks = _tasks(config, datasets, device, probed, dry)
    findings = tuple(fairness.findings(config, probed, sorted(by_name)))
    return Plan(config, device, tasks, probed, findings)


def plan_from(settings: Mapping[str, Any], **options: Any) -> Plan:
    """`build_config`, then `prepare` with `options`; what both find wrong is said together.

    Raises:
        ConfigError: with everything that is wrong.
    """
    try:
        config = build_config(settings)
    except ConfigError as error:
        if error.partial is None:
            raise
        try:
            prepare(error.partial, **{**options, "dry": True})
        except ConfigError as more:
            raise ConfigError([*error.problems, *more.problems]) from None
        raise
    return prepare(config, **options)


def write_plan(plan: Plan) -> None:
    """benchmark.json: what this benchmark is, for status and report."""
    file = plan.config.output / "benchmark.json"
    before = read_json(file) or {}
    rows = [fairness.facts(row, plan.probed) for row in plan.config.trainers]
    write_json(file, {
        "config": plan.config.to_dict(), "created": before.get("created", now()), "updated": now(),
        "device": plan.device, "versions": versions(), "hardware": plan.probed["hardware"], "rows": rows,
        "recipes": {name: {key: value for key, value in pair.items() if key != "cost"}
                    for name, pair in plan.probed["pairs"].items()},
        "cells": [task.cell.name for task in plan.tasks], "findings": list(plan.findings),
    })  # fmt: skip


def write_outcome(plan: Plan) -> None:
    """Add to benchmark.json what only shows once cells have run: whether they did so under the same conditions."""
    file = plan.config.output / "benchmark.json"
    found = [*plan.findings, *fairness.of_records(task.cell.read() for task in plan.tasks)]
    write_json(file, {**(read_json(file) or {}), "updated": now(), "findings": found})


def _tasks(
    config: MatrixConfig,
    datasets: Mapping[int | str, Dataset],
    device: str,
    probed: Mapping[str, Any],
    dry: bool,
) -> tuple[Task, ...]:
    by_name = {dataset.name: dataset for dataset in datasets.values()}
    cases: dict[tuple[str, int | str], Any] = {}
    tasks = []
    for cell in expand(config, {wanted: dataset.name for wanted, dataset in datasets.items()}):
        dataset, recipe = by_name[cell.dataset], probed["pairs"][f"{cell.dataset} {cell.row.key}"]
        if (key := (cell.dataset, cell.fold)) not in cases:
            unknown_yet = dry and not dataset.folds() and cell.fold != "all" and not config.test
            cases[key] = {} if unknown_yet else dataset.scored_cases(cell.fold, config.test)
        inputs = cell_inputs(cell, dataset, config, device, probed["trainers"][cell.row.name])
        tasks.append(Task(
            cell, inputs, cases[key], dataset.file_ending, config.validation, config.checkpoint_minutes,
            recipe["epochs"], recipe.get("cost"),
        ))  # fmt: skip
    return tuple(tasks)


def _device(
    config: MatrixConfig, launcher: str, gpus: tuple[int, ...], hardware: Mapping[str, Any], problems: list[str]
) -> str:
    here = len(hardware["gpus"])
    if launcher == "slurm":
        if config.device != "auto":
            return config.device
        wants = [{**config.slurm, **row.slurm} for row in config.trainers]
        return "cuda" if any(want.get("gpus_per_node") or want.get("gres") for want in wants) else "cpu"
    device = config.device
    if device == "auto":
        device = "cuda" if here else "cpu"
    if device == "cuda" and not here:
        problems.append('`device = "cuda"` was asked for, but PyTorch sees no GPU here; use "cpu", or --launcher slurm')
    if device == "mps" and not hardware["mps"]:
        problems.append('`device = "mps"` was asked for, but PyTorch sees no Apple GPU here; use "cpu"')
    if gpus and device != "cuda":
        problems.append(f"--gpus {','.join(map(str, gpus))} was given, but the cells run on {device}")
    if len(set(gpus)) < len(gpus):
        problems.append(f"--gpus {','.join(map(str, gpus))} names a GPU twice")
    if device == "cuda" and here and (absent := [number for number in gpus if not 0 <= number < here]):
        problems.append(f"--gpus names GPU {absent[0]}, but PyTorch sees {here} here, 0 to {here - 1}")
    for row in config.trainers:
        available = (len(gpus) or here) if device == "cuda" else 1
        if row.num_gpus > available and (here or device != "cuda"):
            problems.append(f"row {row.label} wants {row.num_gpus} GPUs, but there are {available} on {device}")
    return device


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """The probe, in a child process."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered, log = (Path(folder, name) for name in ("request.json", "answer.json", "log"))
        write_json(asked, request)
        command = [sys.executable, "-m", "swin_umamba_nnunet.benchmark.probe", str(asked), str(answered)]
        code = run_child(command, {"nnUNet_wandb_enabled": "0"}, log, threading.Event())
        answer = read_json(answered)
        if code != 0 or answer is None:
            raise MatrixError(f"looking at the trainers failed with exit code {code}:\n{tail(log)}")
        return answer
