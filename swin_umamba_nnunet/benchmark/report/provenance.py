"""What ran, on what, from what: commands, versions, hardware, hashes."""

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from swin_umamba_nnunet.benchmark.report.collect import Benchmark
from swin_umamba_nnunet.benchmark.report.words import DASH

_HASHES = {
    "plans_sha256": "plans",
    "splits_sha256": "split",
    "dataset_fingerprint_sha256": "dataset fingerprint",
    "weights_sha256": "ImageNet weights",
    "trainer_sha256": "file of the trainer",
}


def tables(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Tables of names and values, each with a title and perhaps a note."""
    inputs = [cell.part("inputs") for cell in benchmark.cells if cell.part("inputs")]
    versions = [item.get("versions") or {} for item in inputs] or [benchmark.content.get("versions") or {}]
    hardware = {
        key: value if not isinstance(value, list) else ", ".join(map(str, value)) or "none"
        for key, value in (benchmark.content.get("hardware") or {}).items()
    }
    hosts = sorted({str(cell.record["host"]) for cell in benchmark.cells if cell.record.get("host")})
    conditions = {
        "test-time mirroring": _values("yes" if item.get("mirroring") else "no" for item in inputs),
        "checkpoint": _values(item.get("checkpoint") for item in inputs),
        "device": _values(item.get("device") for item in inputs),
        "GPUs per training": _values(item.get("num_gpus") for item in inputs),
        "scored on": _values(item.get("scored_on") for item in inputs),
        "begun, last changed": f"{benchmark.content.get('created', DASH)}, {benchmark.content.get('updated', DASH)}",
    }
    names = list(dict.fromkeys(name for item in versions for name in item))
    return [
        {"title": "Conditions", "note": "", "lines": list(conditions.items())},
        {"title": "Versions", "note": "As recorded by the cells; several where they differ.",
         "lines": [(name, _values(item.get(name) for item in versions)) for name in names]},
        {"title": "Hardware", "note": "Of the machine that planned the benchmark; cells ran on the hosts named.",
         "lines": [*((key, str(value)) for key, value in hardware.items()), ("hosts of the cells", ", ".join(hosts))]},
        {"title": "Hashes", "note": "SHA-256 of what the files say (JSON without its formatting) or hold.",
         "lines": list(_hashes(benchmark))},
    ]  # fmt: skip


def _hashes(benchmark: Benchmark) -> Iterable[tuple[str, str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for cell in benchmark.cells:
        for key, name in _HASHES.items():
            value = cell.part("inputs").get(key)
            if not value:
                continue
            if key == "splits_sha256" or key == "dataset_fingerprint_sha256":
                what = f"{name} of {cell.dataset}"
            elif key == "plans_sha256":
                what = f"{name} {cell.row.plans} of {cell.dataset}"
            else:
                what = f"{name} of {cell.row.label}"
            values = found.setdefault((key, what), [])
            if value not in values:
                values.append(value)
    return [(what, ", ".join(values)) for (_, what), values in sorted(found.items())]


def commands(benchmark: Benchmark) -> list[dict[str, str]]:
    """Per cell the commands that ran."""
    return [
        {"name": cell.name, "text": "\n".join(shlex.join(map(str, command)) for command in cell.record["commands"])}
        for cell in benchmark.cells if cell.record.get("commands")
    ]  # fmt: skip


def configuration(benchmark: Benchmark) -> str:
    """What was asked for, as JSON."""
    config: Mapping[str, Any] = benchmark.config
    return json.dumps(config, indent=2, default=str)


def clock(seconds: float | None) -> str:
    """A duration in hours, minutes and seconds."""
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{seconds:.1f} s"


def _values(values: Iterable[Any]) -> str:
    found = dict.fromkeys(str(value) for value in values if value is not None)
    return ", ".join(found) or DASH
