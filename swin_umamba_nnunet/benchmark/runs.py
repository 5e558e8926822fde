"""A benchmark's folder: its runs, where each keeps its files, and how what is there is read back.

A run is one training with its prediction and scores: one dataset, row, fold and seed.  On disk it is called a cell, as
in the first versions, whose folders are read as well.

    OUTPUT/benchmark.json                               what the benchmark is; the names of its runs under "cells"
    OUTPUT/cells/DATASET/ROW/fold_F/seed_S/cell.json    state, inputs, commands, measurements, what went wrong
                                         /training.json, prediction.json     what the steps measure of themselves
                                         /nnUNet_results/DATASET/ROW/fold_F  nnU-Net's model
                                         /images, references                 links to what is predicted, its truth
                                         /predictions                        segmentations
                                         /evaluation/metrics.csv, summary.json
                                         /logs/STEP.log

Imports nothing but the standard library and filelock; whoever reads a benchmark needs no nnU-Net.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from swin_umamba_nnunet.benchmark.config import Row, build_config
from swin_umamba_nnunet.benchmark.files import BenchmarkError, ConfigError, Record, read_json, write_json

TRAIN, PREDICT, OURS = "nnUNetv2_train", "nnUNetv2_predict", "swin-umamba"  # commands of a run
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_previous.pth", "checkpoint_best.pth")

_IDENTITY = ("name", "plans", "configuration")  # of a row, in benchmark.json


@dataclass(frozen=True)
class Run:
    """One training with its prediction and scores.

    Attributes:
        output: the benchmark's folder.
        dataset: full name, "Dataset901_Synthetic".
        row: trainer, plans and configuration.
        fold: of nnU-Net's split, or "all".
        seed: of its random numbers; 0 of an observer, of whom nothing is trained.
    """

    output: Path
    dataset: str
    row: Row
    fold: int | str
    seed: int

    @property
    def name(self) -> str:
        """Path of the folder below `cells`, which is also what people read."""
        return f"{self.dataset}/{self.row.key}/fold_{self.fold}/seed_{self.seed}"

    @property
    def shown_seed(self) -> str:
        """For tables: the seed, "" of an observer."""
        return "" if self.row.human else str(self.seed)

    @property
    def pair(self) -> str:
        """Dataset and row: what runs share that differ in fold and seed alone."""
        return f"{self.dataset} {self.row.key}"

    @property
    def folder(self) -> Path:
        return self.output / "cells" / self.name

    @property
    def results(self) -> Path:
        """nnU-Net's nnUNet_results for this run alone."""
        return self.folder / "nnUNet_results"

    @property
    def model(self) -> Path:
        return self.results / self.dataset / self.row.key / f"fold_{self.fold}"

    @property
    def images(self) -> Path:
        """Links to the images that are predicted."""
        return self.folder / "images"

    @property
    def references(self) -> Path:
        """Links to their ground truth."""
        return self.folder / "references"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    def log(self, step: str) -> Path:
        return self.folder / "logs" / f"{step}.log"

    def lock(self) -> FileLock:
        """Held by whoever runs it; beside its folder, so that this can be deleted while it is held."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.parent / f".seed_{self.seed}.lock")

    # ------------------------------------------------------------------------------------------- what is recorded

    def read(self) -> Record:
        """cell.json; of a run that was never started, that it is waiting."""
        return read_json(self.folder / "cell.json") or {"state": "waiting", "attempts": 0}

    def write(self, record: Record) -> None:
        write_json(self.folder / "cell.json", record)

    def update(self, **changes: Any) -> None:
        """Change entries of the record.  For the holder of the lock."""
        self.write({**self.read(), **changes})

    @property
    def measured(self) -> Path:
        """What the training writes about itself after every epoch."""
        return self.folder / "training.json"

    @property
    def measured_prediction(self) -> Path:
        return self.folder / "prediction.json"

    def training(self) -> Record:
        """What is `measured` so far; {} before the first epoch."""
        return read_json(self.measured) or {}

    # ------------------------------------------------------------------------------------------------ what is there

    def has_checkpoint(self) -> bool:
        """Whether a training can go on, or came to its end."""
        return any((self.model / name).is_file() for name in CHECKPOINTS)

    def is_trained(self) -> bool:
        """Whether nnUNetv2_train came to its end: it writes the final checkpoint before its own validation."""
        return self.training().get("finished", False) and (self.model / CHECKPOINTS[0]).is_file()

    def is_evaluated(self) -> bool:
        return all((self.evaluation / name).is_file() for name in ("metrics.csv", "summary.json"))


def seconds_of_epochs(training: Record) -> list[float]:
    """How long each epoch took that counts, validation within it included, whoever interrupted the training."""
    curves = training.get("curves", {})
    stamps = zip(curves.get("epoch_start_timestamps", []), curves.get("epoch_end_timestamps", []))
    return [end - start for start, end in stamps]


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark's folder says about it.

    Attributes:
        folder: of the benchmark.
        content: benchmark.json: "config", "created", "updated", "device", "versions", "hardware", "rows", "recipes",
            "cells", "findings".
        runs: those that it names, in its order, whether they have begun or not.
    """

    folder: Path
    content: Record
    runs: tuple[Run, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """In the order of the configuration, each with what is `recorded` about it."""
        return tuple({run.row.key: run.row for run in self.runs}.values())

    @property
    def strays(self) -> list[str]:
        """Names of runs that the folder holds besides, of an earlier configuration."""
        there = (file.parent.relative_to(self.folder / "cells") for file in self.folder.glob("cells/*/*/*/*/cell.json"))
        return sorted({path.as_posix() for path in there} - {run.name for run in self.runs})


def read_benchmark(folder: Path) -> Benchmark:
    """Read benchmark.json.

    Raises:
        BenchmarkError: it is not there, or is not what this version writes.
    """
    file = folder / "benchmark.json"
    content = read_json(file)
    if content is None:
        raise BenchmarkError(
            f"{folder} has no benchmark.json: no benchmark has begun in there, or one still checks its datasets and "
            f"trainers; begin one with   swin-umamba benchmark run --output {shlex.quote(str(folder))} ..."
        )
    try:
        cells, settings = (content.get(name) if isinstance(content, dict) else None for name in ("cells", "config"))
        if not isinstance(cells, list) or not cells or not isinstance(settings, dict):
            raise ValueError("names no cells and their configuration")
        config = build_config(settings)
        # none of an older version, which did not record what its rows are
        entries = {Row(*map(entry.get, _IDENTITY)).key: entry for entry in content.get("rows") or []}
        rows = {row.key: replace(row, recorded=entries.get(row.key, {})) for row in config.rows}
        return Benchmark(folder, content, tuple(_parse(folder, name, rows) for name in cells))
    except (ConfigError, ValueError) as error:
        what = error.problems[0] if isinstance(error, ConfigError) else error
        raise BenchmarkError(
            f"{file} {what}; it was changed, or written by another version; `swin-umamba benchmark run` as before "
            "writes it anew"
        ) from None


def _parse(output: Path, name: str, rows: Mapping[str, Row]) -> Run:
    """The run called `name` in the benchmark at `output`.

    Raises:
        ValueError: it is no name of a run of these rows (by key).
    """
    found = re.fullmatch(r"([^/]+)/([^/]+)/fold_(all|\d+)/seed_(\d+)", str(name))
    if not found or found[2] not in rows or found[1] in (".", ".."):
        raise ValueError(f"names the cell {name!r}; expected DATASET/ROW/fold_F/seed_S with one of its own rows")
    dataset, key, fold, seed = found.groups()
    return Run(output, dataset, rows[key], fold if fold == "all" else int(fold), int(seed))
