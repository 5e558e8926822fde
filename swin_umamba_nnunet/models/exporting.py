"""A trained network as a file that needs neither this package nor nnU-Net: torch.export, and ONNX.

What is exported maps one preprocessed patch to logits.  Everything nnU-Net does around it (resampling, normalisation,
sliding window, mirroring, the way back) is not in the file; the JSON beside it says what that is.  The scan is exported
in its portable form, ordinary tensor operations, so both formats know every operation; it is much slower than ours.
"""

import hashlib
import inspect
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import write_json
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.models.checkpoints import ModelError, channel_names, new_model_folder, write_by
from swin_umamba_nnunet.models.predicting import load_predictor
from swin_umamba_nnunet.networks import set_backend

FORMATS = {"torch": "network.pt2", "onnx": "network.onnx"}
DESCRIPTION = "network.json"
MIN_TORCH = "2.5"  # 2.4 cannot export U-Mamba: regions in which autocast is switched off
INSTALL_LINE = install_line("export")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: of the files.
        files: by format.
        input_shape: (batch, channels, ...) in pixels; the batch is 1.
        largest_difference: between the exported network's logits and the original's on a random patch, relative to the
            largest logit, by format.
    """

    folder: Path
    files: dict[str, Path]
    input_shape: tuple[int, ...]
    largest_difference: dict[str, float]


def export_model(
    model: str | os.PathLike,
    output: str | os.PathLike,
    *,
    fold: int | str = 0,
    checkpoint: str = "checkpoint_final.pth",
    formats: tuple[str, ...] = ("torch",),
) -> Export:
    """Write one fold's network into the folder `output`, run what was written, and compare.

    Args:
        model: model folder of one of this package's trainers.
        output: folder to make; must not exist.
        fold, checkpoint: which weights.
        formats: out of `FORMATS`.

    Raises:
        ModelError: no such model, an unknown format, a PyTorch that is too old, a library that is not installed, or a
            file whose logits differ.
    """
    target = Path(output)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ModelError(f"there is no format {unknown[0]!r}; choose out of {', '.join(FORMATS)}")
    with new_model_folder(target) as unfinished:
        predictor = load_predictor(model, folds=(fold,), checkpoint=checkpoint, device="cpu")
        network = predictor.network.eval()
        channels = determine_num_input_channels(
            predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
        )
        torch.manual_seed(0)
        patch = torch.randn(1, channels, *predictor.configuration_manager.patch_size)
        with torch.no_grad():
            expected = network(patch)
        set_backend(network, "portable")
        program = _trace(network, patch)
        differences = {}
        for name in formats:
            found = _WRITERS[name](program, unfinished / FORMATS[name], patch)
            differences[name] = float((found - expected).abs().max() / expected.abs().max())
            if not differences[name] < 1e-3:
                raise ModelError(f"the {name} file gives other logits (relative difference {differences[name]:.2g})")
        description = describe_model(predictor, Path(model), fold, checkpoint)
        write_json(unfinished / DESCRIPTION, description)
    files = {name: target / FORMATS[name] for name in formats}
    return Export(target, files, tuple(patch.shape), differences)


def _trace(network: torch.nn.Module, patch: Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(network, (patch,), strict=False)
    except Exception as error:
        if torch.__version__ < MIN_TORCH:  # a TorchVersion, which compares as versions do
            raise ModelError(
                f"PyTorch {torch.__version__} cannot export this network ({type(error).__name__}); "
                f"PyTorch {MIN_TORCH} or newer can"
            ) from error
        raise


def describe_model(predictor: Any, model: Path, fold: int | str, checkpoint: str) -> dict[str, Any]:
    """What someone needs to know to run the network on images of their own."""
    plans, settings, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    labels = predictor.label_manager
    weights = np.memmap(model / f"fold_{fold}" / checkpoint, mode="r").data
    return {
        "what": "maps a preprocessed patch (1, channels, *patch_size) float32 to logits (1, heads, *patch_size)",
        "network": {
            "trainer": predictor.trainer_name,
            "fold": fold,
            "checkpoint": checkpoint,
            "checkpoint_sha256": hashlib.sha256(weights).hexdigest(),
            "made_with": {"swin_umamba_nnunet": __version__, "torch": torch.__version__},
        },
        "input": {"channel_names": channel_names(dataset), "patch_size_px": list(settings.patch_size)},
        "preprocessing": {
            "order": "transpose, crop to non-zero, normalise, resample",
            "transpose_forward": list(plans.transpose_forward),
            "spacing_mm": [float(each) for each in settings.spacing],
            "normalization_schemes": list(settings.normalization_schemes),
            "use_mask_for_norm": list(settings.use_mask_for_norm),
            "foreground_intensity_properties_per_channel": plans.foreground_intensity_properties_per_channel,
            "resampling_order_image": settings.configuration.get("resampling_fn_data_kwargs", {}).get("order"),
        },
        "sliding_window": {
            "step": 0.5,
            "weight": "Gaussian of sigma 1/8 of the patch",
            "mirroring_axes": list(predictor.allowed_mirroring_axes or ()),
        },
        "output": {
            "labels": dataset["labels"],
            "regions": labels.foreground_regions if labels.has_regions else None,  # tuples are lists in JSON
            "activation": "sigmoid per region, 0.5" if labels.has_regions else "softmax, the largest",
            "transpose_backward": list(plans.transpose_backward),
        },
        "file_ending": dataset["file_ending"],
    }


def _through_torch(program: Any, path: Path, patch: Tensor) -> Tensor:
    """Write the file; the logits that what was written gives of the patch."""
    write_by(partial(torch.export.save, program), path)
    with torch.no_grad():
        return torch.export.load(path).module()(patch)


def _through_onnx(program: Any, path: Path, patch: Tensor) -> Tensor:
    """As `_through_torch`."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (what torch.onnx works with)
    except ImportError as error:
        raise ModelError(f"ONNX needs libraries that are not installed ({error}): {INSTALL_LINE}") from error
    if "external_data" not in inspect.signature(torch.onnx.export).parameters:
        raise ModelError(f"PyTorch {torch.__version__} cannot write an exported program as ONNX; 2.6 and newer can")
    torch.onnx.export(
        program, (), str(path), input_names=["image"], output_names=["logits"], external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": patch.numpy()})[0])


_WRITERS = {"torch": _through_torch, "onnx": _through_onnx}
