"""ImageNet weights into a network: strict, all or nothing, and reported.  What goes where: see `plan`."""

import logging
import os
from typing import Any

import torch
from torch import nn

from swin_umamba_nnunet.pretrained.ensure import obtain_checkpoint
from swin_umamba_nnunet.pretrained.errors import CheckpointError
from swin_umamba_nnunet.pretrained.plan import fits, make_plan
from swin_umamba_nnunet.pretrained.registry import WeightsRecord, get_alternatives, get_record
from swin_umamba_nnunet.pretrained.report import DECODER, LoadReport
from swin_umamba_nnunet.pretrained.variants import identify

logger = logging.getLogger(__name__)


def load_imagenet_weights(
    network: nn.Module, weights: str | os.PathLike | None = None, *, scratch_trainer: str | None = None
) -> LoadReport:
    """Copy ImageNet weights into `network.imagenet_encoder`, and into what `network.imagenet_copies()` names, in place.

    Args:
        network: one of this package's, bare or wrapped by torch.compile or DistributedDataParallel.
        weights: file or folder, instead of SWIN_UMAMBA_WEIGHTS (see `locate` for the order); downloaded if nowhere.
        scratch_trainer: trainer to recommend in the message when the weights cannot be had.

    Returns:
        The report, which is also logged.

    Raises:
        TypeError: the network has no encoder that ImageNet weights are published for.
        WeightsNotFoundError: neither found nor downloaded.
        CheckpointError: the file does not fit; nothing in the network has been changed.
    """
    bare = _unwrap(network)
    what = type(bare).__name__
    encoder = getattr(bare, "imagenet_encoder", None)
    if not isinstance(encoder, nn.Module):
        raise TypeError(f"{what} has no encoder that takes ImageNet weights (imagenet_encoder)")
    of_encoder = encoder.state_dict()
    copies: dict[str, str] = bare.imagenet_copies() if hasattr(bare, "imagenet_copies") else {}
    of_decoder = {key: tensor for key, tensor in bare.state_dict().items() if copies and key.startswith(DECODER)}
    own = {**of_encoder, **of_decoder}
    record, *alternatives = _records_for(bare, of_encoder)
    checkpoint = obtain_checkpoint(record, weights, scratch_trainer=scratch_trainer, alternatives=alternatives)
    file = checkpoint.state_dict
    plan = make_plan(of_encoder, file, copies, of_decoder)
    values = {name: plan.adapted.get(name, file[key]) for name, key in plan.sources.items()}
    accounted = {*plan.sources.values(), *plan.left_out}
    report = LoadReport(
        source=str(checkpoint.path),
        sha256=checkpoint.sha256,
        variant=checkpoint.record.name,
        loaded=tuple(name for name in values if name not in plan.adapted),
        adapted=tuple(plan.adapted),
        left_out_by_design=plan.left_out,
        missing=tuple(name for name in own if name not in values and name not in plan.kept),
        unexpected=tuple(key for key in file if key not in accounted),
        kept=plan.kept,
    )
    misshapen = [name for name, value in values.items() if name not in own or own[name].shape != value.shape]
    if report.has_faults or misshapen:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the encoder of {what}, nothing was loaded: missing "
            f"{list(report.missing)}, unexpected {list(report.unexpected)}, of another shape {misshapen}"
        )
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    logger.info(report.summary())
    return report


def _unwrap(network: nn.Module) -> Any:
    while True:
        for wrapped in ("module", "_orig_mod"):  # DistributedDataParallel, torch.compile
            if isinstance(inner := getattr(network, wrapped, None), nn.Module):
                network = inner
                break
        else:
            return network


def _records_for(network: nn.Module, encoder: dict[str, torch.Tensor]) -> list[WeightsRecord]:
    """The checkpoints a network starts from, the preferred one first.

    They are those that the registry lists under the network's `imagenet_weights`, as far as they fill the encoder,
    which may be shallower.  A network without that attribute takes the checkpoint of exactly its encoder.
    """
    variant = identify(encoder)
    name = getattr(network, "imagenet_weights", None)
    if name is not None:
        records = [record for record in (get_record(name), *get_alternatives(name)) if fits(variant, record)]
    else:
        records = [] if variant.record is None else [variant.record]
    if not records:
        what = type(network).__name__
        raise TypeError(f"the encoder of {what} is {variant}: there are no ImageNet weights to load")
    return records
