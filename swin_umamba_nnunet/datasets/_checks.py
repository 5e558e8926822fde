"""Reading every case before anything is written, and what that brings to light."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from tqdm import tqdm
from tqdm.contrib.concurrent import thread_map

from swin_umamba_nnunet._text import listed, plural
from swin_umamba_nnunet.datasets._labels import LabelMap, count_values, resolve
from swin_umamba_nnunet.datasets._model import (
    DEFAULT_FOLDS,
    NOT_FINITE,
    VOLUME_ENDING,
    CaseError,
    Conversion,
    Finding,
    Findings,
    LabelError,
    SourceCase,
)
from swin_umamba_nnunet.datasets._splits import Fold, make_folds

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_NAME = 200  # bytes; file systems take 255, and endings, _0000 and names for half-written things are added


@dataclass(frozen=True)
class Measured:
    """What reading a case brought to light.

    Attributes:
        shape: (H, W) or (D, H, W).
        channels: number of channels nnU-Net will see.
        dtype: NumPy's name of the image's numbers.
        digest: hash of the image's numbers and shape, to find duplicates.
        values: how many pixels each raw mask value has (see `_labels`); None without a mask.
        colours: the same counts by colour, 0xRRGGBB; None where there is no colour to speak of (volumes).
        colour: labels go by colour: the `values` are colours, or black is not index 0 of the palette.
        spacing: mm between voxels along (D, H, W); None for pictures and where it is unknown.
        findings: what was noticed on the way.
    """

    shape: tuple[int, ...]
    channels: int
    dtype: str
    digest: str
    values: Mapping[int, int] | None = None
    colours: Mapping[int, int] | None = None
    colour: bool = False
    spacing: tuple[float, ...] | None = None
    findings: tuple[Finding, ...] = ()

    def of_mask(self, colour: bool) -> Mapping[int, int]:
        """Pixels by colour or by value; {} where there are none."""
        return (self.colours if colour else self.values) or {}


@dataclass(frozen=True)
class Inspection:
    """A conversion whose cases have been read, with everything that writing needs.

    Attributes:
        conversion: of the layout, channels and ending decided; it still has the cases that were left out.
        cases: the cases to write.
        measured: case name -> what was measured.
        labels: how raw mask values become labels; None where that failed (there is an error then).
        findings: of the layout and of reading.
        left_out: number of cases with errors, where the user wants them left out.
    """

    conversion: Conversion
    cases: tuple[SourceCase, ...]
    measured: Mapping[str, Measured]
    labels: LabelMap | None
    findings: tuple[Finding, ...]
    left_out: int = 0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the dataset from being written."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def folds(self) -> list[Fold]:
        """Of splits_final.json; none where nnU-Net is to draw its own.

        Raises:
            ConversionError: there are fewer groups than folds.
        """
        return make_folds(self.cases, self.conversion.folds, self.conversion.seed)


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], threads: int, text: str) -> list[Result]:
    """`function` of every item, in order, with a progress bar (on a terminal).

    Decoders release the interpreter lock, so threads are enough.  The first exception stops it, and so does Ctrl-C:
    what has not begun is not begun any more.
    """
    threads = max(1, min(threads, os.cpu_count() or 1))
    return thread_map(function, items, max_workers=threads, tqdm_class=tqdm, desc=text, unit="case", disable=None)


def measure(conversion: Conversion, case: SourceCase) -> Measured:
    """Read a case.

    Raises:
        CaseError: it cannot be converted.
    """
    findings = Findings()
    content = conversion.read(case, findings)
    for path, image in zip(case.images, content.images):
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise CaseError(NOT_FINITE, str(path))
    first, mask, palette = content.images[0], content.mask, content.palette
    colour_image = first.ndim == 3 and conversion.ending != VOLUME_ENDING
    digest = hashlib.blake2b(f"{first.dtype} {first.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(first).data)
    values = None if mask is None else count_values(mask)
    colours: Mapping[int, int] | None = values if content.colour else None
    if values is not None and palette is not None:  # of the values and not of the pixels, which are many
        counter: Counter[int] = Counter()
        for value, pixels in values.items():
            counter[int(palette[min(value, len(palette) - 1)])] += pixels
        colours = counter
    return Measured(
        shape=first.shape[:2] if colour_image else first.shape,
        channels=3 if colour_image else len(content.images),
        dtype=str(first.dtype),
        digest=digest.hexdigest(),
        values=values,
        colours=colours,
        colour=content.by_colour,
        spacing=content.volumes[0].GetSpacing()[::-1] if content.volumes else None,
        findings=tuple(replace(finding, case=case.name) for finding in findings),
    )


def inspect(conversion: Conversion, threads: int = 8, skip_bad: bool = False) -> Inspection:
    """Read all cases of a conversion and judge them.

    Args:
        conversion: what a layout found.
        threads: how many cases to read at a time, at most.
        skip_bad: leave out cases that cannot be used (with a warning) instead of counting them as errors.
    """

    def try_to_measure(case: SourceCase) -> Measured | Finding:
        try:
            return measure(conversion, case)
        except CaseError as error:
            return Finding("error", error.topic, error.detail, case.name)

    everything = conversion.cases
    results = in_threads(try_to_measure, everything, min(threads, conversion.threads), "reading")
    measured = {case.name: each for case, each in zip(everything, results) if isinstance(each, Measured)}
    findings = Findings([*conversion.findings, *(each for each in results if isinstance(each, Finding))])
    for each in measured.values():
        findings += each.findings
    for case in everything:
        if (length := len(os.fsencode(case.name))) > MAX_NAME:
            findings.error(
                f"name is too long for a case: up to {MAX_NAME} bytes fit into the names of files (rename the files, "
                "or have --image-key take a part of their names)",
                f"{length} bytes",
                case.name,
            )
        if case.label is None and case.part != "test" and case.images:
            findings.error("training image without a mask", str(case.images[0]), case.name)
    if tests := sum(case.label is None and case.part == "test" for case in everything):
        findings.note(f"{tests} test images have no mask: they can be predicted, not scored")
    labels = _resolve_labels(conversion, measured, findings)
    if labels is not None:
        _judge_labels(everything, measured, labels, findings)
    _judge_channels(measured, findings)
    names = {case.name for case in everything} if skip_bad else set()
    left_out = names & {finding.case for finding in findings if finding.severity == "error"}
    for index, finding in enumerate(findings):
        if finding.severity == "error" and finding.case in left_out:
            findings[index] = replace(finding, severity="warning", topic=f"left out: {finding.topic}")
    cases = tuple(case for case in everything if case.name not in left_out)
    measured = {name: each for name, each in measured.items() if name not in left_out}
    _judge_duplicates(cases, measured, findings)
    training = [case.part for case in cases if case.part != "test"]
    if "train" not in training:
        findings.error("there is no training case; nnU-Net needs images with masks to train on, not only to validate")
    elif len(training) < DEFAULT_FOLDS and "val" not in training and not conversion.folds:
        findings.warning(
            f"{plural(len(training), 'training case')} cannot make the {DEFAULT_FOLDS} folds that nnU-Net draws: train "
            "with FOLD all, or have fewer folds written (--folds, which `images` and `volumes` take)"
        )
    of_pictures = ("R", "G", "B") if _usual(each.channels for each in measured.values()) == 3 else ("grey",)
    # PNG has no floats, and Pillow writes no 16-bit colour
    fits = all(m.dtype == "uint8" or (m.dtype == "uint16" and m.channels == 1) for m in measured.values())
    return Inspection(
        replace(
            conversion,
            channels=conversion.channels or of_pictures,
            ending=conversion.ending or (".png" if fits else ".tif"),
        ),
        cases,
        measured,
        labels,
        tuple(dict.fromkeys(findings)),
        len(left_out),
    )


def _usual(numbers: Iterable[int]) -> int:
    return next((number for number, _ in Counter(numbers).most_common(1)), 1)


def _resolve_labels(conversion: Conversion, measured: Mapping[str, Measured], findings: Findings) -> LabelMap | None:
    """The label map; None where there is an error."""
    rule = conversion.labels
    masks = {name: each for name, each in measured.items() if each.values is not None}
    asked = bool(rule.entries) and rule.entries[0].colour and all(each.colours is not None for each in masks.values())
    by_index = bool(rule.entries) and not rule.entries[0].colour  # which a palette has, whatever its black is
    colour = any(each.colour and not (by_index and each.values != each.colours) for each in masks.values())
    colour = colour or (asked and bool(masks))
    total: Counter[int] = Counter()
    shades: dict[int, int] = {}  # of palettes' indices, beside which a grey mask's labels may stand
    for each in masks.values() if not (colour or rule.entries) and rule.threshold is None else ():
        indices, colours = each.of_mask(False), each.of_mask(True)
        for index, shade in zip(indices, colours) if len(indices) == len(colours) else ():
            if shade != (index * 0x010101 or -1) and shades.setdefault(index, shade) != shade:
                colour = True
    if shades and colour:
        findings.warning(
            "palettes of the masks have different colours for one index, so labels go by colour (--label NAME=INDEX "
            "makes them go by index)"
        )
    for name, each in masks.items():
        total.update(each.of_mask(colour))
        if colour and each.colours is None:
            findings.error("mask has values beyond 255 where other masks are coloured", case=name)
    try:
        return resolve(rule, total, colour)
    except LabelError as error:
        findings.error(str(error))
        return None


def _judge_labels(
    cases: Sequence[SourceCase], measured: Mapping[str, Measured], labels: LabelMap, findings: Findings
) -> None:
    parts: dict[bool, set[int]] = {False: set(), True: set()}
    for case in cases:
        if case.name not in measured or measured[case.name].values is None:
            continue
        values = measured[case.name].of_mask(labels.colour)
        if unknown := labels.unknown(values):
            shown = listed(f"{labels.show(v)} ({values[v]} pixels)" for v in unknown)
            expected = ", ".join(map(labels.show, sorted(labels.lookup)))
            findings.error(f"mask has values that are not in the label map ({expected})", shown, case.name)
            continue
        counts = labels.count(values)
        parts[case.part == "test"] |= set(counts)
        if set(counts) <= {0}:
            findings.warning("mask is all background", case=case.name)
        elif 0 not in counts and len(labels.names) == 2:
            findings.warning("mask is all foreground", case=case.name)
        if unlisted := sorted(labels.unlisted & values.keys()):
            shown = listed(map(labels.show, unlisted))
            findings.warning("mask values that are not listed became background", shown, case.name)
        between = sum(pixels for value, pixels in values.items() if value not in (0, 255))
        if labels.threshold and between:
            share = f"{100 * between / sum(values.values()):.2g} % of pixels in between"
            findings.warning(f"mask is not purely 0/255 (JPEG?): cut at {labels.threshold}", share, case.name)
    for name, label in labels.names.items():
        if label and parts[False] and label not in parts[False]:
            where = "a training mask" if label in parts[True] else "any mask"
            findings.warning(f'label {label} ("{name}") is not in {where}: nnU-Net cannot learn it')


def _judge_channels(measured: Mapping[str, Measured], findings: Findings) -> None:
    usual = _usual(each.channels for each in measured.values())
    for name, each in measured.items():
        if each.channels != usual and each.spacing is None:  # volumes' missing channels are told already
            topic = f"image has not {plural(usual, 'channel')} like the others; --channels makes them alike"
            findings.error(topic, f"{each.channels}", name)
    dtypes = Counter(each.dtype for each in measured.values())
    if len(dtypes) > 1:
        shown = ", ".join(f"{count} x {dtype}" for dtype, count in dtypes.most_common())
        findings.warning("images have different number types; check that they are scaled alike", shown)


def _judge_duplicates(cases: Sequence[SourceCase], measured: Mapping[str, Measured], findings: Findings) -> None:
    by_digest = defaultdict(list)
    for case in cases:
        if case.name in measured:
            by_digest[measured[case.name].digest].append(case)
    for same in by_digest.values():
        shown = ", ".join(f"{case.name} ({case.part})" for case in same[:5])
        if len({case.part for case in same}) > 1:
            findings.warning("the same image in several of train, validation and test", shown, same[0].name)
        elif len({case.unit for case in same}) > 1:
            findings.warning("the same image several times", shown, same[0].name)
