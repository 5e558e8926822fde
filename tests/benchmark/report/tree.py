"""A benchmark's folder as the runner leaves it, made up: 2 datasets, 4 trainers, 2 folds, 3 seeds.

On purpose: a label with characters that HTML and LaTeX care about, a failed cell, a running one, a whole fold of a row
never started, undefined Dice (no gallbladder), infinite HD95 (a missed organ), and too few cases to test anything in
the second dataset.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.benchmark.conftest import network_of

HOSTILE = "<i>scratch</i> & 50 %_$x$"
SHAPES, ORGANS = "Dataset901_Shapes", "Dataset902_Organs"
CLASSES = {SHAPES: ("disc", "ring"), ORGANS: ("liver", "spleen", "gallbladder")}
CASES_PER_FOLD = {SHAPES: 8, ORGANS: 2}
FOLDS, SEEDS = (0, 1), (0, 1, 2)
COLUMNS = ("case", "class", "metric", "value", "unit", "convention")
FAILURE = "RuntimeError: <out of memory> & no more"


@dataclass(frozen=True)
class TreeRow:
    """One trainer of the tree; `skill` is the mean Dice it is made to have."""

    name: str
    plans: str
    label: str
    skill: float
    weights: dict | None = None

    @property
    def key(self) -> str:
        return f"{self.name}__{self.plans}__2d"

    @property
    def ancestor(self) -> str:
        """What the runner records about the class: here, that it is the one of that name."""
        return f"swin_umamba_nnunet.trainers.{self.name}"


ROWS = (
    TreeRow("nnUNetTrainer_10epochs", "nnUNetPlans", "nnU-Net", 0.80),
    TreeRow("nnUNetTrainer_10epochs", "nnUNetResEncUNetLPlans", "ResEnc L", 0.83),
    TreeRow("nnUNetTrainerSwinUMambaD_10epochs", "nnUNetPlans", "Swin-UMamba-dagger", 0.87,
            {"name": "vmamba_tiny_v0", "path": "/w.pth", "sha256": "d" * 64}),
    TreeRow("nnUNetTrainerSwinUMambaDScratch_10epochs", "nnUNetPlans", HOSTILE, 0.795),
)  # fmt: skip
FAILED = (SHAPES, HOSTILE, 1, 2)
RUNNING = (SHAPES, "ResEnc L", 1, 2)
NEVER_STARTED = (ORGANS, "ResEnc L", 1)  # a whole fold


def cell_names():
    """(dataset, row, fold, seed) of all cells, in the runner's order."""
    return [(d, row, f, s) for s in SEEDS for f in FOLDS for d in CLASSES for row in ROWS]


def state_of(dataset, label, fold, seed):
    if (dataset, label, fold, seed) == FAILED:
        return "failed"
    if (dataset, label, fold, seed) == RUNNING:
        return "running"
    return "waiting" if (dataset, label, fold) == NEVER_STARTED else "done"


def make_tree(folder: Path, pictures: bool = False) -> Path:
    """Write the tree; with `pictures`, the label files and images of the first dataset too."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{d}/{row.key}/fold_{f}/seed_{s}" for d, row, f, s in cell_names()]
    rows = [
        {"name": row.name, "plans": row.plans, "configuration": "2d", "label": row.label, "num_gpus": 1, "slurm": {},
         "weights": row.weights, "pretrained": row.weights is not None, "ancestors": [row.ancestor],
         "stock_network": row.weights is None and row.label != HOSTILE, "network_classes": [network_of(row.key)]}
        for row in ROWS
    ]  # fmt: skip
    settings = ("name", "plans", "configuration", "label", "num_gpus", "slurm")
    config_rows = [{name: row[name] for name in settings} for row in rows]
    content = {
        "config": {"output": str(folder), "datasets": [901, 902], "trainers": config_rows, "folds": list(FOLDS),
                   "seeds": list(SEEDS), "baseline": "nnU-Net", "checkpoint": "checkpoint_final.pth"},
        "created": "2026-11-21T10:00:00+00:00", "updated": "2026-11-21T12:00:00+00:00", "device": "cpu",
        "versions": {"python": "3.12.1", "torch": "2.15.0"},
        "hardware": {"host": "node7", "system": "Linux", "processor": "Some CPU", "cores": 2, "gpus": [], "cuda": None,
                     "mps": False},
        "rows": rows, "recipes": {}, "cells": names,
        "findings": [
            {"severity": "flag", "code": "plans_differ", "text": "Rows were planned differently (ResEnc).",
             "rows": ["ResEnc L"], "datasets": []},
            {"severity": "suggestion", "code": "control_missing", "text": "Add a control.", "rows": [], "datasets": []},
        ],
    }  # fmt: skip
    (folder / "benchmark.json").write_text(json.dumps(content))
    for (dataset, row, fold, seed), name in zip(cell_names(), names):
        state = state_of(dataset, row.label, fold, seed)
        if state != "waiting":
            _write_cell(folder / "cells" / name, dataset, row, fold, seed, state, pictures and dataset == SHAPES)
    return folder


def keep(folder: Path, datasets=tuple(CLASSES), rows=ROWS, seeds=SEEDS, folds=FOLDS) -> Path:
    """Take the others out of the configuration; their files stay, as those of an earlier one do."""
    content = json.loads((folder / "benchmark.json").read_text())
    keys, labels = [row.key for row in rows], [row.label for row in rows]
    content["cells"] = [
        f"{dataset}/{key}/fold_{fold}/seed_{seed}"
        for seed in seeds for fold in folds for dataset in datasets for key in keys
    ]  # fmt: skip
    content["rows"] = [row for row in content["rows"] if row["label"] in labels]
    (folder / "benchmark.json").write_text(json.dumps(content))
    return folder


def cases(dataset, fold):
    first = fold * CASES_PER_FOLD[dataset]
    return [f"case_{first + i:02d}" for i in range(CASES_PER_FOLD[dataset])]


def dice(dataset, row, fold, seed):
    """(cases, classes) Dice of a cell: always the same, NaN for the gallbladder of the first case."""
    shared = np.random.default_rng([len(dataset), fold, ord(dataset[7])]).normal(0, 0.05, (CASES_PER_FOLD[dataset], 1))
    own = np.random.default_rng([ROWS.index(row), fold, seed]).normal(0, 0.012, (CASES_PER_FOLD[dataset], 1))
    values = row.skill + shared + own - 0.04 * np.arange(len(CLASSES[dataset])) + 0.004 * seed
    values = np.clip(values, 0.01, 0.99)
    if dataset == ORGANS and fold == 0:
        values[0, 2] = math.nan
    return values


def _write_cell(folder, dataset, row, fold, seed, state, pictures):
    folder.mkdir(parents=True)
    epochs, slow = 12, 1 + ROWS.index(row)
    seconds = 3.0 * slow + 0.1 * seed
    curve = row.skill * (1 - np.exp(-np.arange(1, epochs + 1) / 3)) + 0.01 * seed
    record = {
        "state": state, "label": row.label, "attempts": 1, "host": "node7", "step": "train",
        "started": "2026-11-21T10:00:00+00:00", "finished": "2026-11-21T11:00:00+00:00",
        "inputs": {
            "dataset": dataset, "trainer": row.name, "plans": row.plans, "configuration": "2d", "fold": fold,
            "seed": seed, "plans_sha256": "a" * 64, "splits_sha256": "b" * 64, "dataset_fingerprint_sha256": "c" * 64,
            "weights_sha256": row.weights and row.weights["sha256"], "trainer_sha256": None,
            "versions": {"python": "3.12.1", "torch": "2.15.0"}, "device": "cpu", "num_gpus": 1, "mirroring": True,
            "checkpoint": "checkpoint_final.pth", "scored_on": "validation cases of the fold",
        },
        "commands": [["python", "-m", "seeded", "--", "nnUNetv2_train", dataset, "2d", str(fold), "-tr", row.name]],
    }  # fmt: skip
    if state == "failed":
        record["error"] = {"step": "train", "exit_code": 1, "reason": "train failed with exit code 1",
                           "log_tail": FAILURE}  # fmt: skip
    if state == "done":
        record |= {
            "training": {"epoch": epochs, "epochs": epochs, "iterations_per_epoch": 20, "batch_size": 4,
                         "patch_size": [64, 64], "device": "cpu", "device_name": "cpu", "seconds": epochs * seconds,
                         "seconds_per_epoch": seconds, "peak_memory_bytes": slow * 2**30,
                         "peak_memory_what": "process RSS", "resumed_at_epoch": []},
            "curves": {"mean_fg_dice": [None, *curve[1:].tolist()], "train_losses": (-curve).tolist(),
                       "val_losses": (-0.9 * curve).tolist(), "epoch_start_timestamps": list(range(epochs))},
            "prediction": {"cases": CASES_PER_FOLD[dataset], "seconds": 2.0 * slow, "seconds_per_case": 0.25 * slow},
            "cost": {"parameters": slow * 10**7, "flops": slow * 10**10, "scan_flops": 10**9 * (slow > 2),
                     "input_shape": [1, 64, 64]},
        }  # fmt: skip
        _write_scores(folder / "evaluation" / "metrics.csv", dataset, row, fold, seed)
    (folder / "cell.json").write_text(json.dumps(record))
    if pictures and state == "done":
        _write_pictures(folder, dataset, row, fold, seed)


def _write_scores(path, dataset, row, fold, seed):
    path.parent.mkdir()
    lines = []
    for case, values in zip(cases(dataset, fold), dice(dataset, row, fold, seed)):
        for name, value in zip(CLASSES[dataset], values):
            missed = (dataset, row.label, case, name, seed) == (ORGANS, HOSTILE, "case_03", "spleen", 1)
            distance = math.inf if missed else 20 * (1 - value)
            lines += [
                (case, name, "Dice", repr(float(value)), "1", "plain"),
                (case, name, "TP", 100, "px", "plain"),
                (case, name, "NSD", repr(float(min(1.0, value + 0.05))) if value == value else "", "1",
                 "plain: tolerance 2 mm"),
                (case, name, "HD95", repr(float(distance)), "mm", "plain"),
            ]  # fmt: skip
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *lines])


def _write_pictures(folder, dataset, row, fold, seed):
    """PNG images and labels: a disc in a ring, the prediction shifted by how bad the row is."""
    for name in ("images", "references", "predictions"):
        (folder / name).mkdir()
    (folder / "predictions" / "dataset.json").write_text(json.dumps(
        {"labels": {"background": 0, "disc": 1, "ring": 2}, "channel_names": {"0": "grey"}, "file_ending": ".png"}
    ))  # fmt: skip
    y, x = np.mgrid[:48, :64]
    for position, case in enumerate(cases(dataset, fold)):
        def labels(shift, position=position):
            radius = np.hypot(y - 24, x - 26 - position - shift)
            return np.where(radius < 8, 1, np.where(radius < 14, 2, 0)).astype(np.uint8)

        truth = labels(0)
        noise = np.random.default_rng(position).normal(0, 12, truth.shape)
        image = np.clip(60 + 60 * truth + noise, 0, 255).astype(np.uint8)
        shift = int(40 * (1 - row.skill)) - 3 + seed
        for name, array in ((f"images/{case}_0000", image), (f"references/{case}", truth),
                            (f"predictions/{case}", labels(shift))):  # fmt: skip
            Image.fromarray(array).save(folder / f"{name}.png")
