"""Figures as Markdown tables, the first of which says what was to be reached.  Needs no torch."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet._text import table as aligned
from tests.speed.record import (
    BLOCK,
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GRAPH,
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
from tests.speed.targets import CLOCKS, clocks, verdicts

NOTHING = "-"
OTHERS = {OWN: "own 1D", MAMBA_SSM: "mamba_ssm", LOOP: LOOP, MAMBAPY: "mambapy"}  # pipelines that are compared
_Columns = Mapping[str, Callable[[Figure], str]]


def markdown(document: Mapping[str, Any]) -> str:
    """Everything in a document: device, targets, scans, networks, memory, and what could not be measured."""
    figures, device = document["figures"], document["device"]
    found = [figure for figure in figures if not figure.problem]
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if number)
    targets = [("verdict", "target", "predicted", "measured")]
    targets += [(v.verdict, v.target, v.predicted, v.measured) for v in verdicts(document)]
    asked = document["command"] == "gpu-check"
    parts = [
        f"## {device['name']}: {document['command']}, {document['date'][:10]}\n\n{versions}.",
        "" if device["type"] == "cuda" else "A CPU: times compare within this run only; none counts towards a target.",
        "### What to reach on an H200\n\n" + table(targets) if asked else "",
        _list("Checks", _checks(document["checks"])),
        "Values were not checked." if asked and not any("group" in c for c in document["checks"]) else "",
        _section("Kernels", [f for f in found if f.what in KERNELS and f.pipeline == FUSED], _kernel_columns(device)),
        _section("Fastest launches", *_launches(found)),
        _section("Scans", _scans(found), _scan_columns(found)),
        _section("Whole networks", _networks(found), _network_columns(found)),
        _section("Kept for backward, MiB", _saved(found), _saved_columns(found)),
        _list("Not measured", [figure.line() for figure in figures if figure.problem]),
        _list("Not reached", document["not_run"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each that failed or stands alone, and for a group of tests how many passed."""
    passed = Counter(c["group"] for c in checks if "group" in c and c["passed"])
    rest = [c for c in checks if "group" not in c or not c["passed"]]
    return [*(f"passed: {group}, {count} tests" for group, count in passed.items()), *map(line, rest)]


def line(result: Figure | Mapping[str, Any]) -> str:
    """A figure or check in one line."""
    if isinstance(result, Figure):
        return result.line()
    word = {True: "passed", False: "FAILED", None: "skipped"}[result["passed"]]
    return ", ".join(filter(None, (f"{word}: {result['name']}", result["detail"])))


def _kernel_columns(device: Mapping[str, Any]) -> _Columns:
    return {
        "kernel": lambda f: f.what,
        **_IMAGES,
        **_STAGE,
        "ms": lambda f: number(f.milliseconds),
        "clocks": lambda f: number(clocks(f, device)),
        "predicted": lambda f: number(CLOCKS[f.what][1]),
    }


def _launches(found: Sequence[Figure]) -> tuple[list[Figure], _Columns]:
    """For each pass and stage the kernels' time together as they are launched, and the fastest way that was tried."""
    sums: dict[Figure, dict[str, float]] = {}
    for f in found:
        if f.what in KERNELS and f.milliseconds:
            place = Figure(LAUNCHES, passes=f.passes, dtype=f.dtype, batch=f.batch, size=f.size)
            times = sums.setdefault(replace(place, stride=f.stride, channels=f.channels), {})
            times[f.pipeline] = times.get(f.pipeline, 0.0) + f.milliseconds
    sums = {place: times for place, times in sums.items() if set(times) - {FUSED}}
    best = {place: min((time, how) for how, time in times.items() if how != FUSED) for place, times in sums.items()}
    return list(sums), {
        "passes": lambda f: f.passes,
        **_IMAGES,
        **_STAGE,
        "ms as launched": lambda f: number(sums[f].get(FUSED)),
        "ms at best": lambda f: number(best[f][0]),
        "with": lambda f: best[f][1].removeprefix("fused, "),
    }


def _scans(found: Sequence[Figure]) -> list[Figure]:
    kinds = (SCAN, CORE, BLOCK, SEQUENCE)
    return [f for f in found if f.what in kinds and f.passes != SAVED and f.pipeline.startswith(FUSED)]


def _scan_columns(found: Sequence[Figure]) -> _Columns:
    return {
        "what": lambda f: f.what + (f" ({f.pipeline.removeprefix('fused, ')})" if f.pipeline != FUSED else ""),
        "passes": lambda f: f.passes,
        "backend": lambda f: f.backend or NOTHING,
        **_IMAGES,
        **_STAGE,
        **_TIME,
        **{f"{short} / fused": _longer(found, pipeline) for pipeline, short in OTHERS.items()},
        "peak MiB": lambda f: number(f.peak_mebibytes),
    }


def _networks(found: Sequence[Figure]) -> list[Figure]:
    """What is fused, by what is compared with each other."""
    modes = (EAGER, COMPILED, GRAPH)
    chosen = [f for f in found if f.passes in (STEP, INFERENCE) and f.pipeline == FUSED]
    return sorted(chosen, key=lambda f: (f.passes != STEP, f.dtype, f.batch, f.size, modes.index(f.mode)))


def _network_columns(found: Sequence[Figure]) -> _Columns:
    compared = (OWN, MAMBA_SSM)
    return {
        "network": lambda f: f.what,
        "passes": lambda f: f.passes,
        **_IMAGES,
        "mode": lambda f: f.mode,
        **_TIME,
        "/ eager": lambda f: NOTHING if f.mode == EAGER else ratio(f, same(found, f, mode=EAGER)),
        "/ without scans": lambda f: ratio(f, same(found, f, pipeline=WITHOUT)),
        **{f"{OTHERS[pipeline]} / fused": _longer(found, pipeline) for pipeline in compared},
        "peak MiB": lambda f: number(f.peak_mebibytes),
        **{OTHERS[p]: lambda f, p=p: number(same(found, f, pipeline=p).peak_mebibytes) for p in compared},
    }


def _saved(found: Sequence[Figure]) -> list[Figure]:
    return [f for f in found if f.passes == SAVED and f.pipeline == FUSED]


def _saved_columns(found: Sequence[Figure]) -> _Columns:
    def share(f, pipeline):
        kept = same(found, f, pipeline=pipeline).saved_mebibytes
        return number(f.saved_mebibytes / kept) if kept and f.saved_mebibytes else NOTHING

    columns = {"what": lambda f: f.what, **_IMAGES, **_STAGE}
    columns[FUSED] = lambda f: number(f.saved_mebibytes)
    for p in (OWN, MAMBA_SSM):
        columns[OTHERS[p]] = lambda f, p=p: number(same(found, f, pipeline=p).saved_mebibytes)
        columns[f"fused / {OTHERS[p]}"] = lambda f, p=p: share(f, p)
    return columns


_IMAGES: _Columns = {"batch": lambda f: str(f.batch), "H x W": lambda f: by(f.size), "dtype": lambda f: f.dtype}
_STAGE: _Columns = {"stride, D": lambda f: f"{f.stride}, {f.channels}"}
_TIME: _Columns = {
    "ms": lambda f: number(f.milliseconds),
    "spread": lambda f: NOTHING if f.spread is None else f"{f.spread:.0%}",
    "G state-steps/s": lambda f: number(f.giga_state_steps),
    "% of exp bound": lambda f: number(f.percent_of_exp_bound),
}


def _longer(found: Sequence[Figure], pipeline: str) -> Callable[[Figure], str]:
    return lambda f: ratio(same(found, f, pipeline=pipeline), f)


def same(found: Iterable[Figure], like: Figure, **changed: Any) -> Figure:
    """The figure that differs from `like` in what is named only (and in the backend, where the pipeline differs)."""
    keys = ["what", "pipeline", "mode", "passes", "dtype", "batch", "size", "stride", "channels"]
    wanted = replace(like, **changed)
    keys += ["backend"] if wanted.pipeline == like.pipeline else []
    hits = (f for f in found if all(getattr(f, key) == getattr(wanted, key) for key in keys))
    return next(hits, Figure("nothing"))


def ratio(figure: Figure, base: Figure) -> str:
    """How many times longer it takes than the other."""
    if not figure.milliseconds or not base.milliseconds:
        return NOTHING
    return f"{figure.milliseconds / base.milliseconds:.2f}"


def number(value: float | None) -> str:
    """Three digits, or more before the point."""
    return NOTHING if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it can be read as it is too; the first row is the head."""
    head, *lines = (f"| {line} |" for line in aligned(rows, between=" | "))
    return "\n".join([head, "|---" * len(rows[0]) + "|", *lines])


def _section(title: str, figures: Sequence[Figure], columns: _Columns) -> str:
    """Figures in a table, without the columns in which none has anything."""
    cells = {head: [column(figure) for figure in figures] for head, column in columns.items()}
    kept = {head: column for head, column in cells.items() if set(column) - {NOTHING}}
    return f"### {title}\n\n" + table([tuple(kept), *zip(*kept.values())]) if figures else ""


def _list(title: str, lines: Sequence[str]) -> str:
    return f"### {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
