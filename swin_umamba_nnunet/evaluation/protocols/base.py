"""What every protocol offers the evaluation: check a case, score a case, sum up the scores."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swin_umamba_nnunet.evaluation.cases import CasePair, Segmentation, read_pair
from swin_umamba_nnunet.evaluation.errors import EvaluationError
from swin_umamba_nnunet.evaluation.records import Convention, Measurement, Statistic
from swin_umamba_nnunet.evaluation.statistics import Bootstrap, class_statistics

_DIRECTION_TOLERANCE = 1e-2  # of direction cosines
_VALUES_SHOWN = 10


@dataclass(frozen=True)
class CaseFacts:
    """What the check of a case found.

    Attributes:
        name: the case.
        truth_values, prediction_values: label values that occur, 0 included.
        shape: of the arrays.
        unit: of distances in this case.
        notes: oddities that are no errors.
    """

    name: str
    truth_values: frozenset[int]
    prediction_values: frozenset[int]
    shape: tuple[int, ...]
    unit: str
    notes: tuple[str, ...] = ()


class EvaluationProtocol(ABC):
    """One way to score prediction folders; instances are frozen dataclasses, so that workers can get them.

    Attributes:
        name: as the user calls it.
        ground_truth_suffix: cut from the names of ground-truth files when cases are paired.
    """

    name: ClassVar[str]
    ground_truth_suffix: ClassVar[str] = ""

    @property
    @abstractmethod
    def conventions(self) -> tuple[Convention, ...]:
        """What the numbers mean; the protocol's own convention first."""

    @property
    def summary_keys(self) -> dict[str, str]:
        """Class name -> nnU-Net's key in summary.json; classes that are not there are keyed by name."""
        return {}

    def read(self, pair: CasePair) -> tuple[Segmentation, Segmentation]:
        """Ground truth and prediction of a case."""
        return read_pair(pair)

    def check(self, pair: CasePair) -> CaseFacts:
        """Read a case and check it against what the protocol expects.

        Raises:
            EvaluationError: the case cannot be evaluated.
        """
        truth, prediction = self.read(pair)
        facts = CaseFacts(
            pair.name,
            values_in(truth.array),
            values_in(prediction.array),
            truth.array.shape,
            truth.unit,
            _direction_note(truth, prediction),
        )
        self.check_values(pair, facts)
        return facts

    def check_values(self, pair: CasePair, facts: CaseFacts) -> None:
        """Raise `EvaluationError` if values or dimensions occur that the protocol does not know; by default all may."""
        return

    def complete(self, facts: Sequence[CaseFacts]) -> "EvaluationProtocol":
        """The protocol with what only the files could tell."""
        return self

    @abstractmethod
    def score(self, pair: CasePair) -> list[Measurement]:
        """All values of one case."""

    def statistics(self, measurements: Sequence[Measurement], bootstrap: Bootstrap) -> list[Statistic]:
        """Statistics over the cases, in the order in which they are to be shown."""
        return class_statistics(measurements, bootstrap)

    def notes(self, measurements: Sequence[Measurement]) -> tuple[str, ...]:
        """What the reader has to know about these very numbers."""
        return ()


def values_in(array: np.ndarray) -> frozenset[int]:
    """The label values that occur."""
    if array.dtype.itemsize <= 2:
        return frozenset(np.flatnonzero(np.bincount(array.ravel())).tolist())
    return frozenset(np.unique(array).tolist())


def require_dimensions(pair: CasePair, facts: CaseFacts, dimensions: int, protocol: str) -> None:
    """Raise unless the case has as many dimensions, 2 or 3, as the protocol scores."""
    if len(facts.shape) == dimensions:
        return
    scored, found = ("2D images", "a volume") if dimensions == 2 else ("volumes", "a 2D image")
    raise EvaluationError(
        f"case {pair.name}: the {protocol} protocol scores {scored}, and this file holds {found} {facts.shape}"
    )


def require_volume(pair: CasePair, facts: CaseFacts, labels: int, protocol: str) -> None:
    """Raise unless the case is a volume and no file of it has other labels than 0 to `labels`."""
    require_dimensions(pair, facts, 3, protocol)
    known = frozenset(range(labels + 1))
    for role, found in (("ground truth", facts.truth_values), ("prediction", facts.prediction_values)):
        require_known(pair, found, known, role, f"the {protocol} protocol")


def require_known(pair: CasePair, found: frozenset[int], known: frozenset[int], role: str, source: str) -> None:
    """Raise if values occur that are not known."""
    unknown = sorted(found - known)
    if unknown:
        path = pair.ground_truth if role == "ground truth" else pair.prediction
        shown = ", ".join(map(str, unknown[:_VALUES_SHOWN])) + (" ..." if len(unknown) > _VALUES_SHOWN else "")
        raise EvaluationError(
            f"case {pair.name}: the {role} {path} has label {shown}, which {source} does not know; "
            f"expected {_ranges(known)}"
        )


def _ranges(values: frozenset[int]) -> str:
    ordered = sorted(values)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def _direction_note(truth: Segmentation, prediction: Segmentation) -> tuple[str, ...]:
    if len(truth.direction) != len(prediction.direction) or np.allclose(
        truth.direction, prediction.direction, atol=_DIRECTION_TOLERANCE
    ):
        return ()
    return ("the headers of ground truth and prediction have different directions; the arrays are compared as stored",)
