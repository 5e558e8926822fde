"""From the names and numbers a user gives to a protocol object, with everything that can be checked checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from swin_umamba_nnunet.evaluation import plain, surfaces
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.labels import LabelSet, parse_labels, read_dataset_json
from swin_umamba_nnunet.evaluation.protocols import (
    Abdomen,
    Cells,
    Endoscopy,
    EvaluationProtocol,
    Isic,
    Plain,
    Synapse,
)
from swin_umamba_nnunet.evaluation.protocols.isic import SIZE

PROTOCOLS = ("plain", "abdomen", "endoscopy", "cells", "isic", "synapse")

# option -> protocols that have it
_APPLIES = {
    "labels": ("plain",),
    "dataset_json": ("plain", "endoscopy"),
    "tolerance": ("plain",),
    "iou_thresholds": ("plain", "cells"),
    "instances": ("plain",),
    "distances": ("plain",),
    "medpy_hd95": ("plain", "abdomen"),
    "count_border_cells": ("cells",),
    "isic_size": ("isic",),
    "resize_predictions": ("synapse",),
}


@dataclass(frozen=True)
class ProtocolOptions:
    """What a user may say about a protocol; None is the protocol's own default.

    Attributes:
        labels: classes to score, `1`, `liver=1`, `tumour=1,2`, or a ready `LabelSet`.
        dataset_json: nnU-Net's dataset.json to take the classes from.
        tolerance: of the NSD, in the unit of the files: one number, or class name -> number, or texts such as
            `2` and `liver=5`.
        iou_thresholds: of the F1 of objects.
        instances: what an object is, see `plain.INSTANCE_DEFINITION`.
        distances: False leaves NSD, HD95 and ASSD out.
        medpy_hd95: MedPy's HD95 too.
        count_border_cells: see `protocols.Cells`.
        isic_size: see `protocols.Isic`; 0 scores the files as they are.
        resize_predictions: see `protocols.Synapse`.
    """

    labels: Sequence[str | int] | LabelSet | None = None
    dataset_json: Path | str | None = None
    tolerance: float | Mapping[str, float] | Sequence[str] | None = None
    iou_thresholds: Sequence[float] | None = None
    instances: str | None = None
    distances: bool | None = None
    medpy_hd95: bool | None = None
    count_border_cells: bool | None = None
    isic_size: int | None = None
    resize_predictions: bool | None = None


def build_protocol(name: str, options: ProtocolOptions, found_dataset_json: Path | None = None) -> EvaluationProtocol:
    """The protocol of that name.

    Args:
        name: one of `PROTOCOLS`.
        options: what the user said.
        found_dataset_json: used where the user named neither labels nor a dataset.json.

    Raises:
        EvaluationError: unknown protocol, an option that it does not have, or a value out of range; or a library that
            it needs is not installed.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"protocol {name}: expected one of {', '.join(PROTOCOLS)}")
    for option in fields(options):
        if getattr(options, option.name) is not None and name not in _APPLIES[option.name]:
            raise EvaluationError(
                f"the {name} protocol takes no --{option.name.replace('_', '-')}, that is fixed there; leave it out, "
                f"or use --protocol {' or '.join(_APPLIES[option.name])}"
            )
    if name in ("abdomen", "endoscopy", "synapse") or (name == "plain" and options.distances is not False):
        surfaces.check_installed()
    if name == "synapse" or options.medpy_hd95:
        surfaces.check_medpy_installed()
    if name == "plain":
        return _plain(options, found_dataset_json)
    if name == "abdomen":
        return Abdomen(bool(options.medpy_hd95))
    if name == "endoscopy":
        file = options.dataset_json or found_dataset_json
        return Endoscopy(read_dataset_json(file) if file else None)
    if name == "cells":
        return Cells(_thresholds(options.iou_thresholds or (0.5,)), bool(options.count_border_cells))
    if name == "isic":
        return Isic(SIZE if options.isic_size is None else options.isic_size or None)
    return Synapse(bool(options.resize_predictions))


def find_dataset_json(ground_truth: Path, predictions: Path) -> Path | None:
    """The dataset.json that nnU-Net leaves beside predictions, above a validation folder, or beside labelsTr/Ts."""
    ground_truth, predictions = ground_truth.resolve(), predictions.resolve()  # the parent of "x" is "." otherwise
    candidates = (predictions, predictions.parent.parent, ground_truth.parent)
    return next((folder / "dataset.json" for folder in candidates if (folder / "dataset.json").is_file()), None)


def _plain(options: ProtocolOptions, found_dataset_json: Path | None) -> Plain:
    objects = options.instances or "components"
    if options.labels is not None and options.dataset_json is not None:
        raise EvaluationError("both labels and a dataset.json were given; give one of them")
    if objects != "components" and (options.labels is not None or options.dataset_json is not None):
        raise EvaluationError(f"with --instances {objects} files hold ids instead of labels; leave the labels out")
    labels = None
    if isinstance(options.labels, LabelSet):
        labels = options.labels
    elif options.labels is not None:
        labels = parse_labels(options.labels)
    elif objects == "components" and (file := options.dataset_json or found_dataset_json):
        labels = read_dataset_json(file)
    thresholds = options.iou_thresholds or ((0.5,) if options.instances else ())
    tolerances, default = _tolerances(options.tolerance)
    if labels is not None:
        unknown = sorted(tolerances.keys() - labels.classes.keys())
        if unknown:
            raise EvaluationError(
                f"--tolerance names {', '.join(unknown)}, which is no class; {labels.source} has "
                f"{', '.join(labels.classes)}"
            )
    settings = plain.PlainSettings(
        tolerances, default, options.distances is not False, bool(options.medpy_hd95),
        iou_thresholds=_thresholds(thresholds),
    )  # fmt: skip
    return Plain(labels, settings, objects)


def _tolerances(given: float | Mapping[str, float] | Sequence[str] | None) -> tuple[dict[str, float], float]:
    """Class name -> tolerance, and the tolerance of the other classes."""
    default = plain.DEFAULT_TOLERANCE
    if given is None:
        return {}, default
    pairs: list[tuple[str, float | str]]
    if isinstance(given, Mapping):
        pairs = [(name, value) for name, value in given.items()]
    elif isinstance(given, (int, float)):
        pairs = [("", given)]
    else:
        pairs = [(name, number) for name, _, number in (str(text).rpartition("=") for text in given)]
    named = {}
    for name, number in pairs:
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise EvaluationError(
                f"--tolerance {f'{name}=' if name else ''}{number}: expected a distance of 0 or more, or NAME=DISTANCE "
                "(mm, or pixels where files have no physical spacing)"
            )
        if name:
            named[name] = value
        else:
            default = value
    return named, default


def _thresholds(given: Sequence[float]) -> tuple[float, ...]:
    for value in given:
        if not 0 < value <= 1:
            raise EvaluationError(f"--iou {value:g}: expected a threshold above 0 and up to 1, such as 0.5")
    return tuple(dict.fromkeys(float(value) for value in given))
