"""Protocol "plain": see `swin_umamba_nnunet.evaluation.plain`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swin_umamba_nnunet.evaluation import plain
from swin_umamba_nnunet.evaluation.cases import CasePair, Segmentation, read_pair
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.instances import connected_components
from swin_umamba_nnunet.evaluation.labels import LabelSet, labels_as_found
from swin_umamba_nnunet.evaluation.protocols.base import CaseFacts, EvaluationProtocol, require_known
from swin_umamba_nnunet.evaluation.records import Convention, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, class_statistics, pooled_object_f1

OBJECT = "object"
INTERIOR = 1  # the class of the insides of cells in U-Mamba's cell dataset


@dataclass(frozen=True)
class Plain(EvaluationProtocol):
    """The plain convention.

    Attributes:
        labels: the classes; None takes every value that occurs.
        settings: what to compute.
        objects: what an object is: "components" of each class, "ids" in both files, or "gt-ids" (ids in the ground
            truth, components of label 1 in the prediction).  With ids there is one class, "object".
    """

    name: ClassVar[str] = "plain"
    labels: LabelSet | None = None
    settings: plain.PlainSettings = plain.PlainSettings()
    objects: str = "components"

    def __post_init__(self) -> None:
        if self.objects not in plain.INSTANCE_DEFINITION:
            raise EvaluationError(f"instances {self.objects}: expected one of {', '.join(plain.INSTANCE_DEFINITION)}")

    @property
    def conventions(self) -> tuple[Convention, ...]:
        return (plain.convention(self.settings, self.objects),)

    @property
    def summary_keys(self) -> dict[str, str]:
        if self.objects != "components":
            return {OBJECT: "1"}
        return {name: self.labels.key(name) for name in self.labels.classes} if self.labels else {}

    def read(self, pair: CasePair) -> tuple[Segmentation, Segmentation]:
        return read_pair(pair, self.labels.reader if self.labels else None)

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        if self.labels is None or self.labels.known is None or self.objects == "ids":
            return
        known = self.labels.known
        require_known(pair, facts.prediction_values, known, "prediction", self.labels.source)
        if self.objects == "components":
            ignored = frozenset() if self.labels.ignore is None else frozenset({self.labels.ignore})
            require_known(pair, facts.truth_values, known | ignored, "ground truth", self.labels.source)

    def complete(self, facts: Sequence[CaseFacts]) -> "Plain":
        if self.objects != "components":
            return self
        found = frozenset().union(*(case.truth_values | case.prediction_values for case in facts))
        if self.labels is None:
            if not found - {0}:
                raise EvaluationError(
                    "all files, ground truth and predictions, hold background only, so there is nothing to score; "
                    "name the classes with --labels if that is right"
                )
            return dataclasses.replace(self, labels=labels_as_found(found))
        return self

    def score(self, pair: CasePair) -> list[Measurement]:
        truth, prediction = self.read(pair)
        if self.objects == "components":
            if self.labels is None:
                raise ValueError("the classes are not known yet; complete() finds them")
            return plain.score_labels(
                pair.name, truth.array, prediction.array, truth.spacing, truth.unit, self.labels, self.settings
            )
        ids = prediction.array if self.objects == "ids" else connected_components(prediction.array == INTERIOR)
        masks = truth.array > 0, ids > 0
        result = plain.score_masks(pair.name, OBJECT, *masks, truth.spacing, truth.unit, self.settings)
        return result + plain.score_objects(pair.name, OBJECT, truth.array, ids, self.settings.iou_thresholds)

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        if self.objects != "components" or self.labels is None:
            return ()
        classes = ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in self.labels.classes.items())
        notes = [f"Classes from {self.labels.source}: {classes}"]
        if self.labels.ignore is not None:
            notes.append(f"Elements with the ignore label {self.labels.ignore} in the ground truth were left out.")
        there = {m.label for m in measurements if m.metric in ("TP", "FP", "FN") and m.value}
        nowhere = [name for name in self.labels.classes if name not in there]
        if nowhere:
            notes.append(f"In no file, neither ground truth nor prediction: {', '.join(nowhere)}")
        return tuple(notes)

    def statistics(self, measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
        return class_statistics(measurements, bootstrap) + pooled_object_f1(measurements, bootstrap)
