"""What every protocol offers the evaluation: check a case, score a case, sum up the scores, and say what can be set."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.labels import LabelSet, find_labels, read_dataset_json, require_known, values_in
from swin_umamba_nnunet.evaluation.readers import Segmentation, read_pair
from swin_umamba_nnunet.evaluation.records import Convention, EvaluationError, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, class_statistics, pooled_object_f1

ROUNDED = "rounded to 4 decimals"
_DIRECTION_TOLERANCE = 1e-2  # of direction cosines


def option(
    default: Any, help: str, *, flag: str = "", convert: Callable[[Any], Any] = lambda given: given, **argument: Any
) -> Any:
    """A field of a protocol that users may set: in Python, in TOML or JSON by its name, and on the command line.

    Args:
        default: its value.
        help: for the command line.
        flag: of the command line, where it is not --NAME.
        convert: makes the value of whatever is given, the value itself included; raises `EvaluationError`.
        argument: further settings of `ArgumentParser.add_argument`; those of truth values are known.
    """
    if isinstance(default, bool):
        argument = {"action": "store_const", "const": not default}
    argument |= {"help": help, "default": None}
    return field(default=default, metadata={"flag": flag, "convert": convert, "argument": argument})


def flag_of(one: Field) -> str:
    """How an option is called on the command line."""
    return one.metadata["flag"] or f"--{one.name.replace('_', '-')}"


def made_by(read: Callable[[Any], LabelSet]) -> Callable[[Any], LabelSet | None]:
    """What makes classes of whatever is given; a ready `LabelSet`, and None, stay."""
    return lambda given: given if given is None or isinstance(given, LabelSet) else read(given)


def dataset_json_option() -> Any:
    """The option for nnU-Net's dataset.json; its value is the `LabelSet` read of the file."""
    return option(None, "nnU-Net's dataset.json", convert=made_by(read_dataset_json), metavar="FILE")


def iou_option(default: Sequence[float], help: str) -> Any:
    """The option for the IoU at which objects match."""

    def convert(given: Iterable[float]) -> tuple[float, ...]:
        thresholds = tuple(dict.fromkeys(map(float, given)))
        for value in thresholds:
            if not 0 < value <= 1:
                raise EvaluationError(f"--iou {value:g}: expected a threshold above 0 and up to 1, such as 0.5")
        return thresholds or tuple(default)

    return option(default, help, flag="--iou", convert=convert, nargs="+", type=float, metavar="THRESHOLD")


@dataclass(frozen=True)
class CaseFacts:
    """What the check of a case found.

    Attributes:
        name: the case.
        truth_values, prediction_values: label values that occur, 0 included.
        unit: of distances in this case.
        notes: oddities that are no errors.
    """

    name: str
    truth_values: frozenset[int]
    prediction_values: frozenset[int]
    unit: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationProtocol(ABC):
    """One way to score prediction folders: a frozen dataclass whose fields are its options, so that workers can get it.

    Attributes:
        name: as the user calls it.
        summary: what it is for, in a line.
        dimensions: of the files it scores; None for any.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    dimensions: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        for one in self.options().values():
            object.__setattr__(self, one.name, one.metadata["convert"](getattr(self, one.name)))

    @classmethod
    def options(cls) -> dict[str, Field]:
        """What users may set, by name; see `option`."""
        return {one.name: one for one in fields(cls) if one.metadata}

    @property
    @abstractmethod
    def conventions(self) -> tuple[Convention, ...]:
        """What the numbers mean; the protocol's own convention first."""

    @property
    def classes(self) -> LabelSet | None:
        """The classes, as far as they are known before the files are read."""
        return None

    @property
    def ground_truth_suffix(self) -> str:
        """Cut from the names of ground-truth files when cases are paired."""
        return ""

    @abstractmethod
    def require_libraries(self) -> None:
        """Raise `EvaluationError` now rather than after the files were read if a library is missing."""

    def prepare(self, ground_truth: Path, predictions: Path) -> "EvaluationProtocol":
        """The protocol with the dataset.json that lies beside the folders, where it takes one and was given none."""
        self.require_libraries()
        if self.classes or "dataset_json" not in self.options():
            return self
        found: dict[str, Any] = {"dataset_json": find_labels(ground_truth, predictions)}
        return replace(self, **found)

    def read(self, pair: CasePair) -> tuple[Segmentation, Segmentation]:
        """Ground truth and prediction of a case."""
        return read_pair(pair, self.classes.reader if self.classes else None)

    def check(self, pair: CasePair) -> CaseFacts:
        """Read a case and check it against what the protocol expects.

        Raises:
            EvaluationError: the case cannot be evaluated.
        """
        truth, prediction = self.read(pair)
        if self.dimensions not in (None, truth.array.ndim):
            scored, found = ("2D images", "a volume") if self.dimensions == 2 else ("volumes", "a 2D image")
            raise EvaluationError(
                f"case {pair.name}: the {self.name} protocol scores {scored}, and this file holds {found} "
                f"{truth.array.shape}"
            )
        values = values_in(truth.array), values_in(prediction.array)
        facts = CaseFacts(pair.name, *values, truth.unit, _direction_note(truth, prediction))
        self.check_values(pair, facts)
        return facts

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        """Raise `EvaluationError` if values occur that the protocol does not know."""
        if self.classes:
            require_known(pair, self.classes, facts.truth_values, facts.prediction_values)

    def complete(self, facts: Sequence[CaseFacts]) -> "EvaluationProtocol":
        """The protocol with what only the files could tell."""
        return self

    @abstractmethod
    def score(self, pair: CasePair) -> list[Measurement]:
        """All values of one case."""

    def statistics(self, measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
        """Statistics over the cases, in the order in which they are to be shown."""
        return class_statistics(measurements, bootstrap) + pooled_object_f1(measurements, bootstrap)

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        """What the reader has to know about these very numbers."""
        return ()


def rounded(value: float) -> float:
    """As the authors' scripts round: NumPy's way, half to even."""
    return float(np.round(value, 4))


def _direction_note(truth: Segmentation, prediction: Segmentation) -> tuple[str, ...]:
    if len(truth.direction) != len(prediction.direction) or np.allclose(
        truth.direction, prediction.direction, atol=_DIRECTION_TOLERANCE
    ):
        return ()
    return ("the headers of ground truth and prediction have different directions; the arrays are compared as stored",)
