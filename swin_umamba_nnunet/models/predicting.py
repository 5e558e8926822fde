"""Prediction in one call, for programs: nnU-Net's own settings, in fewer calls of the network where that is faster."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet._volume_files import VolumeFileError, read_header
from swin_umamba_nnunet.models.checkpoints import ModelError, channel_names, read_json, read_segmentation_checkpoint
from swin_umamba_nnunet.models.fast_predictor import FastPredictor
from swin_umamba_nnunet.pretrained.checkpoint import require_checkpoint_file
from swin_umamba_nnunet.pretrained.registry import CheckpointError


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
    predictor = FastPredictor(
        use_mirroring=mirroring,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
        images_per_call=images_per_call,
    )
    folder = Path(model)
    found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
    numbered = [fold for fold in found if fold != "all"]  # as nnU-Net: "all" has seen every fold's validation cases
    wanted = (numbered or found) if folds is None else [str(fold) for fold in folds]
    absent = [name for name in ("plans.json", "dataset.json") if not (folder / name).is_file()]
    absent += [f"fold_{fold}/{checkpoint}" for fold in wanted if fold not in found] or ([] if found else ["fold_*/"])
    if absent:
        raise ModelError(f"{folder} is no model folder, or not complete: it lacks {', '.join(absent)}")
    _autoregister.register()  # a program may have set nnUNet_extTrainer itself, or run without the start-up line
    use = tuple(int(fold) if fold.isdigit() else fold for fold in wanted)
    for name in ("plans.json", "dataset.json"):
        read_json(folder / name)  # nnU-Net has no sentence for what is no JSON
    try:
        predictor.initialize_from_trained_model_folder(str(folder), use, checkpoint)
    except Exception as error:  # plans and checkpoint are files: nnU-Net stumbles over whatever is in them
        _explain(error, folder, [folder / f"fold_{fold}" / checkpoint for fold in wanted])
        raise
    return predictor


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


def _require_channels(predictor: FastPredictor, images: Path, case: str, ending: str) -> None:
    """Refuse a case of other channels than the model's as far as that shows without reading volumes twice."""
    files = sorted(images.glob(f"{glob.escape(case)}_[0-9][0-9][0-9][0-9]{ending}"))
    reader = predictor.plans_manager.image_reader_writer_class
    names = channel_names(predictor.dataset_json)
    if len(files) > len(names):  # a file has one channel at least
        found = len(files)
    elif issubclass(reader, SimpleITKIO):
        found = sum(map(_channels_in, files))
        if found == len(names) > len(files) and reader.write_seg is SimpleITKIO.write_seg:
            raise ModelError(
                f"{files[0]} has four axes: nnU-Net reads such a file as {found} channels, but cannot write its "
                f"segmentation; save each channel as a file of its own, {case}_0000{ending} and so on"
            )
    elif issubclass(reader, NaturalImage2DIO) or len(files) < len(names):  # RGB: several channels in a file
        try:
            found = len(reader().read_images([str(path) for path in files])[0])
        except Exception as error:  # whatever the picture library says of a damaged file
            raise ModelError(f"{files[0]} cannot be read as an image ({type(error).__name__}: {error})") from error
    else:
        found = len(files)
    predictor.require_channels(found, f"{case} ({', '.join(path.name for path in files)}) in {images}")


def _channels_in(path: Path) -> int:
    """As nnU-Net's SimpleITKIO counts them: the outermost of four axes, else one."""
    try:
        header = read_header(path)
    except VolumeFileError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return header.shape[0] if header is not None and len(header.shape) == 4 else 1


def predict(
    model: str | os.PathLike,
    images: str | os.PathLike,
    output: str | os.PathLike,
    **settings: Any,
) -> list[Path]:
    """Segment a folder of images in nnU-Net's naming (CASE_0000.nii.gz, ...); what is there already is written anew.

    Works in this process alone, which suits notebooks and services: images are read, prepared and written one after
    the other, which nnUNetv2_predict does beside the network's work.

    Args:
        model: see `load_predictor`.
        images: folder of images.
        output: folder of segmentations; created.
        **settings: of `load_predictor`: folds, checkpoint, device, mirroring, images_per_call.

    Returns:
        The segmentation files.

    Raises:
        ModelError: no such model, no images in its file format, or images of other channels.
    """
    predictor = load_predictor(model, **settings)
    ending = predictor.dataset_json["file_ending"]
    cases = sorted({path.name[: -len(f"_0000{ending}")] for path in Path(images).glob(f"*_0000{ending}")})
    if not cases:
        raise ModelError(f"{images} has no images named CASE_0000{ending}, which this model is for")
    for case in cases:
        _require_channels(predictor, Path(images), case, ending)
    Path(output).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(str(images), str(output), overwrite=True)
    return [Path(output) / f"{case}{ending}" for case in cases]
