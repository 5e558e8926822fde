"""What the rows are, asked of nnU-Net and torch in a child process: trainers, weights, devices, splits, costs.

    python -m swin_umamba_nnunet.benchmark.probe REQUEST.json ANSWER.json

The runner imports neither; and a trainer of a user's that fails to import takes only this child down.
"""

import contextlib
import difflib
import importlib.util
import inspect
import io
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import _autoregister, catalogue
from swin_umamba_nnunet.benchmark.files import read_json, sha256, write_json
from swin_umamba_nnunet.benchmark.hooks import plain
from swin_umamba_nnunet.benchmark.machine import processor_name
from swin_umamba_nnunet.benchmark.watchdog import end_with_parent

PREPROCESSED, RESULTS = "nnUNet_preprocessed", "nnUNet_results"  # environment variables

# Methods that decide about the data a training sees and the loss it follows; rows that have their own are flagged.
PROTOCOL_METHODS = {
    "do_split": "the split",
    "get_training_transforms": "the augmentation",
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": "the augmentation",
    "get_dataloaders": "the data loading",
    "_build_loss": "the loss",
}


def inspect_rows(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request.

    Args:
        request: "rows": list of {"name", "plans", "configuration", "key"}; "pairs": list of [dataset, key] whose plans
            exist; "folds"; "fetch": download missing weights and write missing splits; "cost": count FLOPs.

    Returns:
        "problems" of this installation; "hardware"; "trainers": {name: {"problems", "weights", "file_sha256", ...}};
        "pairs": {"DATASET key": {"problems", "epochs", ..., "cost"}}.
    """
    rows = {row["key"]: row for row in request["rows"]}
    classes, trainers = {}, {}
    for name in dict.fromkeys(row["name"] for row in request["rows"]):
        classes[name], trainers[name] = _inspect_trainer(name, request["fetch"])
    pairs = {}
    for dataset, key in request["pairs"]:
        if classes[rows[key]["name"]] is not None:
            pairs[f"{dataset} {key}"] = _inspect_pair(classes[rows[key]["name"]], dataset, rows[key], request)
    return {"problems": _libraries(), "hardware": hardware(), "trainers": trainers, "pairs": pairs}


def _libraries() -> list[str]:
    """What the evaluation at the end of every cell needs, and is an extra."""
    from swin_umamba_nnunet.evaluation.surfaces import INSTALL_LINE

    if importlib.util.find_spec("surface_distance") is None:
        return [f"the evaluation needs surface-distance, which is not installed; get it with   {INSTALL_LINE}"]
    return []


def hardware() -> dict[str, Any]:
    """This machine."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "gpus": gpus if torch.cuda.is_available() else [],
        "cuda": torch.version.cuda,
        "mps": torch.backends.mps.is_available(),
    }


def _inspect_trainer(name: str, fetch: bool) -> tuple[Any, dict[str, Any]]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from swin_umamba_nnunet.trainers.finding import find_trainer

    try:
        trainer = find_trainer(name)
    except Exception as error:  # noqa: BLE001 (a user's module may raise anything when it is imported)
        close = _closest(name)
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return None, {"problems": [f"trainer {name}: {said}{close}"]}
    own = [what for method, what in PROTOCOL_METHODS.items() if not _same(trainer, nnUNetTrainer, method)]
    weights, problems = _weights(trainer, fetch)
    return trainer, {
        "problems": problems,
        "module": trainer.__module__,
        "ancestors": [f"{each.__module__}.{each.__name__}" for each in inspect.getmro(trainer)],
        "file_sha256": _file_sha256(trainer),
        "weights": weights,
        "own_protocol": list(dict.fromkeys(own)),
        "stock_network": _same(trainer, nnUNetTrainer, "build_network_architecture"),
    }


def _file_sha256(trainer: type) -> str | None:
    """Of the file of a user's trainer; None for nnU-Net's and this package's, whose versions are recorded."""
    # not inspect.getsourcefile: nnU-Net forgets the modules of these folders after it has looked into them
    relative = trainer.__module__.replace(".", "/") + ".py"
    for folder in os.environ.get(_autoregister.VARIABLE, "").split(os.pathsep):
        if folder and Path(folder, relative).is_file():
            return sha256(Path(folder, relative))
    return None


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name, catalogue.trainer_names(), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _same(trainer: type, stock: type, method: str) -> bool:
    """Whether a trainer's method is nnU-Net's; how loaders end when a worker dies is no other way of loading."""
    from swin_umamba_nnunet.trainers._loaders import EndingLoaders

    definitions = (vars(each)[method] for each in trainer.__mro__ if method in vars(each) and each is not EndingLoaders)
    return next(definitions) is inspect.getattr_static(stock, method)


def _weights(trainer: Any, fetch: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """The ImageNet weights a trainer starts from, and what is wrong with them."""
    name = getattr(trainer, "imagenet_weights", None)
    if name is None:
        return None, []
    from swin_umamba_nnunet import pretrained

    try:
        if fetch or pretrained.find_weights(pretrained.get_record(name)) is not None:
            found = pretrained.ensure_weights(name, scratch_trainer=getattr(trainer, "scratch_trainer", None) or None)
            return {"name": name, "path": str(found.path), "sha256": found.sha256}, []
    except (pretrained.WeightsError, ValueError) as error:
        return {"name": name, "sha256": None}, [f"trainer {trainer.__name__}: {error}"]
    return {"name": name, "sha256": None}, []


def _inspect_pair(
    trainer_class: Any, dataset: str, row: Mapping[str, str], request: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        with trainer_of(trainer_class, dataset, row, _device(request.get("device", "cpu"))) as trainer:
            answer = _recipe(trainer)
            if request["fetch"] or (Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json").is_file():
                answer["split"] = _split_differences(trainer, [fold for fold in request["folds"] if fold != "all"])
    except Exception as error:  # noqa: BLE001 (whatever a trainer raises about these plans is the answer)
        return {"problems": [f"{dataset}, {row['key']}: {type(error).__name__}: {error}"]}
    if request.get("cost"):
        answer["cost"], answer["cost_error"] = _cost(trainer_class, dataset, row)
    return {"problems": [], **answer}


def _device(wanted: str) -> str:
    """Where the trainer will run, so that it can say whether it can; the CPU if that device is not here."""
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if wanted == "mps" and torch.backends.mps.is_available() else "cpu"


@contextlib.contextmanager
def trainer_of(trainer_class: Any, dataset: str, row: Mapping[str, str], device: str = "cpu") -> Iterator[Any]:
    """The trainer object as nnUNetv2_train would make it, with results in a folder that is deleted again."""
    import torch

    base = Path(os.environ[PREPROCESSED], dataset)
    plans = {**json.loads((base / f"{row['plans']}.json").read_text()), "continue_training": False}
    description = json.loads((base / "dataset.json").read_text())
    before = os.environ.get(RESULTS)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ[RESULTS] = folder
        try:
            yield trainer_class(
                plans=plans, configuration=row["configuration"], fold=0, dataset_json=description,
                device=torch.device(device),
            )  # fmt: skip
        finally:
            if before is None:
                del os.environ[RESULTS]
            else:
                os.environ[RESULTS] = before


def _recipe(trainer: Any) -> dict[str, Any]:
    mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3]
    return {
        "epochs": trainer.num_epochs,
        "iterations_per_epoch": trainer.num_iterations_per_epoch,
        "validation_iterations_per_epoch": trainer.num_val_iterations_per_epoch,
        "batch_size": trainer.configuration_manager.batch_size,
        "patch_size": plain(list(trainer.configuration_manager.patch_size)),
        "mirroring_axes": plain(mirror_axes),
        "deep_supervision": trainer.enable_deep_supervision,
        "network_class": trainer.configuration_manager.configuration.get("architecture", {}).get("network_class_name"),
    }


def _split_differences(trainer: Any, folds: Sequence[int]) -> list[int]:
    """Folds of which the trainer has its own idea; nnU-Net writes splits_final.json here if there is none."""
    own = []
    for fold in folds:
        trainer.fold = fold
        train, validation = trainer.do_split()
        splits = read_json(Path(trainer.preprocessed_dataset_folder_base, "splits_final.json")) or []
        stock = splits[fold] if fold < len(splits) else {"train": train, "val": validation}
        if (sorted(train), sorted(validation)) != (sorted(stock["train"]), sorted(stock["val"])):
            own.append(fold)
    return own


def _cost(trainer_class: Any, dataset: str, row: Mapping[str, str]) -> tuple[dict[str, Any] | None, str | None]:
    try:
        from swin_umamba_nnunet.cost.tasks import describe_trainer, task_of_dataset

        task = task_of_dataset(dataset, row["plans"], row["configuration"])
        return describe_trainer(trainer_class, task, task.batch_size).to_dict(), None
    except Exception as error:  # noqa: BLE001 (a cost that cannot be counted stops no benchmark)
        return None, f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the request, write the answer."""
    request, answer = map(Path, sys.argv[1:] if arguments is None else arguments)
    end_with_parent()
    write_json(answer, inspect_rows(read_json(request)))


if __name__ == "__main__":
    main()
