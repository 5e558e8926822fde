"""Cells and where they keep their files: one dataset, row, fold and seed."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from swin_umamba_nnunet.benchmark.config import MatrixConfig, Row
from swin_umamba_nnunet.benchmark.files import read_json, write_json

STATES = ("waiting", "running", "done", "failed")


@dataclass(frozen=True)
class Cell:
    """One training with its prediction and scores.

    Attributes:
        output: the benchmark's folder.
        dataset: full name, "Dataset901_Synthetic".
        row: trainer, plans and configuration.
        fold: of nnU-Net's split, or "all".
        seed: what `seeded` seeds with.
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
    def folder(self) -> Path:
        return self.output / "cells" / self.name

    @property
    def results(self) -> Path:
        """nnU-Net's nnUNet_results for this cell alone."""
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

    @property
    def measured(self) -> Path:
        """What the training writes about itself after every epoch."""
        return self.folder / "training.json"

    @property
    def measured_prediction(self) -> Path:
        return self.folder / "prediction.json"

    def log(self, step: str) -> Path:
        return self.folder / "logs" / f"{step}.log"

    def lock(self) -> FileLock:
        """Held by whoever runs the cell; beside its folder, so that this can be deleted while it is held."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.parent / f".seed_{self.seed}.lock")

    # -------------------------------------------------------------------------------------------------- cell.json

    def read(self) -> dict[str, Any]:
        """What is recorded; of a cell that was never started, that it is waiting."""
        return read_json(self.folder / "cell.json") or {"state": "waiting", "attempts": 0}

    def write(self, record: Mapping[str, Any]) -> None:
        write_json(self.folder / "cell.json", record)

    def update(self, **changes: Any) -> dict[str, Any]:
        """Change entries of the record, and return it.  For the holder of the lock."""
        record = {**self.read(), **changes}
        self.write(record)
        return record

    # -------------------------------------------------------------------------------------------------- outputs

    def is_trained(self) -> bool:
        """Whether nnUNetv2_train came to its end: it writes the final checkpoint before its own validation."""
        measured = read_json(self.measured) or {}
        return measured.get("finished", False) and (self.model / "checkpoint_final.pth").is_file()

    def is_predicted(self, cases: Mapping[str, Any], file_ending: str) -> bool:
        """Whether every case has its prediction, and the step that makes them came to its end."""
        return self.measured_prediction.is_file() and all(
            (self.predictions / f"{case}{file_ending}").is_file() for case in cases
        )

    def is_evaluated(self) -> bool:
        return all((self.evaluation / name).is_file() for name in ("metrics.csv", "summary.json"))


def expand(config: MatrixConfig, datasets: Mapping[int | str, str]) -> list[Cell]:
    """All cells, so that early on every row has one: seeds and folds outside, rows inside.

    Args:
        config: the benchmark.
        datasets: full name of each of its datasets.
    """
    return list(_expand(config, datasets))


def _expand(config: MatrixConfig, datasets: Mapping[int | str, str]) -> Iterator[Cell]:
    for seed in config.seeds:
        for fold in config.folds:
            for dataset in config.datasets:
                for row in config.trainers:
                    yield Cell(config.output, datasets[dataset], row, fold, seed)


def parse_cell(output: Path, name: str, rows: Mapping[str, Row]) -> Cell:
    """The cell called `name` in the benchmark at `output`.

    Raises:
        ValueError: it is no name of a cell of these rows (by key).
    """
    parts = name.split("/") if isinstance(name, str) else []
    found = re.fullmatch(r"fold_(all|\d+)/seed_(\d+)", "/".join(parts[2:]))
    if not found or parts[1] not in rows or parts[0] in ("", ".", ".."):
        raise ValueError(f"names the cell {name!r}; expected DATASET/ROW/fold_F/seed_S with one of its own rows")
    fold, seed = found.groups()
    return Cell(output, parts[0], rows[parts[1]], fold if fold == "all" else int(fold), int(seed))


def now() -> str:
    """The time with its offset from UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
