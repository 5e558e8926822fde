"""From the values of a mask, whatever they are, to nnU-Net's labels 0, 1, 2, ...

A mask arrives as an integer array of raw values: grey values, palette indices, or colours packed as 0xRRGGBB.  A rule
says how the user wants them understood; `resolve` looks at all values of the whole dataset and makes a map of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.datasets._model import (
    CaseError,
    Findings,
    LabelError,
    LabelRule,
    check_entries,
    show_value,
)

MAX_AUTOMATIC = 200  # so many values are no semantic classes
LOSSY_MARGIN = 40  # JPEG moves most of a 0/255 mask's values by no more than that around edges
_NEARLY_WHITE = range(255 - LOSSY_MARGIN, 255)
LOSSY_VALUES = 8  # so many different ones beyond that are no classes, where hardly a pixel has them


@dataclass(frozen=True)
class LabelMap:
    """Raw values -> labels.

    Attributes:
        names: label name -> nnU-Net label, as dataset.json has it.
        lookup: raw value -> label; any other value is an error.
        threshold: see `LabelRule`.
        colour: raw values are colours.
        unlisted: values in `lookup` that became background because the user has not listed them.
    """

    names: Mapping[str, int]
    lookup: Mapping[int, int]
    threshold: int | None = None
    colour: bool = False
    unlisted: frozenset[int] = frozenset()

    def show(self, value: int) -> str:
        """A raw value as the user writes it: 255, or #ff0000."""
        return show_value(value, self.colour)

    def unknown(self, values: Mapping[int, int]) -> list[int]:
        """The raw values that the map has no label for."""
        return sorted(set(values) - set(self.lookup))

    def count(self, values: Mapping[int, int]) -> dict[int, int]:
        """Pixels per raw value of one mask, all of which have a label -> pixels per label."""
        counts: Counter[int] = Counter()
        for value, pixels in values.items():
            counts[self.lookup[value]] += pixels
        return counts

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Labels of a raw mask (from `raw_values`), same shape, uint8 (uint16 beyond 254 labels).

        Raises:
            LabelError: a value has no label.
        """
        dtype = np.uint8 if max(self.names.values()) < 255 else np.uint16
        missing = np.iinfo(dtype).max  # no label's number
        table = np.full(max(*self.lookup, int(raw.max(initial=0))) + 1, missing, dtype)  # of 16 MB for colours
        table[list(self.lookup)] = list(self.lookup.values())
        found = table[raw]
        if (found == missing).any():
            raise LabelError(f"mask value {self.show(int(raw[found == missing].flat[0]))} is not in the label map")
        return found


def count_values(array: np.ndarray) -> dict[int, int]:
    """Value -> how often, of an integer array."""
    return pd.Series(array.ravel()).value_counts(sort=False).sort_index().to_dict()


def raw_values(mask: np.ndarray, where: object, highest: int = 1 << 20) -> np.ndarray:
    """A mask of whatever numbers as int32.

    Raises:
        CaseError: they are no whole numbers from 0 to `highest`; names what is at `where`.
    """
    if mask.dtype.kind == "f" and (not np.isfinite(mask).all() or (mask != np.rint(mask)).any()):
        raise CaseError("mask values are no whole numbers (probabilities, or resampled?)", str(where))
    if mask.min() < 0 or mask.max() > highest:
        detail = f"{where} ({mask.min()} to {mask.max()})"
        raise CaseError("mask values are negative or too large for labels", detail)
    return mask.astype(np.int32)


def interior_and_boundary(ids: np.ndarray, findings: Findings) -> np.ndarray:
    """Ids of objects (H, W), 0 elsewhere -> 0, 1 in their insides, 2 on their boundaries, uint8: `INSTANCE_LABELS`.

    A boundary is one pixel wide and belongs to its object: every pixel of it that has another value above, below, left
    or right.  The insides of two objects so never touch, not even diagonally, and each is a component of its own.
    What is lost on the way is added to the findings.
    """
    from scipy import ndimage

    # an object that the image cuts has no boundary there
    around = {"footprint": ndimage.generate_binary_structure(2, 1), "mode": "nearest"}
    inside = (ids > 0) & (ndimage.minimum_filter(ids, **around) == ndimage.maximum_filter(ids, **around))
    objects, sizes = np.unique(ids[ids > 0], return_counts=True)
    left, pixels = np.unique(ids[inside], return_counts=True)
    lost, small = len(objects) - len(left), np.count_nonzero(2 * pixels < sizes[np.isin(objects, left)])
    pieces = ndimage.label(inside, np.ones((3, 3)))[1]
    if lost:
        findings.warning("objects are so small that they are boundary only, and cannot be found", f"{lost} objects")
    if small:
        topic = "objects are so small that most of them is boundary: a perfect prediction misses them at IoU 0.5"
        findings.warning(topic, f"{small} objects")
    if pieces > len(left):
        topic = "insides come in pieces, each of which counts as an object (is it a mask of instances?)"
        findings.warning(topic, f"{pieces} pieces of {len(left)} objects")
    return np.where(inside, 1, np.where(ids > 0, 2, 0)).astype(np.uint8)


def resolve(rule: LabelRule, values: Mapping[int, int], colour: bool) -> LabelMap:
    """The rule applied to all raw values of a dataset (value -> pixels).

    Raises:
        LabelError: the rule and the values do not go together, or there is more than one way to understand them.
    """
    if rule.threshold is not None:
        if colour:
            raise LabelError("a threshold needs grey masks, and these are coloured; name the colours as labels instead")
        names = [entry.name for entry in rule.entries if entry.name != "background"] or [rule.foreground]
        # a dataset of masks of 0 and 1 has nothing above 127 and yet a foreground
        threshold = 0 if max(values, default=0) == 1 else rule.threshold
        lookup = {value: int(value > threshold) for value in {0, *values}}
        return LabelMap({"background": 0, names[0]: 1}, lookup, threshold)
    if rule.entries:
        return _listed(rule, values, colour)
    found = {0, *values}
    two = {"background": 0, rule.foreground: 1}
    for high in (0xFFFFFF,) if colour else (1, 255):
        if found <= {0, high}:
            return LabelMap(two, {0: 0, high: 1}, colour=colour)
    if not colour and len(values) < MAX_AUTOMATIC and found == set(range(len(found))):
        classes = {f"class_{value}" if value else "background": value for value in sorted(found)}
        return LabelMap(classes, {value: value for value in classes.values()})
    raise LabelError(_explain(values, colour))


def _listed(rule: LabelRule, values: Mapping[int, int], colour: bool) -> LabelMap:
    check_entries(rule.entries)
    if rule.entries[0].colour != colour:
        given, masks = ("grey values", "coloured") if colour else ("colours", "grey")
        example = "tumour=#ff0000" if colour else "tumour=255"
        raise LabelError(f"labels are given as {given}, but the masks are {masks}; write for example {example}")
    background = [entry for entry in rule.entries if entry.name == "background"]
    others = [entry for entry in rule.entries if entry.name != "background"]
    others.sort(key=lambda entry: entry.name == "ignore")  # which nnU-Net wants last
    names, lookup = {"background": 0}, {entry.value: 0 for entry in background} or {0: 0}
    for label, entry in enumerate(others, 1):
        names[entry.name] = label
        lookup[entry.value] = label
    unlisted = frozenset(values) - lookup.keys() if rule.merge_into_background else frozenset()
    return LabelMap(names, lookup | dict.fromkeys(unlisted, 0), colour=colour, unlisted=unlisted)


def _is_lossy(values: Mapping[int, int]) -> bool:
    """Whether 0/255 masks saved as JPEG would have such values: two ends, and a little of everything in between."""
    between = {value: pixels for value, pixels in values.items() if LOSSY_MARGIN < value < 255 - LOSSY_MARGIN}
    total = sum(values.values())
    few = sum(between.values()) <= 0.05 * total and max(between.values(), default=0) <= 0.005 * total
    # without a value just below 255 it is more likely a label: 255 often stands for what is not to be looked at
    ends = min(values) <= LOSSY_MARGIN and max(values) <= 255 and not values.keys().isdisjoint(_NEARLY_WHITE)
    return ends and (not between or (few and len(between) >= LOSSY_VALUES))


def _explain(values: Mapping[int, int], colour: bool) -> str:
    """What is in the masks, and the options that would settle it."""
    total = sum(values.values())
    common = sorted(values, key=lambda value: -values[value])
    shown = listed((f"{show_value(v, colour)} ({100 * values[v] / total:.2g} % of pixels)" for v in common), 8)
    text = f"the masks hold {len(values)} {'colours' if colour else 'values'}: {shown}; "
    if not colour and _is_lossy(values):
        return (
            text + "nearly all lie near 0 and 255, which looks like 0/255 masks saved as JPEG: --threshold 127 makes "
            "two labels of them"
        )
    if len(values) > 24:
        advice = "are these really masks, and not images or lossy (JPEG) files? " if len(values) > 64 else ""
        return text + advice + "Say which stand for what with --label NAME=VALUE, once per label"
    names = {"background": common[0]} | {f"NAME{i}": value for i, value in enumerate(sorted(common[1:8]), 1)}
    quote = "'" if colour else ""
    options = [f"--label {name}={quote}{show_value(value, colour)}{quote}" for name, value in names.items()]
    one = "; or --threshold 0, if 1 and 255 are the same" * (not colour and values.keys() == {0, 1, 255})
    return text + "say what they stand for, for example   " + " ".join(options) + one
