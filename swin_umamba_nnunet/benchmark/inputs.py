"""What a cell's numbers depend on, recorded with them; and in what a recorded state differs from the present one."""

import functools
import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet.benchmark.config import MatrixConfig
from swin_umamba_nnunet.benchmark.files import json_sha256
from swin_umamba_nnunet.benchmark.runs import Run
from swin_umamba_nnunet.benchmark.sources import Dataset

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


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and the packages, as installed for this interpreter, which the children run too."""
    found = {"python": platform.python_version(), "swin_umamba_nnunet": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def dataset_hashes(dataset: Dataset, plans: str, uses_split: bool) -> dict[str, str | None]:
    """Hashes of what nnU-Net has planned: of what the files say, so that their formatting does not matter."""
    return {
        "plans_sha256": json_sha256(dataset.plans_file(plans)),
        "splits_sha256": json_sha256(dataset.splits_file) if uses_split else None,
        "dataset_fingerprint_sha256": json_sha256(dataset.preprocessed / "dataset_fingerprint.json"),
    }


def cell_inputs(
    cell: Run, dataset: Dataset, config: MatrixConfig, device: str, trainer: Mapping[str, Any]
) -> dict[str, Any]:
    """The inputs of a cell.

    Args:
        cell: which.
        dataset: of the cell.
        config: the benchmark.
        device: it runs on.
        trainer: what `probe` says about the trainer.
    """
    return {
        "dataset": cell.dataset,
        "trainer": cell.row.name,
        "plans": cell.row.plans,
        "configuration": cell.row.configuration,
        "fold": cell.fold,
        "seed": cell.seed,
        **dataset_hashes(dataset, cell.row.plans, cell.fold != "all"),
        "weights_sha256": (trainer.get("weights") or {}).get("sha256"),
        "trainer_sha256": trainer.get("file_sha256"),
        "versions": versions(),
        "device": device,
        "num_gpus": cell.row.num_gpus,
        "mirroring": config.mirroring,
        "checkpoint": config.checkpoint,
        "scored_on": "test set" if config.test or cell.fold == "all" else "validation cases of the fold",
    }


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What has changed, one "NAME: BEFORE -> NOW" each."""
    changed = []
    for name in {**recorded, **present}:
        before, after = recorded.get(name), present.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += [f"{name} of {line}" for line in differences(before, after)]
        elif before != after:
            changed.append(f"{name}: {_short(before)} -> {_short(after)}")
    return changed


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    return text[:12] + "..." if len(text) == 64 else text
