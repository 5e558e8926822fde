"""Prediction in one call, for programs: nnU-Net's own predictor with its own settings."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.models.checkpoints import ModelError


def load_predictor(
    model: str | os.PathLike,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str | torch.device | None = None,
    mirroring: bool = True,
) -> nnUNetPredictor:
    """nnU-Net's predictor with a model in it.

    Args:
        model: folder with plans.json, dataset.json and fold_*/, as nnU-Net's training leaves it.
        folds: whose networks are averaged; None for all numbered ones, or for fold "all" where it is the only one.
        checkpoint: file name in each fold.
        device: None for "cuda" where there is one, else "cpu".
        mirroring: average over mirrored images too, where the training mirrored.

    Raises:
        ModelError: no such model.
    """
    folder = Path(model)
    found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
    numbered = [fold for fold in found if fold != "all"]  # as nnU-Net: "all" has seen every fold's validation cases
    wanted = (numbered or found) if folds is None else [str(fold) for fold in folds]
    absent = [name for name in ("plans.json", "dataset.json") if not (folder / name).is_file()]
    absent += [f"fold_{fold}/{checkpoint}" for fold in wanted if fold not in found] or ([] if found else ["fold_*/"])
    if absent:
        raise ModelError(f"{folder} is no model folder, or not complete: it lacks {', '.join(absent)}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    predictor = nnUNetPredictor(
        use_mirroring=mirroring, perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False
    )
    _autoregister.register()  # a program may have set nnUNet_extTrainer itself, or run without the start-up line
    use = tuple(int(fold) if fold.isdigit() else fold for fold in wanted)
    predictor.initialize_from_trained_model_folder(str(folder), use, checkpoint)
    return predictor


def predict(
    model: str | os.PathLike,
    images: str | os.PathLike,
    output: str | os.PathLike,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str | torch.device | None = None,
    mirroring: bool = True,
) -> list[Path]:
    """Segment a folder of images in nnU-Net's naming (CASE_0000.nii.gz, ...); what is there already is written anew.

    Works in this process alone, which suits notebooks and services; for many images nnUNetv2_predict is faster.

    Args:
        model, folds, checkpoint, device, mirroring: see `load_predictor`.
        images: folder of images.
        output: folder of segmentations; created.

    Returns:
        The segmentation files.

    Raises:
        ModelError: no such model, or no images in its file format.
    """
    predictor = load_predictor(model, folds=folds, checkpoint=checkpoint, device=device, mirroring=mirroring)
    ending = predictor.dataset_json["file_ending"]
    cases = sorted({path.name[: -len(f"_0000{ending}")] for path in Path(images).glob(f"*_0000{ending}")})
    if not cases:
        raise ModelError(f"{images} has no images named CASE_0000{ending}, which this model is for")
    Path(output).mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(str(images), str(output), overwrite=True)
    return [Path(output) / f"{case}{ending}" for case in cases]
