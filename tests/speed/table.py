"""Figures as Markdown tables.  Needs no torch.

Times of a CPU are shown as ratios within the run only: what a laptop or a shared machine does in milliseconds says
nothing about another.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.speed.record import (
    BASELINE,
    BLOCK,
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    SAVED,
    STEP,
    Figure,
    measured,
)
from tests.speed.targets import verdicts

NOTHING = "-"
SCANS = ("scan", CORE, BLOCK)
_MODES = (EAGER, COMPILED, GRAPH)


def markdown(document: Mapping[str, Any]) -> str:
    """Everything in a document: device, targets, scans, networks, memory, and what could not be measured."""
    figures, device = document["figures"], document["device"]
    found = measured(figures)
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items() if number)
    parts = [f"## {device['name']}: {document['command']}, {document['date'][:10]}", versions + "."]
    if device["type"] != "cuda":
        parts.append("A CPU: times as ratios within this run only, and none of them counts towards a target.")
    parts += [
        "### What to reach on an H200", _targets(document),
        _section("Scans", scan_rows(found, device["type"])),
        _section("Whole networks", network_rows(found, device["type"])),
        _section("Kept for backward, MiB", saved_rows(found)),
        _list("Checks", [f"{'passed' if c['passed'] else 'FAILED'}: {c['name']}, {c['detail']}" for c in
                         document.get("checks", [])]),
        _list("Not measured", [f.line() for f in figures if f.problem]),
        _list("No time left for", document.get("not_run", [])),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def scan_rows(figures: Sequence[Figure], device: str) -> list[tuple[str, ...]]:
    """Head and rows: the fused form, and how many times longer the others take."""
    rows = []
    for f in figures:
        if f.what in SCANS and f.passes != SAVED and f.pipeline.startswith(FUSED):
            name = f.what if f.pipeline == FUSED else f"{f.what} ({f.pipeline.removeprefix('fused, ')})"
            rows.append((
                name, f.passes, f.backend or NOTHING, *_images(f), f"{f.stride}, {f.channels}",
                _number(f.milliseconds if device == "cuda" else None), _percent(f.spread), _number(f.giga_state_steps),
                _number(f.percent_of_exp_bound),
                *(_ratio(_same(figures, f, pipeline=p), f) for p in (OWN, MAMBA_SSM)), _number(f.peak_mebibytes),
            ))  # fmt: skip
    head = ("what", "passes", "backend", "batch", "H x W", "dtype", "stride, D", "ms", "spread",
            "G state-steps/s", "% of exp bound", "own 1D / fused", "mamba_ssm / fused", "peak MiB")  # fmt: skip
    return [head, *rows] if rows else []


def network_rows(figures: Sequence[Figure], device: str) -> list[tuple[str, ...]]:
    """Head and rows: each network, and how many times longer the other pipelines take."""
    chosen = [f for f in figures if f.passes in (STEP, INFERENCE) and f.pipeline == FUSED]
    names = list(dict.fromkeys(f.what for f in chosen))
    unit = BASELINE if BASELINE in names else (names or [""])[0]
    rows = []
    for f in sorted(chosen, key=lambda f: (f.passes != STEP, f.dtype, f.batch, f.size, _MODES.index(f.mode))):
        base = None if device == "cuda" else _same(figures, f, what=unit, mode=EAGER)
        eager = None if f.mode == EAGER else _same(figures, f, mode=EAGER)
        rows.append((
            f.what, f.passes, *_images(f), f.mode,
            _number(f.milliseconds) if device == "cuda" else _ratio(f, base), _percent(f.spread), _ratio(f, eager),
            *(_ratio(_same(figures, f, pipeline=p), f) for p in (OWN, MAMBA_SSM)), _number(f.giga_state_steps),
            _number(f.percent_of_exp_bound), _number(f.peak_mebibytes),
            *(_number(_peak(_same(figures, f, pipeline=p))) for p in (OWN, MAMBA_SSM)),
        ))  # fmt: skip
    time = "ms" if device == "cuda" else f"time / {unit}'s"
    head = ("network", "passes", "batch", "H x W", "dtype", "mode", time, "spread", "/ eager", "own 1D / fused",
            "mamba_ssm / fused", "G state-steps/s", "% of exp bound", "peak MiB", "own 1D", "mamba_ssm")  # fmt: skip
    return [head, *rows] if rows else []


def saved_rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Head and rows: bytes that autograd keeps in one SS2D, and as a share of the materialised pipelines'."""
    rows = []
    for f in figures:
        if f.passes == SAVED and f.pipeline == FUSED:
            others = [_same(figures, f, pipeline=p) for p in (OWN, MAMBA_SSM)]
            kept = [other.saved_mebibytes if other else None for other in others]
            shares = [_number(f.saved_mebibytes / k) if k and f.saved_mebibytes else NOTHING for k in kept]
            rows.append((f.what, *_images(f), f"{f.stride}, {f.channels}", _number(f.saved_mebibytes),
                         *map(_number, kept), *shares))  # fmt: skip
    head = ("what", "batch", "H x W", "dtype", "stride, D", "fused", "own 1D", "mamba_ssm", "fused / own 1D",
            "fused / mamba_ssm")  # fmt: skip
    return [head, *rows] if rows else []


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it can be read as it is too (the last column is not); the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] + [len(rows[0][-1])]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _targets(document: Mapping[str, Any]) -> str:
    return table([("verdict", "target", "measured"), *((v.verdict, v.target, v.measured) for v in verdicts(document))])


def _same(figures: Iterable[Figure], like: Figure, **changed: object) -> Figure | None:
    """The figure that differs from `like` in what is named only (and in the backend, where the pipeline differs)."""
    keys = ("what", "pipeline", "mode", "passes", "dtype", "batch", "size", "stride", "channels")
    wanted = {key: getattr(like, key) for key in keys} | changed
    if wanted["pipeline"] == like.pipeline and "what" not in changed:
        wanted["backend"] = like.backend
    return next((f for f in figures if all(getattr(f, key) == value for key, value in wanted.items())), None)


def _images(figure: Figure) -> tuple[str, str, str]:
    return str(figure.batch), f"{figure.size[0]} x {figure.size[1]}", figure.dtype


def _ratio(figure: Figure | None, base: Figure | None) -> str:
    if figure is None or base is None or not figure.milliseconds or not base.milliseconds:
        return NOTHING
    return f"{figure.milliseconds / base.milliseconds:.2f}"


def _peak(figure: Figure | None) -> float | None:
    return figure.peak_mebibytes if figure else None


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def _without_empty(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Without the columns in which no row holds anything."""
    kept = [i for i in range(len(rows[0])) if any(row[i] != NOTHING for row in rows[1:])]
    return [tuple(row[i] for i in kept) for row in rows]


def _section(title: str, rows: list[tuple[str, ...]]) -> str:
    return f"### {title}\n\n{table(_without_empty(rows))}" if rows else ""


def _list(title: str, lines: Sequence[str]) -> str:
    return f"### {title}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
