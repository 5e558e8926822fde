"""Prediction in one call: images as they are, nnU-Net's settings, fewer calls of the network where that is faster."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_umamba_nnunet import __version__, _autoregister
from swin_umamba_nnunet._atomic import write_json
from swin_umamba_nnunet._text import by, duration, listed, plural
from swin_umamba_nnunet.datasets import ConversionError
from swin_umamba_nnunet.datasets._files import list_files
from swin_umamba_nnunet.datasets._model import CaseError, Findings
from swin_umamba_nnunet.evaluation import read_dataset_json
from swin_umamba_nnunet.models.checkpoints import ModelError, read_json, read_segmentation_checkpoint
from swin_umamba_nnunet.models.fast_predictor import FastPredictor
from swin_umamba_nnunet.models.scans import Scan, Scans
from swin_umamba_nnunet.pretrained.checkpoint import require_checkpoint_file
from swin_umamba_nnunet.pretrained.registry import CheckpointError
from swin_umamba_nnunet.trainers.finding import quiet_search

logger = logging.getLogger(__name__)

RECORD = "prediction.json"  # beside the masks


def load_predictor(
    model: str | os.PathLike,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str | torch.device | None = None,
    mirroring: bool = True,
    images_per_call: int | None = None,
) -> FastPredictor:
    """nnU-Net's predictor with a model in it.

    Args:
        model: folder with plans.json, dataset.json and fold_*/, as nnU-Net's training leaves it.
        folds: whose networks are averaged; None for all numbered ones, or for fold "all" where it is the only one.
        checkpoint: file name in each fold.
        device: None for "cuda" where there is one, else "cpu".
        mirroring: average over mirrored images too, where the training mirrored.
        images_per_call: mirrored copies and slices that go through the network together; 1 is nnU-Net's own way, None
            chooses (8 on CUDA, fewer of more than 512x512 pixels, halved when memory runs out; 1 elsewhere).

    Raises:
        ModelError: no such model, or a setting that is not understood.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise ModelError(f"PyTorch finds no {device.type} here; `swin-umamba doctor` says why, and --device cpu works")
    with quiet_search():  # it tells of settings made already, too
        predictor = FastPredictor(
            use_mirroring=mirroring,
            perform_everything_on_device=device.type == "cuda",
            device=device,
            allow_tqdm=False,
            images_per_call=images_per_call,
        )
    folder = Path(model)
    begun = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    found = [fold for fold in begun if (folder / f"fold_{fold}" / checkpoint).is_file()]
    numbered = [fold for fold in found if fold != "all"]  # as nnU-Net: "all" has seen every fold's validation cases
    wanted = (numbered or found) if folds is None else [str(fold) for fold in folds]
    absent = [name for name in ("plans.json", "dataset.json") if not (folder / name).is_file()]
    untrained = [fold for fold in wanted or begun or ["0"] if fold not in found]
    absent += [f"fold_{fold}/{checkpoint}" for fold in untrained]
    if absent:
        remedy = "".join(_how_to_train(folder, fold) for fold in untrained[:1])
        raise ModelError(f"{folder} is no model folder, or not complete: it lacks {', '.join(absent)}{remedy}")
    _autoregister.register()  # a program may have set nnUNet_extTrainer itself, or run without the start-up line
    predictor.checkpoints = [folder / f"fold_{fold}" / checkpoint for fold in wanted]
    use = tuple(int(fold) if fold.isdigit() else fold for fold in wanted)
    for name in ("plans.json", "dataset.json"):
        read_json(folder / name)  # nnU-Net has no sentence for what is no JSON
    try:
        with quiet_search():
            predictor.initialize_from_trained_model_folder(str(folder), use, checkpoint)
    except Exception as error:  # plans and checkpoint are files: nnU-Net stumbles over whatever is in them
        _explain(error, folder, predictor.checkpoints)
        raise
    if stage := predictor.configuration_manager.previous_stage_name:
        raise ModelError(f"{folder} goes on from masks of {stage}: nnUNetv2_predict -prev_stage_predictions takes them")
    return predictor


def _how_to_train(folder: Path, fold: str) -> str:
    """What to do about a fold without the checkpoint, as far as the names of folders and files tell."""
    trainer, *how = folder.resolve().name.split("__")
    if len(how) != 2:
        return "; expected what a training makes, nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"
    plans = f" -p {how[0]}" * (how[0] != "nnUNetPlans")
    dataset = folder.resolve().parent.name
    dataset = dataset if dataset.startswith("Dataset") else "DATASET"  # of a folder that was moved
    device = " -device cpu" * (not torch.cuda.is_available())
    command = f"nnUNetv2_train {dataset} {how[1]} {fold} -tr {trainer}{plans}{device}"
    final, *others = (f"checkpoint_{which}.pth" for which in ("final", "latest", "best"))
    there = [name for name in (final, *others) if (folder / f"fold_{fold}" / name).is_file()]
    if not there:
        return f"; train first:   {command}"
    finish = f"finish its training with   {command} --c   or " * (final not in there)
    return f"; {finish}predict with what there is: --checkpoint {there[0]}"


def _explain(error: Exception, folder: Path, checkpoints: Sequence[Path]) -> None:
    """Raise a sentence about a model that nnU-Net could not load; nothing where it is not the files' fault."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError | ImportError):
        return
    for path in checkpoints:
        try:
            require_checkpoint_file(path)
        except CheckpointError as damage:
            raise ModelError(f"{path} {damage}") from error
        try:
            name = read_segmentation_checkpoint(path).get("trainer_name")
        except ModelError:  # nnU-Net reads more than weights
            continue
        if not isinstance(name, str):
            raise ModelError(f"{path} names its trainer by a {type(name).__name__}, expected a string") from error
    said = (str(error).splitlines() or ["no details"])[0]
    raise ModelError(f"{folder} holds no model that nnU-Net can load ({type(error).__name__}: {said})") from error


class IncompleteError(ModelError):
    """Some of several images could not be predicted; the masks of the others are there."""

    exit_code = 1


def predict(
    model: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    channels: Mapping[str, str | os.PathLike] | None = None,
    overwrite: bool = True,
    overlay: bool = False,
    say: Callable[[str], None] = logger.info,
    progress: bool = False,
    **settings: Any,
) -> list[Path]:
    """Segment images as they are: pictures, volumes, DICOM series, under any name; the voxels are nnUNetv2_predict's.

    Works in this process alone, which suits notebooks and services: images are read, prepared and written one after
    the other, which nnUNetv2_predict does beside the network's work.

    Each mask has its image's name and geometry: PNG for pictures, for volumes the image's own format or .nii.gz.  It
    appears when it is complete.  prediction.json beside the masks says what the values mean and which networks have
    made them; dataset.json is the model's, for `evaluate` and `overlay`.

    Args:
        model: see `load_predictor`.
        images: a file, a folder of images, a folder with a DICOM series, or several of these; in a folder, files
            CASE_0000, CASE_0001, ... are the channels of one case, as in nnU-Net's format.
        output: folder of segmentations; created.
        channels: for a model of several channels, name or number of each -> its file, or a pattern such as "*/t1.nii"
            in the folder `images`: what `*` stands for tells which files belong together.  `images` may be empty then.
        overwrite: write masks anew that are there already; False leaves those images out, to continue.
        overlay: draw the masks on their images too, into `output`/overlay.
        say: what is told to the user goes there, line by line.
        progress: show a bar over the windows of each image.
        **settings: of `load_predictor`: folds, checkpoint, device, mirroring, images_per_call.

    Returns:
        The segmentation files, those of a run before included.

    Raises:
        ModelError: no such model or images, an image that the model cannot be meant for, an output that does not fit.
        IncompleteError: the same of some of several images; the others are predicted first.
        OSError: a mask cannot be written; those before are there.
    """
    output = Path(output)
    sources = [Path(path) for path in ([images] if isinstance(images, str | os.PathLike) else images)]
    parent = next(path for path in (output, *output.absolute().parents) if os.path.lexists(path))
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ModelError(f"{output} cannot be written: {parent} is no folder that may be; name another with -o")
    predictor = load_predictor(model, **settings)
    predictor.allow_tqdm = progress
    scans = Scans(predictor, Path(model))
    try:
        cases = scans.find(sources, channels or {})
    except ConversionError as error:
        raise ModelError(str(error)) from error
    masks = [output / scans.mask_name(case) for case in cases]
    pictures = [output / "overlay" / f"{case.name}.png" for case in cases]
    places = {place.resolve() for case in cases for path in case.images for place in (path, path.parent)}
    if output.resolve() in places:
        raise ModelError(f"{output} is where the images are, whose names the masks get: name another folder with -o")
    record = _record(predictor)
    _require_own(output, [*masks, *pictures], record, overwrite, scans.endings)
    done = [mask.exists() and not overwrite for mask in masks]
    there = f", {sum(done)} of them there already" if any(done) else ""
    left = [
        (case, mask, picture, predicted)
        for case, mask, picture, predicted in zip(cases, masks, pictures, done)
        if not predicted or (overlay and not picture.exists())
    ]
    networks = plural(len(predictor.checkpoints), "network")
    say(f"{predictor.trainer_name}, {networks}, on {predictor.device.type}: {plural(len(cases), 'image')}{there}")
    failed: dict[str, str] = {}
    for number, (case, mask, picture, predicted) in enumerate(left, 1):
        began, findings, head = time.monotonic(), Findings(), f"[{number}/{len(left)}] {case.name}"
        try:
            scan = scans.read(case, findings)
            slices, *size = scan.data.shape[1:]
            kind = f"{by(size)} pixels" if slices == 1 else f"{slices} slices of {by(size)} voxels"
            say(f"{head}: {kind}")
            for finding in findings:
                say(f"    {finding.topic}" + f" ({finding.detail})" * bool(finding.detail))
            if predicted:
                found = scans.read_mask(case, mask)
            else:
                found = predictor.predict_single_npy_array(scan.data, scan.properties)
                picture.unlink(missing_ok=True)  # of a mask that was here before
                _write(scan, found, mask, record, predictor.dataset_json)
            if overlay:
                _draw(case.name, scan, found, Path(model), picture)
            say(f"    {picture if predicted else mask} ({duration(time.monotonic() - began)})")
        except OSError:  # a disk that is full will not take the next mask either
            raise
        except Exception as error:  # whatever libraries make of one image: the others are predicted all the same
            told = isinstance(error, ModelError | CaseError | MemoryError | torch.cuda.OutOfMemoryError)
            why = str(error) or "there is too little memory for it"
            failed[case.name] = why if told else f"{case.images[0]} ended in {type(error).__name__}: {why}"
            logger.log(logging.INFO if told else logging.ERROR, "%s", case.name, exc_info=error)
            if len(left) == 1:
                raise ModelError(failed[case.name]) from error
            say(f"{head} failed: {failed[case.name]}")
    if failed:
        others = f"; the masks of the others are in {output}" * any(mask.exists() for mask in masks)
        raise IncompleteError(
            f"{len(failed)} of {plural(len(left), 'image')} could not be predicted ({listed(failed)}){others}"
        )
    return masks


def _record(predictor: FastPredictor) -> dict[str, Any]:
    """What prediction.json says: mask values with their names, and what has made the masks."""
    dataset = predictor.dataset_json
    names = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    if order := predictor.label_manager.has_regions and dataset["regions_class_order"]:
        regions = [name for name, value in names.items() if value not in (0, [0])]
        names = {"background": 0} | dict(zip(regions, order))
    return {
        "labels": {str(value): name for name, value in names.items()},
        "checkpoints": [str(path.resolve()) for path in predictor.checkpoints],
        "trainer": predictor.trainer_name,
        "mirroring": bool(predictor.use_mirroring),
        "version": f"swin_umamba_nnunet {__version__}",
    }


def _require_own(
    output: Path, files: Sequence[Path], record: dict[str, Any], overwrite: bool, endings: tuple[str, ...]
) -> None:
    """Refuse an output folder in which somebody else's files would be replaced, or another model's masks continued.

    Another model's masks and pictures that are to be written anew (`files`) are removed; of other images there may be
    none (files with one of the `endings`), as prediction.json is going to say who has made what lies beside it.

    Raises:
        ModelError: naming the file.
    """
    file = output / RECORD
    before = read_json(file) if file.is_file() else None
    foreign = next((path for path in (*files, output / "dataset.json") if path.exists()), None)
    if before is None and foreign is not None:
        raise ModelError(f"{foreign} is there and no {RECORD} beside it, so it was not predicted here: name another -o")
    if before is None or before | {"version": ""} == record | {"version": ""}:
        return
    if not overwrite:
        raise ModelError(
            f"{file} says that the masks there are of {listed(before.get('checkpoints', []))}, mirroring "
            f"{before.get('mirroring')}; continue with these, write all anew (without --continue), or name another -o"
        )
    if others := sorted({*list_files(output, endings, "*")} - {*files}):
        raise ModelError(
            f"{listed(others)} would stay, and {file} says that other networks or settings have made what is there: "
            "move it away, or name another -o"
        )
    for path in files:  # or, interrupted and continued, those of the former model would pass for this one's
        path.unlink(missing_ok=True)


def _write(scan: Scan, found: np.ndarray, mask: Path, record: dict[str, Any], dataset: dict[str, Any]) -> None:
    """Write a mask, complete or not at all, and what explains it before it."""
    mask.parent.mkdir(parents=True, exist_ok=True)
    plain = {key: value for key, value in dataset.items() if key != "overwrite_image_reader_writer"}
    for name, content in ((RECORD, record), ("dataset.json", plain)):
        write_json(mask.with_name(name), content)
    with tempfile.TemporaryDirectory(prefix=".", dir=mask.parent) as beside:
        scan.write(found, Path(beside) / mask.name)
        for file in Path(beside).iterdir():  # nnU-Net's writer of 3D TIFF adds one
            file.replace(mask.with_name(file.name))


def _draw(name: str, scan: Scan, found: np.ndarray, model: Path, picture: Path) -> None:
    """Draw a mask on its image: PNG, the fullest and the median slice of a volume."""
    from swin_umamba_nnunet.pictures.looks import look_at
    from swin_umamba_nnunet.pictures.overlay import draw_case

    labels = read_dataset_json(model / "dataset.json")
    picture.parent.mkdir(exist_ok=True)
    draw_case(look_at(name, scan.shown, None, found, labels), labels.classes, picture)
