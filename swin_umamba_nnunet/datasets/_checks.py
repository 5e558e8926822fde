"""Reading every case before anything is written, and what that brings to light."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from tqdm import tqdm

from swin_umamba_nnunet.datasets._labels import LabelError, LabelMap, resolve, show_value
from swin_umamba_nnunet.datasets._model import Case, CaseError, Finding, Measured, Plan

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_THREADS = 8
MAX_NAME = 200  # bytes; file systems take 255, and endings, _0000 and names for half-written things are added


@dataclass(frozen=True)
class Inspection:
    """A plan whose cases have been read, with everything that writing needs.

    Attributes:
        plan: as it was made; `plan.cases` still holds the cases that were left out.
        cases: the cases to write.
        measured: case name -> what was measured.
        labels: how raw mask values become labels; None where that failed (there is an error then).
        channel_names: for dataset.json.
        file_ending: for dataset.json.
        findings: of planning and of reading.
        left_out: cases with errors, where the user wants them left out.
    """

    plan: Plan
    cases: tuple[Case, ...]
    measured: Mapping[str, Measured]
    labels: LabelMap | None
    channel_names: tuple[str, ...]
    file_ending: str
    findings: tuple[Finding, ...]
    left_out: tuple[Case, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the dataset from being written."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int, text: str, progress: bool = True
) -> list[Result]:
    """`function` of every item, in order, with a progress bar (on a terminal).

    Decoders release the interpreter lock, so threads are enough.  The first exception stops it, Ctrl-C does at once:
    what has not begun is not begun any more.
    """
    threads = max(1, min(threads, MAX_THREADS, os.cpu_count() or 1))
    with ThreadPoolExecutor(threads) as pool:
        try:
            results = pool.map(function, items)
            return list(tqdm(results, total=len(items), desc=text, unit="case", disable=None if progress else True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def inspect(plan: Plan, threads: int = MAX_THREADS, skip_bad: bool = False, progress: bool = True) -> Inspection:
    """Read all cases of a plan and judge them.

    Args:
        plan: what a layout found.
        threads: how many cases to read at a time, at most.
        skip_bad: leave out cases that cannot be used (with a warning) instead of counting them as errors.
        progress: show a bar, on a terminal.
    """

    def measure(case: Case) -> Measured | Finding:
        try:
            return plan.handler.measure(case)
        except CaseError as error:
            return Finding("error", error.topic, error.detail, case.name)

    threads = min(threads, plan.handler.threads)
    results = in_threads(measure, plan.cases, threads, "reading", progress)
    measured = {case.name: each for case, each in zip(plan.cases, results) if isinstance(each, Measured)}
    findings = [*plan.findings, *(each for each in results if isinstance(each, Finding))]
    findings += [finding for each in measured.values() for finding in each.findings]
    findings += [
        Finding(
            "error",
            f"name is too long for a case: up to {MAX_NAME} bytes fit into the names of files (rename the files, or "
            "have --image-key take a part of their names)",
            f"{len(os.fsencode(case.name))} bytes",
            case.name,
        )
        for case in plan.cases
        if len(os.fsencode(case.name)) > MAX_NAME
    ]
    findings += _without_label(plan.cases)
    labels, colour, problems = _resolve_labels(plan, measured)
    findings += problems
    if labels is not None:
        findings += _judge_labels(plan.cases, measured, labels, colour)
    findings += _judge_channels(measured)
    bad = {f.case for f in findings if f.severity == "error" and f.case in {case.name for case in plan.cases}}
    left_out = tuple(case for case in plan.cases if case.name in bad) if skip_bad else ()
    if left_out:
        skipped = {case.name for case in left_out}
        findings = [
            replace(f, severity="warning", topic=f"left out: {f.topic}")
            if f.severity == "error" and f.case in skipped
            else f
            for f in findings
        ]
        measured = {name: each for name, each in measured.items() if name not in skipped}
    cases = tuple(case for case in plan.cases if case not in left_out)
    findings += _judge_duplicates(cases, measured)
    if not [case for case in cases if case.part != "test"]:
        findings.append(Finding("error", "there is no training case; nnU-Net needs images with masks to train on"))
    channels = Counter(each.channels for each in measured.values()).most_common(1)
    return Inspection(
        plan=plan,
        cases=cases,
        measured=measured,
        labels=labels,
        channel_names=plan.handler.channel_names(channels[0][0] if channels else 1),
        file_ending=plan.handler.file_ending(measured.values()),
        findings=tuple(dict.fromkeys(findings)),
        left_out=left_out,
    )


def _without_label(cases: Iterable[Case]) -> list[Finding]:
    missing = [case for case in cases if case.label is None]
    findings = [
        Finding("error", "training image without a mask", str(case.images[0]), case.name)
        for case in missing
        if case.part != "test" and case.images
    ]
    tests = [case for case in missing if case.part == "test"]
    if tests:
        findings.append(Finding("note", f"{len(tests)} test images have no mask: they can be predicted, not scored"))
    return findings


def _values(each: Measured, colour: bool) -> Mapping[int, int]:
    return (each.colours or {}) if colour else (each.values or {})


def _resolve_labels(plan: Plan, measured: Mapping[str, Measured]) -> tuple[LabelMap | None, bool, list[Finding]]:
    with_mask = {name: each for name, each in measured.items() if each.values is not None}
    colour = any(each.colour for each in with_mask.values())
    asked = bool(plan.labels.entries) and plan.labels.entries[0].colour
    if asked and with_mask and all(each.colours is not None for each in with_mask.values()):
        colour = True
    findings = []
    if colour:
        odd = [name for name, each in with_mask.items() if each.colours is None]
        findings = [Finding("error", "mask has values beyond 255 where other masks are coloured", case=n) for n in odd]
        with_mask = {name: each for name, each in with_mask.items() if each.colours is not None}
    total: Counter[int] = Counter()
    for each in with_mask.values():
        total.update(_values(each, colour))
    try:
        return resolve(plan.labels, total, colour), colour, findings
    except LabelError as error:
        return None, colour, [*findings, Finding("error", str(error))]


def _judge_labels(
    cases: Sequence[Case], measured: Mapping[str, Measured], labels: LabelMap, colour: bool
) -> list[Finding]:
    findings = []
    parts: dict[str, set[int]] = defaultdict(set)
    for case in cases:
        each = measured.get(case.name)
        if each is None or each.values is None:
            continue
        values = _values(each, colour)
        unknown = labels.unknown(values)
        if unknown:
            shown = ", ".join(f"{show_value(v, colour)} ({values[v]} pixels)" for v in unknown[:5])
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            expected = ", ".join(f"{show_value(v, colour)}" for v in sorted(labels.lookup))
            findings.append(
                Finding("error", f"mask has values that are not in the label map ({expected})", shown + more, case.name)
            )
            continue
        counts = labels.count(values)
        parts["test" if case.part == "test" else "train"] |= set(counts)
        if set(counts) <= {0}:
            findings.append(Finding("warning", "mask is all background", case=case.name))
        elif 0 not in counts and len(labels.names) == 2:
            findings.append(Finding("warning", "mask is all foreground", case=case.name))
        unlisted = sorted(set(values) - set(labels.lookup)) if labels.rest is not None else []
        if unlisted:
            shown = ", ".join(show_value(value, colour) for value in unlisted[:5])
            findings.append(Finding("warning", "mask values that are not listed became background", shown, case.name))
        if labels.threshold and set(values) - {0, 255}:
            between = sum(pixels for value, pixels in values.items() if value not in (0, 255))
            share = 100 * between / max(1, sum(values.values()))
            findings.append(Finding("warning", f"mask is not purely 0/255 (JPEG?): cut at {labels.threshold}",
                                    f"{share:.2g} % of pixels in between", case.name))  # fmt: skip
    for name, label in labels.names.items():
        if label and parts["train"] and label not in parts["train"]:
            where = "any mask" if label not in parts["test"] else "a training mask"
            findings.append(Finding("warning", f'label {label} ("{name}") is not in {where}: nnU-Net cannot learn it'))
    return findings


def _judge_channels(measured: Mapping[str, Measured]) -> list[Finding]:
    findings = []
    channels = Counter(each.channels for each in measured.values())
    if len(channels) > 1:
        usual = channels.most_common(1)[0][0]
        odd = [name for name, each in measured.items() if each.channels != usual]
        topic = f"image has not {usual} channel{'s' if usual > 1 else ''} like the others; --channels makes them alike"
        findings += [Finding("error", topic, f"{measured[name].channels}", name) for name in odd]
    dtypes = Counter(each.dtype for each in measured.values())
    if len(dtypes) > 1:
        shown = ", ".join(f"{count} x {dtype}" for dtype, count in dtypes.most_common())
        findings.append(
            Finding("warning", "images have different number types; check that they are scaled alike", shown)
        )
    return findings


def _judge_duplicates(cases: Sequence[Case], measured: Mapping[str, Measured]) -> list[Finding]:
    by_digest: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.name in measured:
            by_digest[measured[case.name].digest].append(case)
    findings = []
    for same in by_digest.values():
        if len(same) < 2:
            continue
        shown = ", ".join(f"{case.name} ({case.part})" for case in same[:5])
        if len({case.part for case in same}) > 1:
            findings.append(
                Finding("warning", "the same image in several of train, validation and test", shown, same[0].name)
            )
        elif len({case.group if case.group is not None else case.name for case in same}) > 1:
            findings.append(Finding("warning", "the same image several times", shown, same[0].name))
    return findings
