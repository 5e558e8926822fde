"""Which label values make a class: from dataset.json (with regions and ignore label), from the user, or as found."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.evaluation.cases import CasePair
from swin_umamba_nnunet.evaluation.readers import read_pair
from swin_umamba_nnunet.evaluation.records import EvaluationError

_VALUES_SHOWN = 10


@dataclass(frozen=True)
class LabelSet:
    """The classes to score.

    Attributes:
        classes: name -> label values; several values are one region, as in nnU-Net's region-based training.
        ignore: value of the ground truth whose elements are not looked at, or None.
        known: every value that may occur in the files (0 included), or None where any may.
        source: where the classes come from, for messages and output.
        reader: nnU-Net reader that dataset.json asks for, or None.
    """

    classes: Mapping[str, tuple[int, ...]]
    ignore: int | None = None
    known: frozenset[int] | None = None
    source: str = "the command line"
    reader: str | None = None

    @property
    def keys(self) -> dict[str, str]:
        """nnU-Net's key of each class in summary.json: "3", or "(1, 2)" for a region."""
        return {name: str(values[0] if len(values) == 1 else values) for name, values in self.classes.items()}


def numbered(names: Iterable[str], source: str) -> LabelSet:
    """Classes with the values 1, 2, ... beside which only 0 may occur."""
    classes = {name: (value,) for value, name in enumerate(names, 1)}
    return LabelSet(classes, known=frozenset(range(len(classes) + 1)), source=source)


def read_dataset_json(path: Path | str) -> LabelSet:
    """The classes nnU-Net would score: all labels but background, or all regions.

    Raises:
        EvaluationError: not there, not JSON, or its labels are not as nnU-Net wants them.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read as nnU-Net's dataset.json ({error})") from error
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise EvaluationError(f'{path} has no "labels"; expected nnU-Net\'s dataset.json with names and values')
    try:
        values = {
            str(name): tuple(map(int, value if isinstance(value, list) else [value]))
            for name, value in labels.items()
            if name != "ignore"
        }
        ignore = None if labels.get("ignore") is None else int(labels["ignore"])
        if () in values.values():
            raise ValueError("an empty region")
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f'{path}: "labels" has to map names to whole numbers or lists of them (old nnU-Net files have it the '
            f"other way round), found {json.dumps(labels)[:200]}"
        ) from error
    classes = {name: numbers for name, numbers in values.items() if set(numbers) != {0}}
    if not classes:
        raise EvaluationError(f"{path} names no label but background; there is nothing to score")
    known = frozenset({0}.union(*values.values()))
    reader = content.get("overwrite_image_reader_writer")
    return LabelSet(classes, ignore, known, str(path), None if reader in (None, "None") else str(reader))


def find_labels(ground_truth: Path | str, predictions: Path | str) -> LabelSet | None:
    """The classes of the dataset.json that nnU-Net has left beside the folders; None where there is none.

    It lies beside predictions, above a validation folder, or beside labelsTr and labelsTs.
    """
    truth, predicted = Path(ground_truth).resolve(), Path(predictions).resolve()  # the parent of "x" is "." otherwise
    files = (folder / "dataset.json" for folder in (predicted, predicted.parent.parent, truth.parent))
    return next((read_dataset_json(file) for file in files if file.is_file()), None)


def parse_labels(texts: Sequence[str | int]) -> LabelSet:
    """Classes from the command line: `1`, `liver=1`, `whole_tumour=1,2,3` (a region).

    Raises:
        EvaluationError: not of that form, background, or a name twice.
    """
    classes: dict[str, tuple[int, ...]] = {}
    for text in map(str, texts):
        name, equals, numbers = text.rpartition("=")
        try:
            values = tuple(sorted({int(number) for number in numbers.split(",")}))
        except ValueError:
            values = ()
        if not values or min(values) < 1 or (equals and not name):
            raise EvaluationError(
                f"--labels {text}: expected a label number above 0, NAME=NUMBER, or NAME=NUMBER,NUMBER for a region"
            )
        name = name or ",".join(map(str, values))
        if name in classes:
            raise EvaluationError(f"--labels names {name} twice")
        classes[name] = values
    if not classes:
        raise EvaluationError("--labels is empty; expected label numbers such as 1 2 3")
    return LabelSet(classes)


def labels_as_found(values: Iterable[int]) -> LabelSet:
    """Every value but 0 that occurs in the files is a class."""
    return LabelSet({str(value): (value,) for value in sorted(values) if value}, source="the values found in the files")


def labels_in(pairs: Iterable[CasePair]) -> LabelSet:
    """Every value but 0 in the files of these cases is a class."""
    return labels_as_found({value for pair in pairs for one in read_pair(pair) for value in values_in(one.array)})


def values_in(array: np.ndarray) -> frozenset[int]:
    """The label values that occur."""
    if array.dtype.itemsize <= 2:
        return frozenset(np.flatnonzero(np.bincount(array.ravel())).tolist())
    return frozenset(np.unique(array).tolist())


def require_known(
    pair: CasePair, labels: LabelSet, truth_values: frozenset[int], prediction_values: frozenset[int]
) -> None:
    """Raise `EvaluationError` if values occur that are not known."""
    if labels.known is None:
        return
    for role, path, found, ignored in (
        ("prediction", pair.prediction, prediction_values, None),
        ("ground truth", pair.ground_truth, truth_values, labels.ignore),
    ):
        if unknown := sorted(found - labels.known - {ignored}):
            raise EvaluationError(
                f"case {pair.name}: the {role} {path} has label {listed(unknown, _VALUES_SHOWN)}, which "
                f"{labels.source} does not know; expected {_ranges(labels.known)}"
            )


def mask_of(array: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Boolean mask of the elements that have one of the values; same shape as `array`."""
    if len(values) == 1:
        return array == values[0]
    return np.isin(array, values)


def without_ignored(
    truth: np.ndarray, prediction: np.ndarray, ignore: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Both label maps with background where the ground truth is to be ignored, and how many elements remain."""
    if ignore is None:
        return truth, prediction, truth.size
    ignored = truth == ignore
    return np.where(ignored, 0, truth), np.where(ignored, 0, prediction), int(truth.size - ignored.sum())


def _ranges(values: frozenset[int]) -> str:
    ordered = sorted(values)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))
