"""What an evaluation produces: single values, their statistics, and what they mean; and the error that stops one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from swin_umamba_nnunet._text import UserError

# Name of the convention that this package stands behind.
PLAIN = "plain"
# Label of a value that belongs to a whole image and not to one class.
WHOLE_IMAGE = "(image)"
# Label of a statistic over all classes.
ALL_CLASSES = "(all)"


class EvaluationError(UserError, ValueError):
    """What the user can put right, in one sentence (or a short list): which file or setting, what was expected."""


@dataclass(frozen=True)
class Measurement:
    """One value: a line of metrics.csv.

    Attributes:
        case: name of the case.
        label: name of the class, or `WHOLE_IMAGE`.
        metric: "Dice", "NSD", ...
        value: NaN is undefined (nothing to score), infinity a distance to a surface that is not there.
        unit: "1" for ratios, "mm", "px", "voxel" for distances and counts of elements, "count" for instances.
        convention: "plain", or the protocol's name for the authors' way.
        detail: what else the value depends on, e.g. "tolerance 2 mm".
        count: a number of elements rather than a score; it stays out of the table.
    """

    case: str
    label: str
    metric: str
    value: float
    unit: str
    convention: str
    detail: str = ""
    count: bool = False

    @property
    def number(self) -> float:
        """The value as it is written: whole where it is a count."""
        return int(self.value) if self.count else float(self.value)

    @property
    def full_convention(self) -> str:
        """Convention and detail in one text."""
        return f"{self.convention}: {self.detail}" if self.detail else self.convention


@dataclass(frozen=True)
class Convention:
    """What the numbers of a convention mean, and what is peculiar about them.

    Attributes:
        name: as in `Measurement.convention`.
        definition: how the values and their mean come about.
        quirks: what surprises, one sentence each.
    """

    name: str
    definition: str
    quirks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Statistic:
    """One metric of one class (or of all) over the cases.

    Attributes:
        convention, metric, label, unit, detail: as in `Measurement`.
        mean: mean of the finite values; NaN where there are none.
        std: sample standard deviation over cases (ddof = 1); NaN below two finite values.
        low, high: 95 % percentile-bootstrap interval of `mean`, cases resampled; NaN below two finite values.
        n_cases: how many cases have a value, undefined and infinite ones included.
        n_undefined: how many of them are undefined.
        n_infinite: how many of them are infinite.
        mean_undefined_as_1: the mean when an undefined score counts as 1; only for scores where 1 is best.
        how: what the mean is over, where it is not simply over cases.
    """

    convention: str
    metric: str
    label: str
    unit: str
    mean: float
    std: float
    low: float
    high: float
    n_cases: int
    n_undefined: int
    n_infinite: int
    mean_undefined_as_1: float = math.nan
    detail: str = ""
    how: str = ""


def by_name(measurements: Iterable[Measurement]) -> dict[tuple[str, str, str], list[Measurement]]:
    """The values of all cases, by convention, metric and class, in order of first appearance."""
    found: dict[tuple[str, str, str], list[Measurement]] = {}
    for m in measurements:
        found.setdefault((m.convention, m.metric, m.label), []).append(m)
    return found


def measurements_of(case: str, label: str, convention: str, rows: Iterable[tuple]) -> list[Measurement]:
    """Values of one class of one case, each given by metric, value, unit and, where there is one, detail and count."""
    return [Measurement(case, label, metric, value, unit, convention, *rest) for metric, value, unit, *rest in rows]
