"""Which label values make a class: from dataset.json (with regions and ignore label), from the user, or as found."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swin_umamba_nnunet.evaluation.errors import EvaluationError


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

    def key(self, name: str) -> str:
        """nnU-Net's key of a class in summary.json: "3", or "(1, 2)" for a region."""
        values = self.classes[name]
        return str(values[0]) if len(values) == 1 else str(values)


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
        values = {str(name): _values(value) for name, value in labels.items() if name != "ignore"}
        ignore = None if labels.get("ignore") is None else int(labels["ignore"])
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


def _values(value) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        numbers = tuple(int(number) for number in value)
        if not numbers:
            raise ValueError("an empty region")
        return numbers
    return (int(value),)
