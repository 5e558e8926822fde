"""What a measurement leaves behind: one JSON layout for `bench ops`, `bench networks` and `gpu_check`.

    {"layout": LAYOUT, "command": ..., "date": ..., "device": {...}, "versions": {...}, "backends": {...},
     "settings": {...}, "checks": [{"name", "passed", "detail"}], "not_run": [...], "figures": [{Figure}, ...]}

Reading and writing imports no torch.
"""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet.benchmark.hooks import processor_name

LAYOUT = "swin_umamba_nnunet speed 1"
RESULTS = Path(__file__).resolve().parent / "results"
FUSED, OWN, MAMBA_SSM = "fused", "materialised, own 1D kernel", "materialised, mamba_ssm"  # pipelines
EAGER, COMPILED, GRAPH = "eager", "compiled", "CUDA graph"  # modes
STEP, INFERENCE, SAVED = "training step", "inference", "saved"  # passes; of scans also forward, backward and both
CORE, BLOCK = "scan with projections", "ss2d block"
BASELINE = "PlainConvUNet"  # nnU-Net's own, the unit of times on a CPU
_FIRST = ("layout", "command", "date", "device", "versions")


@dataclass(frozen=True)
class Figure:
    """One measurement.  A number that was not or cannot be measured is None.

    Attributes:
        what: "scan" (step sizes, B and C given), "scan with projections" (SS2D's core), "ss2d block", or a network.
        pipeline: how the scan is computed: "fused", or in one of the materialised forms (`materialised.py`).
        mode: "eager", "compiled" (torch.compile) or "CUDA graph" (captured once, replayed).
        passes: "forward", "backward" or "forward+backward" of a scan; "inference" or "training step" of a network;
            "saved" for what autograd keeps between forward and backward, which takes no time.
        dtype: of the images or, for networks and blocks, of autocast ("float32": none).
        batch: images.
        size: (H, W) of an image in pixels.
        stride: pixels per position of the scan; None for a network.
        channels: d_inner of the scan; None for a network.
        backend: that ran the scan, None if there is none.
        milliseconds: median per call.
        spread: interquartile range over the median.
        peak_mebibytes: largest allocation on the GPU during a call: of a network with parameters, gradients and
            optimiser; of a scan above its inputs.
        saved_mebibytes: what autograd keeps, parameters not counted.
        giga_state_steps: 1e9 updates of one state per second, counted once also where there is a backward pass.
        percent_of_exp_bound: the time in which the GPU can do the exponentials alone (`clock.py`), over the time taken.
        problem: why there is no number.
    """

    what: str
    pipeline: str
    mode: str
    passes: str
    dtype: str
    batch: int
    size: tuple[int, int]
    stride: int | None = None
    channels: int | None = None
    backend: str | None = None
    milliseconds: float | None = None
    spread: float | None = None
    peak_mebibytes: float | None = None
    saved_mebibytes: float | None = None
    giga_state_steps: float | None = None
    percent_of_exp_bound: float | None = None
    problem: str | None = None

    def line(self, times: bool = True) -> str:
        """Everything in one line of text, or everything but the time."""
        place = "" if self.channels is None else f" /{self.stride} D {self.channels}"
        pipeline = "no scan" if self.what == BASELINE else self.pipeline
        backend = "" if self.backend in (None, self.pipeline) else f" ({self.backend})"
        head = (
            f"{self.what}, {pipeline}{backend}, {self.mode}, {self.passes}, {self.dtype}, batch {self.batch}, "
            f"{self.size[0]}x{self.size[1]}{place}"
        )
        if self.problem:
            return f"{head}: NOT MEASURED, {self.problem}"
        numbers = [
            (self.milliseconds if times else None, "{:.4g} ms"), (self.spread, "spread {:.0%}"),
            (self.peak_mebibytes, "peak {:.0f} MiB"),
            (self.saved_mebibytes, "{:.1f} MiB kept for backward"), (self.giga_state_steps, "{:.3g} G state-steps/s"),
            (self.percent_of_exp_bound, "{:.0f} % of the exp bound"),
        ]  # fmt: skip
        return f"{head}: " + ", ".join(form.format(number) for number, form in numbers if number is not None)


def new_document(command: str, device: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The head of a JSON file, with no figures yet.

    Args:
        command: "bench ops", "bench networks" or "gpu_check".
        device: "cpu" or "cuda".
        settings: the options, as far as JSON can hold them.
    """
    from swin_umamba_nnunet.ops import backend_report

    return {
        "layout": LAYOUT,
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": _device(device),
        "versions": _versions(device),
        "backends": backend_report(device),
        "settings": settings,
        "checks": [],
        "not_run": [],
        "figures": [],
    }


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole or not at all; figures may be `Figure`s or dictionaries."""
    figures = [dataclasses.asdict(f) if isinstance(f, Figure) else f for f in document["figures"]]
    write_text(path, json.dumps({**document, "figures": figures}, indent=1) + "\n")


def check_folder(file: Path | None) -> None:
    """Whether a file can be written, before anything is measured for it.

    Raises:
        ValueError: its folder does not exist.
    """
    if file and not file.absolute().parent.is_dir():
        raise ValueError(f"--json {file}: the folder {file.absolute().parent} does not exist; make it first")


def read_document(path: Path) -> dict[str, Any]:
    """A document with its figures as `Figure`s; fields this version does not know are left out.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(document, dict) or document.get("layout") != LAYOUT:
        raise ValueError(
            f"{path} is not a file of measurements; expected one that `swin-umamba bench ops --json`, "
            "`swin-umamba bench networks --json` or `make gpu-check` has written"
        )
    known = {field.name for field in dataclasses.fields(Figure)}
    try:
        figures = [{key: value for key, value in each.items() if key in known} for each in document["figures"]]
        document["figures"] = [Figure(**{**each, "size": tuple(each["size"])}) for each in figures]
        missing = [key for key in _FIRST if key not in document]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has a figure that is not complete: {error}") from error
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it was not written to its end, or changed since")
    return document


def find_documents(folder: Path = RESULTS) -> list[Path]:
    """The JSON files of a folder, by name."""
    return sorted(folder.glob("*.json"))


def measured(figures: Iterable[Figure]) -> list[Figure]:
    """Those that hold a number."""
    return [figure for figure in figures if not figure.problem]


def nvidia_smi(what: str) -> str | None:
    """One property of the first GPU, None where nvidia-smi does not answer."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _device(device: str) -> dict[str, Any]:
    import torch

    if device != "cuda":
        return {"type": device, "name": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "type": "cuda",
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_gibibytes": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "highest_clock_megahertz": nvidia_smi("clocks.max.sm"),
    }


def _versions(device: str) -> dict[str, str | None]:
    import torch

    def installed(*packages: str) -> str | None:
        for package in packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        return None

    return {
        "swin_umamba_nnunet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": installed("triton", "pytorch-triton"),  # the second is what nightly torch brings
        "numba": installed("numba"),
        "mamba_ssm": installed("mamba-ssm"),
        "cuda": torch.version.cuda,
        "driver": nvidia_smi("driver_version") if device == "cuda" else None,
    }
