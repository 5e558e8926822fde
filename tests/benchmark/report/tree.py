"""A benchmark's folder as the runner leaves it, made up: 2 datasets, 4 trainers, 2 folds, 3 seeds.

On purpose: a label with characters that HTML and LaTeX care about, a failed run, a running one, a whole fold of a row
never started, undefined Dice (no gallbladder), infinite HD95 (a missed organ), too few cases to test anything in the
second dataset, and a paper's name for that one.
"""

import csv
import math

import numpy as np
from PIL import Image

from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.runs import read_benchmark
from tests.benchmark.conftest import network_of
from tests.jsons import dump, edit

HOSTILE = "<i>scratch</i> & 50 %_$x$"
SHAPES, ORGANS = "Dataset901_Shapes", "Dataset902_AbdomenMR"
CLASSES = {SHAPES: ("disc", "ring"), ORGANS: ("liver", "spleen", "gallbladder")}
CASES_PER_FOLD = {SHAPES: 8, ORGANS: 2}
FOLDS, SEEDS = (0, 1), (0, 1, 2)
COLUMNS = ("case", "class", "metric", "value", "unit", "convention")
FAILURE = "RuntimeError: <out of memory> & no more"
WEIGHTS = {"name": "vmamba_tiny_v0", "path": "/w.pth", "sha256": "d" * 64}
SKILLS = {"nnU-Net": 0.80, "ResEnc L": 0.83, "Swin-UMamba-dagger": 0.87, HOSTILE: 0.795}  # the mean Dice of a row
ROWS = tuple(
    Row(f"nnUNetTrainer{name}_10epochs", plans, label=label)
    for label, (name, plans) in zip(
        SKILLS,
        (
            ("", "nnUNetPlans"),
            ("", "nnUNetResEncUNetLPlans"),
            ("SwinUMambaD", "nnUNetPlans"),
            ("SwinUMambaDScratch", "nnUNetPlans"),
        ),
    )
)
STATES = {  # of those that are not done
    (SHAPES, HOSTILE, 1, 2): "failed",
    (SHAPES, "ResEnc L", 1, 2): "running",
    **{(ORGANS, "ResEnc L", 1, seed): "waiting" for seed in SEEDS},
}


def state_of(dataset, label, fold, seed):
    return STATES.get((dataset, label, fold, seed), "done")


def names(datasets=tuple(CLASSES), rows=ROWS, seeds=SEEDS, folds=FOLDS):
    """Of the runs, in the runner's order."""
    return [f"{d}/{row.key}/fold_{f}/seed_{s}" for s in seeds for f in folds for d in datasets for row in rows]


def make_tree(folder, pictures=False):
    """Write the tree; with `pictures`, the label files and images of the first dataset too."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = [
        {
            "weights": WEIGHTS if "dagger" in row.label else None,
            "ancestors": [f"swin_umamba_nnunet.trainers.{row.name}"],
            "stock_network": "SwinUMamba" not in row.name,
            "network_classes": [network_of(row.key)],
        }
        for row in ROWS
    ]
    content = {
        "config": {
            "output": str(folder),
            "datasets": [901, 902],
            "trainers": [row.to_dict() for row in ROWS],
            "folds": list(FOLDS),
            "seeds": list(SEEDS),
            "baseline": "nnU-Net",
        },
        "created": "2026-11-21T10:00:00+00:00",
        "updated": "2026-11-21T12:00:00+00:00",
        "hardware": {"host": "node7", "processor": "Some CPU", "gpus": []},
        "rows": [{**row.to_dict(), **known} for row, known in zip(ROWS, facts)],
        "cells": names(),
        "findings": [
            {"severity": "flag", "code": "plans_differ", "text": "Rows were planned differently.", "datasets": []},
            {"severity": "suggestion", "code": "control_missing", "text": "Add a control.", "datasets": []},
        ],
    }
    dump(folder / "benchmark.json", content)
    for run in read_benchmark(folder).runs:
        state = state_of(run.dataset, run.row.label, run.fold, run.seed)
        if state != "waiting":
            _write_run(run, state)
        if state == "done" and pictures and run.dataset == SHAPES:
            _write_pictures(run)
    return folder


def keep(folder, *args, **kwargs):
    """Take all but these `names` out of the configuration; their files stay, as those of an earlier one do."""
    edit(folder / "benchmark.json", lambda content: content.update(cells=names(*args, **kwargs)))
    return folder


def cases(dataset, fold):
    first = fold * CASES_PER_FOLD[dataset]
    return [f"case_{first + i:02d}" for i in range(CASES_PER_FOLD[dataset])]


def dice(dataset, row, fold, seed):
    """(cases, classes) Dice of a run: always the same, NaN for the gallbladder of the first case."""
    shape = CASES_PER_FOLD[dataset], 1
    shared = np.random.default_rng([dataset == SHAPES, fold]).normal(0, 0.05, shape)
    own = np.random.default_rng([list(SKILLS).index(row.label), fold, seed]).normal(0, 0.012, shape)
    values = SKILLS[row.label] + shared + own - 0.04 * np.arange(len(CLASSES[dataset])) + 0.004 * seed
    values = np.clip(values, 0.01, 0.99)
    if dataset == ORGANS and fold == 0:
        values[0, 2] = math.nan
    return values


def _write_run(run, state):
    run.folder.mkdir(parents=True)
    epochs, slow, skill = 12, 1 + list(SKILLS).index(run.row.label), SKILLS[run.row.label]
    seconds = 3.0 * slow + 0.1 * run.seed
    curve = skill * (1 - np.exp(-np.arange(1, epochs + 1) / 3)) + 0.01 * run.seed
    train = f"nnUNetv2_train {run.dataset} 2d {run.fold} -tr {run.row.name}"
    record = {
        "state": state,
        "host": "node7",
        "inputs": {
            "plans_sha256": "a" * 64,
            "weights_sha256": WEIGHTS["sha256"] if "dagger" in run.row.label else None,
            "versions": {"python": "3.12.1", "torch": "2.15.0"},
            "scored_on": "validation cases of the fold",
        },
        "commands": [["python", "-m", "seeded", "--", *train.split()]],
    }
    if state == "failed":
        record["error"] = {"step": "train", "reason": "train failed with exit code 1", "log_tail": FAILURE}
    if state == "done":
        record |= {
            "training": {
                "epochs": epochs,
                "replays": "SwinUMamba" in run.row.name,
                "resumed_at_epoch": [3] * (run.row.label == "Swin-UMamba-dagger"),
                "iterations_per_epoch": 20,
                "batch_size": 4,
                "patch_size": [64, 64],
                "device_name": "cpu",
                "seconds": epochs * seconds,
                "seconds_per_epoch": seconds,
                "peak_memory_bytes": slow * 2**30,
                "peak_memory_what": "process RSS",
            },
            "curves": {
                "mean_fg_dice": [None, *curve[1:].tolist()],
                "train_losses": (-curve).tolist(),
                "val_losses": (-0.9 * curve).tolist(),
            },
            "prediction": {"seconds_per_case": 0.25 * slow},
            "cost": {"parameters": slow * 10**7, "flops": slow * 10**10, "scan_flops": 10**9 * (slow > 2)},
        }
        _write_scores(run)
    run.write(record)


def _write_scores(run):
    run.evaluation.mkdir()
    lines = []
    for case, values in zip(cases(run.dataset, run.fold), dice(run.dataset, run.row, run.fold, run.seed)):
        for name, value in zip(CLASSES[run.dataset], values.tolist()):
            missed = (run.dataset, run.row.label, case, name, run.seed) == (ORGANS, HOSTILE, "case_03", "spleen", 1)
            nsd = "" if math.isnan(value) else min(1.0, value + 0.05)
            lines += [
                (case, name, "Dice", value, "1", "plain"),
                (case, name, "TP", 100, "px", "plain"),
                (case, name, "NSD", nsd, "1", "plain: tolerance 2 mm"),
                (case, name, "HD95", math.inf if missed else 20 * (1 - value), "mm", "plain"),
            ]
    with open(run.evaluation / "metrics.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *lines])


def _write_pictures(run):
    """PNG images and labels: a square in a ring, the prediction shifted by how bad the row is."""
    for folder in (run.images, run.references, run.predictions):
        folder.mkdir()
    labels = {"background": 0, "disc": 1, "ring": 2}
    description = {"labels": labels, "channel_names": {"0": "grey"}, "file_ending": ".png"}
    dump(run.predictions / "dataset.json", description)
    truth = np.zeros((48, 64), np.uint8)
    truth[10:34, 12:36], truth[16:26, 18:30] = 2, 1
    moved = np.roll(truth, int(40 * (1 - SKILLS[run.row.label])), axis=1)
    for case in cases(run.dataset, run.fold):
        for place, array in (
            (run.images / f"{case}_0000", 60 + 60 * truth),
            (run.references / case, truth),
            (run.predictions / case, moved),
        ):
            Image.fromarray(array).save(f"{place}.png")
