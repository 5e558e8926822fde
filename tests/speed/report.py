"""Figures as Markdown tables, the first of which says what was to be reached.  Needs no torch."""

from collections import Counter
from dataclasses import replace

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet._text import table as aligned
from tests.speed.record import (
    BLOCK,
    CORE,
    EAGER,
    FUSED,
    INFERENCE,
    KERNELS,
    LAUNCHES,
    LOOP,
    MAMBA_SSM,
    MAMBAPY,
    OWN,
    SAVED,
    SCAN,
    SEQUENCE,
    STEP,
    WITHOUT,
    Figure,
)
from tests.speed.targets import CLOCKS, KEPT, TIME, clocks, percent_of_exp_bound, same, verdicts

NOTHING = "-"
OTHERS = {OWN: "own 1D", MAMBA_SSM: "mamba_ssm", LOOP: LOOP, MAMBAPY: "mambapy"}  # pipelines that are compared


def markdown(document):
    """Everything in a document: device, targets, scans, networks, memory, and what could not be measured."""
    figures, device = document["figures"], document["device"]
    found = [figure for figure in figures if not figure.problem]
    fused = [f for f in found if f.pipeline.startswith(FUSED)]
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if number)
    asked = document["command"] == "gpu-check"
    columns = _columns(found, device)
    best, fastest = _launches(found)
    parts = [
        f"## {device['name']}: {document['command']}, {document['date'][:10]}\n\n{versions}.",
        "" if device["type"] == "cuda" else "A CPU: times compare within this run only; none counts towards a target.",
        "### What to reach on an H200\n\n"
        + table([("verdict", "target", "predicted", "measured"), *verdicts(document)])
        if asked
        else "",
        _list("Checks", _checks(document["checks"])),
        "Values were not checked." if asked and not any(check.group for check in document["checks"]) else "",
        _section("Kernels", [f for f in fused if f.what in KERNELS and f.pipeline == FUSED], columns),
        _section("Fastest launches", best, fastest),
        _section("Scans", [f for f in fused if f.what in (SCAN, CORE, BLOCK, SEQUENCE) and f.passes != SAVED], columns),
        _section("Whole networks", [f for f in fused if f.passes in (STEP, INFERENCE)], columns),
        _section("Kept for backward", [f for f in fused if f.passes == SAVED], columns),
        _list("Not measured", [figure.line() for figure in figures if figure.problem]),
        _list("Not reached", document["not_run"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _checks(checks):
    """Each that failed or stands alone, and for a group of tests how many passed."""
    passed = Counter(check.group for check in checks if check.group and not (check.problem or check.skipped))
    rest = [check.line() for check in checks if not check.group or check.problem or check.skipped]
    return [*(f"passed: {group}, {count} tests" for group, count in passed.items()), *rest]


_PLACE = {
    "passes": lambda f: f.passes,
    "batch": lambda f: str(f.batch),
    "H x W": lambda f: by(f.size),
    "dtype": lambda f: f.dtype,
    "stride, D": lambda f: NOTHING if f.channels is None else f"{f.stride}, {f.channels}",
}


def _columns(found, device):
    """{head: what stands there for a figure}; a table leaves out those in which none of its figures has anything."""

    def ratio(over, under, value=TIME):
        one, other = value(over), value(under)
        return f"{one / other:.2f}" if one and other else NOTHING

    return {
        "what": lambda f: f.what + (f" ({f.pipeline.removeprefix('fused, ')})" if f.pipeline != FUSED else ""),
        "backend": lambda f: f.backend or NOTHING,
        **_PLACE,
        "mode": lambda f: f.mode,
        "ms": lambda f: number(f.milliseconds),
        "spread": lambda f: NOTHING if f.spread is None else f"{f.spread:.0%}",
        "G state-steps/s": lambda f: number(f.giga_state_steps),
        "% of exp bound": lambda f: number(percent_of_exp_bound(f, device) if f.what in (SCAN, CORE, BLOCK) else None),
        "clocks": lambda f: number(clocks(f, device) if f.what in KERNELS else None),
        "predicted": lambda f: number(CLOCKS.get(f.what, (None, None))[1]),
        "/ eager": lambda f: NOTHING if f.mode == EAGER else ratio(f, same(found, f, mode=EAGER)),
        "/ without scans": lambda f: ratio(f, same(found, f, pipeline=WITHOUT)),
        **{f"{OTHERS[p]} / fused": lambda f, p=p: ratio(same(found, f, pipeline=p), f) for p in OTHERS},
        "peak MiB": lambda f: number(f.peak_mebibytes),
        **{f"{OTHERS[p]} peak": lambda f, p=p: number(same(found, f, pipeline=p).peak_mebibytes) for p in OTHERS},
        "kept MiB": lambda f: number(f.saved_mebibytes),
        **{f"of {OTHERS[p]}": lambda f, p=p: ratio(f, same(found, f, pipeline=p), KEPT) for p in OTHERS},
    }


def _launches(found):
    """For each pass and stage the kernels' time together as they are launched, and the fastest way that was tried."""
    sums = {}
    for f in found:
        if f.what in KERNELS and f.milliseconds:
            place = Figure(LAUNCHES, passes=f.passes, dtype=f.dtype, batch=f.batch, size=f.size)
            times = sums.setdefault(replace(place, stride=f.stride, channels=f.channels), {})
            times[f.pipeline] = times.get(f.pipeline, 0.0) + f.milliseconds
    launched = {place: times.pop(FUSED, None) for place, times in sums.items()}
    best = {place: min((time, how) for how, time in times.items()) for place, times in sums.items() if times}
    return list(best), {
        **_PLACE,
        "ms as launched": lambda f: number(launched[f]),
        "ms at best": lambda f: number(best[f][0]),
        "with": lambda f: best[f][1].removeprefix("fused, "),
    }


def number(value):
    """Three digits, or more before the point."""
    return NOTHING if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows):
    """Markdown, padded so that it can be read as it is too; the first row is the head."""
    head, *lines = (f"| {line} |" for line in aligned(rows, between=" | "))
    return "\n".join([head, "|---" * len(rows[0]) + "|", *lines])


def _section(title, figures, columns):
    """Figures in a table, without the columns in which none has anything."""
    cells = {head: [column(figure) for figure in figures] for head, column in columns.items()}
    kept = {head: column for head, column in cells.items() if set(column) - {NOTHING}}
    return f"### {title}\n\n" + table([tuple(kept), *zip(*kept.values())]) if figures else ""


def _list(title, lines):
    return f"### {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
