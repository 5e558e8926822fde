"""What the rows are, asked of nnU-Net and torch in a child process: trainers, weights, devices, splits, costs, and how
long an iteration takes.

    python -m swin_umamba_nnunet.benchmark.probe REQUEST.json ANSWER.json      which is what `process.ask` runs

The runner imports neither; and a trainer of a user's that fails to import takes only this child down.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.files import Record, read_json, write_json
from swin_umamba_nnunet.benchmark.process import end_with_parent
from swin_umamba_nnunet.benchmark.steps import peak_memory, processor_name, schedule_of

WARM_UP = 3  # iterations that do not count: in the first, code is compiled, kernels are chosen and memory is taken

# Methods that decide about the data a training sees and the loss it follows; rows that have their own are flagged.
PROTOCOL_METHODS = {
    "do_split": "the split",
    "get_training_transforms": "the augmentation",
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": "the augmentation",
    "get_dataloaders": "the data loading",
    "_build_loss": "the loss",
}


def inspect_rows(request: Record) -> Record:
    """Answer a request.

    Args:
        request: "rows": as `Row.to_dict` gives them; "pairs": list of [dataset, key of a row] whose plans exist;
            "folds"; "fetch": download missing weights and write missing splits; "cost": count FLOPs.

    Returns:
        "problems" of this installation; "hardware"; "trainers": {name: {"problems", "weights", "file_sha256", ...}};
        "pairs": {"DATASET key": {"problems", "epochs", ..., "cost"}}.
    """
    from swin_umamba_nnunet.evaluation.surfaces import INSTALL_LINE

    rows = {row.key: row for row in (Row(**given) for given in request["rows"])}
    classes, trainers = {}, {}
    for name in dict.fromkeys(row.name for row in rows.values()):
        classes[name], trainers[name] = _inspect_trainer(name, request["fetch"])
    pairs = {}
    for dataset, key in request["pairs"]:
        if classes[rows[key].name] is not None:
            pairs[f"{dataset} {key}"] = _inspect_pair(classes[rows[key].name], dataset, rows[key], request)
    problems = []
    if importlib.util.find_spec("surface_distance") is None:  # an extra, needed at the end of every run
        problems = [f"the evaluation needs surface-distance, which is not installed; get it with   {INSTALL_LINE}"]
    return {"problems": problems, "hardware": hardware(), "trainers": trainers, "pairs": pairs}


def hardware() -> Record:
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


def _inspect_trainer(name: str, fetch: bool) -> tuple[Any, Record]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from swin_umamba_nnunet.trainers.finding import find_trainer

    try:
        trainer = find_trainer(name)
    except ValueError as error:
        return None, {"problems": [f"trainer {name}: {error}"]}
    own = [what for method, what in PROTOCOL_METHODS.items() if not _same(trainer, nnUNetTrainer, method)]
    weights, problems = _weights(trainer, fetch)
    return trainer, {
        "problems": problems,
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
    files = (Path(folder, relative) for folder in _autoregister.users_folders())
    return next((hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()), None)


def _same(trainer: type, stock: type, method: str) -> bool:
    """Whether a trainer's method is nnU-Net's; how loaders end when a worker dies is no other way of loading."""
    from swin_umamba_nnunet.trainers._loaders import EndingLoaders

    definitions = (vars(each)[method] for each in trainer.__mro__ if method in vars(each) and each is not EndingLoaders)
    return next(definitions) is inspect.getattr_static(stock, method)


def _weights(trainer: Any, fetch: bool) -> tuple[Record | None, list[str]]:
    """The ImageNet weights a trainer starts from, and what is wrong with them."""
    name = getattr(trainer, "imagenet_weights", None)
    if name is None:
        return None, []
    from swin_umamba_nnunet import pretrained

    weights, problems = {"name": name, "sha256": None}, []
    try:
        if fetch or pretrained.find_weights(pretrained.get_record(name)) is not None:
            found = pretrained.ensure_weights(name, scratch_trainer=getattr(trainer, "scratch_trainer", None) or None)
            weights |= {"path": str(found.path), "sha256": found.sha256}
    except (pretrained.WeightsError, ValueError) as error:
        problems = [f"trainer {trainer.__name__}: {error}"]
    return weights, problems


def _inspect_pair(trainer_class: Any, dataset: str, row: Row, request: Record) -> Record:
    try:
        with trainer_of(trainer_class, dataset, row, _device(request.get("device", "cpu"))) as trainer:
            answer = {"problems": [], **_recipe(trainer)}
            if request["fetch"] or (Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json").is_file():
                answer["split"] = _split_differences(trainer, [fold for fold in request["folds"] if fold != "all"])
    except Exception as error:  # noqa: BLE001 (whatever a trainer raises about these plans is the answer)
        return {"problems": [f"{dataset}, {row.key}: {type(error).__name__}: {error}"]}
    if request.get("cost"):
        answer |= _cost(trainer_class, dataset, row)
    return answer


def _device(wanted: str) -> str:
    """Where the trainer will run, so that it can say whether it can; the CPU if that device is not here."""
    import torch

    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if wanted == "mps" and torch.backends.mps.is_available() else "cpu"


@contextlib.contextmanager
def trainer_of(trainer_class: Any, dataset: str, row: Row, device: str = "cpu") -> Iterator[Any]:
    """The trainer object as nnUNetv2_train would make it, with results in a folder that is deleted again."""
    import torch

    base = Path(os.environ["nnUNet_preprocessed"], dataset)  # noqa: SIM112 (nnU-Net's name)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.environ["nnUNet_results"] = folder  # noqa: SIM112
        yield trainer_class(
            plans={**read_json(base / f"{row.plans}.json"), "continue_training": False},
            configuration=row.configuration,
            fold=0,
            dataset_json=read_json(base / "dataset.json"),
            device=torch.device(device),
        )


def _recipe(trainer: Any) -> Record:
    return {
        **schedule_of(trainer),
        "mirroring_axes": trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3],
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


def _cost(trainer_class: Any, dataset: str, row: Row) -> Record:
    try:
        from swin_umamba_nnunet.cost.tasks import describe_trainer, task_of_dataset

        task = task_of_dataset(dataset, row.plans, row.configuration)
        return {"cost": describe_trainer(trainer_class, task, task.batch_size).to_dict()}
    except Exception as error:  # noqa: BLE001 (a cost that cannot be counted stops no benchmark)
        return {"cost_error": f"{type(error).__name__}: {error}"}


# ----------------------------------------------------------------------------------------- what iterations take


def time_iterations(request: Record) -> Record:
    """Seconds per training and per validation iteration, and the peak memory of both.

    The trainer's own network, loss and optimiser run at the planned batch and patch, on made-up images: loading and
    augmenting data is not in it.

    Args:
        request: "dataset": full name; "row": as in `inspect_rows`; "device": "cpu", "cuda" or
            "mps"; "iterations": how many are timed, after `WARM_UP`.
    """
    import torch

    from swin_umamba_nnunet.trainers.finding import find_trainer

    row, device, iterations = Row(**request["row"]), request["device"], request["iterations"]
    torch.set_num_threads((os.cpu_count() or 1) if device == "cpu" else 1)  # as nnUNetv2_train does
    with trainer_of(find_trainer(row.name), request["dataset"], row, device) as trainer:
        trainer.initialize()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        batch = _batch(trainer)
        trainer.network.train()
        training = _seconds(lambda: trainer.train_step(batch), iterations, device)
        trainer.network.eval()
        with torch.no_grad():
            validation = _seconds(lambda: trainer.validation_step(batch), iterations, device)
    seconds = {"seconds_per_iteration": training, "seconds_per_validation_iteration": validation}
    return {**seconds, **peak_memory(device)}


def _batch(trainer: Any) -> Record:
    """Noise with empty targets, in the shapes that nnU-Net's data loaders give."""
    import torch

    patch = trainer.configuration_manager.patch_size
    scales = trainer._get_deep_supervision_scales() or [[1] * len(patch)]
    labels = trainer.label_manager
    channels = len(labels.foreground_regions) + labels.has_ignore_label if labels.has_regions else 1
    dtype = torch.float32 if labels.has_regions else torch.int16
    targets = [
        torch.zeros(trainer.batch_size, channels, *(round(p * s) for p, s in zip(patch, scale)), dtype=dtype)
        for scale in scales
    ]
    return {
        "data": torch.randn(trainer.batch_size, trainer.num_input_channels, *patch),
        "target": targets if trainer.enable_deep_supervision else targets[0],
    }


def _seconds(step: Callable[[], Any], iterations: int, device: str) -> float:
    """Median over the iterations after the warm-up: what else the machine does should not count."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else bool
    seconds = []
    for _ in range(WARM_UP + iterations):
        wait()
        began = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the request, write the answer: of `time_iterations` if it names "iterations", else of `inspect_rows`."""
    asked, answered = map(Path, sys.argv[1:] if arguments is None else arguments)
    end_with_parent()
    request = read_json(asked)
    write_json(answered, time_iterations(request) if "iterations" in request else inspect_rows(request))


if __name__ == "__main__":
    main()
