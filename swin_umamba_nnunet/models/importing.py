"""The authors' released segmentation models as model folders that stock nnU-Net predicts with.

Their networks are recognised by the names of their tensors, never by file names.  What is written is a folder with
plans.json in the present format, dataset.json and one checkpoint per fold under this package's names; nothing in it
needs the authors' code.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swin_umamba_nnunet._atomic import write_json
from swin_umamba_nnunet.models.building import build_on_meta, modern_plans, trainer_called
from swin_umamba_nnunet.models.checkpoints import (
    ModelError,
    new_model_folder,
    read_json,
    read_segmentation_checkpoint,
    require_fit,
    save_checkpoint,
)
from swin_umamba_nnunet.pretrained import remap_authors_state_dict

TRAINER_OF_NETWORK = {
    "swin_umamba": "nnUNetTrainerSwinUMamba",
    "swin_umamba_d": "nnUNetTrainerSwinUMambaD",
    "vm_unet": "nnUNetTrainerVMUNet",
    "umamba_bot": "nnUNetTrainerUMambaBot",
    "umamba_enc": "nnUNetTrainerUMambaEnc",
    "umamba_bot_2024_01": "nnUNetTrainerUMambaBotPaper",
    "umamba_enc_2024_01": "nnUNetTrainerUMambaEncPaper",
}
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_FOLD = re.compile(r"fold_(\d+|all)")  # nnU-Net predicts with no others, such as copies called "fold_0 (1)"


@dataclass(frozen=True)
class ImportReport:
    """What an import found and decided.

    Attributes:
        output: the model folder.
        network: as recognised by its tensors.
        trainer: this package's, which the model is predicted with.
        their_trainer: name in the files, None in bare weights.
        configuration: of the plans.
        folds: file read and file written, per fold.
        tensors: how many were taken over, per fold.
        dropped: how many of the file were not: further names of the same tensor, and counters.
        remarks: what the user has to know.
    """

    output: Path
    network: str
    trainer: str
    their_trainer: str | None
    configuration: str
    folds: tuple[tuple[Path, Path], ...]
    tensors: int
    dropped: int
    remarks: tuple[str, ...]


def recognise(weights: Mapping[str, Tensor], source: str) -> tuple[str, dict[str, Tensor]]:
    """Which of the authors' networks these weights are of, and the weights under our names.

    Raises:
        ModelError: none of them, or already one of this package's.
    """
    found: list[tuple[str, dict[str, Tensor]]] = []
    for network in TRAINER_OF_NETWORK:
        try:
            found.append((network, remap_authors_state_dict(network, weights)))
        except ValueError:
            continue
    if len(found) == 1:
        return found[0]
    first = ", ".join(list(weights)[:3])
    if found:
        raise ModelError(f"{source} fits several networks: {', '.join(network for network, _ in found)}")
    raise ModelError(
        f"{source} holds the weights of none of the networks this can import ({', '.join(TRAINER_OF_NETWORK)}); its "
        f"tensors start with {first}, ... A model trained with this package needs no import"
    )


def import_model(
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    plans: str | os.PathLike | None = None,
    dataset_json: str | os.PathLike | None = None,
    configuration: str | None = None,
) -> ImportReport:
    """Make a model folder of a released one.

    Args:
        source: the authors' model folder (plans.json, dataset.json, fold_*/checkpoint_*.pth), one checkpoint in it, or
            bare weights (VM-UNet).
        output: folder to write, which must not exist.
        plans, dataset_json: files to use instead of those beside the weights; bare weights need them.
        configuration: name in the plans; by default what the checkpoint says, or "2d" for bare weights.

    Raises:
        ModelError: something is missing, of another network, or does not fit the plans; nothing is left behind.
    """
    source, target = Path(source), Path(output)
    folder, files = _find(source)
    plans_file = _companion(plans, folder / "plans.json", "plans", source)
    dataset_file = _companion(dataset_json, folder / "dataset.json", "dataset-json", source)
    new_plans, dataset = modern_plans(read_json(plans_file), str(plans_file)), read_json(dataset_file)
    with new_model_folder(target) as unfinished:
        found = []
        for fold, file in files.items():
            checkpoint, facts = _translated(file, fold.removeprefix("fold_"), new_plans, dataset, configuration)
            save_checkpoint(checkpoint, unfinished / fold / CHECKPOINTS[0])
            found.append(facts)
            if facts[:3] != found[0][:3]:
                raise ModelError(f"the folds of {source} are of different networks: {found[0][:3]} and {facts[:3]}")
        for name, content in (("plans.json", new_plans), ("dataset.json", dataset)):
            write_json(unfinished / name, content)
        if (fingerprint := folder / "dataset_fingerprint.json").is_file():
            shutil.copyfile(fingerprint, unfinished / fingerprint.name)
    network, their_trainer, used, tensors, dropped = found[0]
    return ImportReport(
        target,
        network,
        TRAINER_OF_NETWORK[network],
        their_trainer,
        used,
        tuple((file, target / fold / CHECKPOINTS[0]) for fold, file in files.items()),
        tensors,
        dropped,
        _remarks(network, files),
    )


def _find(source: Path) -> tuple[Path, dict[str, Path]]:
    """The folder plans are looked for in, and the checkpoint of each fold by the name of the fold's folder."""
    if source.is_file():
        in_fold = _FOLD.fullmatch(source.parent.name)
        folder = source.parent.parent if in_fold else source.parent
        return folder, {source.parent.name if in_fold else "fold_0": source}
    if not source.is_dir():
        raise ModelError(f"{source} does not exist")
    files = {}
    for fold in sorted(source.glob("fold_*")):
        there = [fold / name for name in CHECKPOINTS if (fold / name).is_file()]
        if there and _FOLD.fullmatch(fold.name):
            files[fold.name] = there[0]
    if not files:
        raise ModelError(
            f"{source} is no model folder: expected fold_0/checkpoint_final.pth (or fold_1, ..., fold_all) in it, "
            "beside plans.json and dataset.json"
        )
    return source, files


def _companion(given: str | os.PathLike | None, beside: Path, option: str, source: Path) -> Path:
    path = beside if given is None else Path(given)
    if not path.is_file():
        where = "is no file" if given is not None else f"is not there, and {source} alone does not describe a model"
        raise ModelError(f"{path} {where}; name the file with --{option} FILE")
    return path


def _translated(
    file: Path, fold: str, plans: dict, dataset: dict, configuration: str | None
) -> tuple[dict, tuple[str, str | None, str, int, int]]:
    """Our checkpoint of theirs; network, their trainer, configuration, numbers of tensors taken over and left out."""
    content = read_segmentation_checkpoint(file)
    network, weights = recognise(content["network_weights"], str(file))
    arguments = content.get("init_args", {"configuration": "2d"})
    if not isinstance(arguments, Mapping):
        raise ModelError(f"{file} holds a {type(arguments).__name__} as its init_args, expected nnU-Net's dictionary")
    configuration = configuration or arguments.get("configuration")
    if not isinstance(configuration, str):
        raise ModelError(f"{file} does not say which configuration it is for; name it: -c 2d")
    their_trainer, axes = content.get("trainer_name"), content.get("inference_allowed_mirroring_axes")
    if not (their_trainer is None or isinstance(their_trainer, str)):
        raise ModelError(f"{file} names its trainer by a {type(their_trainer).__name__}, expected a string")
    if not (axes is None or isinstance(axes, list | tuple) and all(type(axis) is int for axis in axes)):
        raise ModelError(f"{file} holds {type(axes).__name__} as its mirroring axes, expected numbers of axes")
    trainer = TRAINER_OF_NETWORK[network]
    built = build_on_meta(trainer_called(trainer, str(file)), plans, configuration, dataset)
    require_fit(weights, built, file, dataset)
    checkpoint = {
        "network_weights": {key: weights[key] for key in built.state_dict()},
        "trainer_name": trainer,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": int(fold) if fold.isdigit() else fold,
            "dataset_json": dataset,
        },
        "inference_allowed_mirroring_axes": axes,
        "current_epoch": content.get("current_epoch", 0),
        "imported_from": {"file": str(file.absolute()), "network": network, "trainer": their_trainer},
    }
    dropped = len(content["network_weights"]) - len(weights)
    return checkpoint, (network, their_trainer, configuration, len(weights), dropped)


def _remarks(network: str, files: Mapping[str, Path]) -> tuple[str, ...]:
    remarks = []
    chosen = sorted({file.name for file in files.values()} - {CHECKPOINTS[0]})
    if chosen:
        remarks.append(f"Taken from {', '.join(chosen)} and written as {CHECKPOINTS[0]}, the name nnU-Net looks for.")
    if network == "vm_unet":
        remarks.append(
            "Images are prepared as the plans say. VM-UNet's authors resized them to 256x256 (ISIC) or 224x224 "
            "(Synapse) and normalised them their own way; results differ unless the plans do the same."
        )
    else:
        remarks.append("The papers' numbers were predicted without mirroring: add --disable_tta to the prediction.")
    return tuple(remarks)
