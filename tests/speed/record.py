"""What a measurement leaves behind: one JSON layout for GPUs and CPUs.

    {"layout": LAYOUT, "command": ..., "date": ..., "device": {...}, "versions": {...}, "settings": {...},
     "checks": [{Check}, ...], "not_run": [...], "done": [...], "figures": [{Figure}, ...]}

"done" are jobs without a failure.  Reading and writing imports no torch.
"""

import dataclasses
import json
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet._distribution import version_of
from swin_umamba_nnunet._text import by

LAYOUT = "swin_umamba_nnunet speed 3"
RESULTS = Path(__file__).resolve().parent / "results"
FUSED, OWN, MAMBA_SSM = "fused", "materialised, own 1D kernel", "materialised, mamba_ssm"  # pipelines
PLAIN_GLUE = "fused, plain glue"  # norm and gate behind the scan in separate operations
LOOP, MAMBAPY = "plain loop", "mambapy's parallel scan"  # other code for a sequence
WITHOUT = "without scans"  # a network's control
EAGER, COMPILED, GRAPH = "eager", "compiled", "CUDA graph"  # modes
FORWARD, BACKWARD, BOTH = "forward", "backward", "forward+backward"  # passes of a scan
STEP, INFERENCE, SAVED = "training step", "inference", "saved"  # passes of a network; bytes kept, of any
SCAN, CORE, BLOCK, SEQUENCE = "scan", "scan with projections", "ss2d block", "scan of a sequence"
STAGES = ((4, 192), (8, 384), (16, 768), (32, 1536))  # stride, d_inner of VMamba-tiny's stages
LAUNCHES = "kernels of the scan"  # a job of several of
KERNELS = ("forward_kernel", "state_kernel", "backward_kernel", "adjoint_kernel")
GLUE_KERNELS = ("norm_gate_kernel", "norm_gate_backward_kernel")
BASELINE = "PlainConvUNet"  # nnU-Net's own


@dataclass(frozen=True)
class Check:
    """Whether something is right.

    Attributes:
        name: of what.
        group: of tests in one process, None for what stands alone.
        detail: what there is to say, such as why it was skipped.
        skipped: it was left out.
        problem: what is wrong, None if nothing is.
    """

    name: str
    group: str | None = None
    detail: str = ""
    skipped: bool = False
    problem: str | None = None

    def line(self):
        """Everything in one line of text."""
        word = "FAILED" if self.problem else "skipped" if self.skipped else "passed"
        return ", ".join(filter(None, (f"{word}: {self.name}", self.problem or self.detail)))


@dataclass(frozen=True)
class Figure:
    """One measurement: what is measured, and the numbers.  One that was not or cannot be measured is None.

    Attributes:
        what: "scan" (step sizes, B and C given), "scan with projections" (SS2D's core), "ss2d block", "scan of a
            sequence", one of `KERNELS`, or a network.
        pipeline: how the scan is computed: "fused" (and what the launches were told), in one of the materialised forms
            (`materialised.py`), by other code, or not at all ("without scans").
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
        problem: why there is no number.
        states: N of the scan.
    """

    what: str
    pipeline: str = FUSED
    mode: str = EAGER
    passes: str = FORWARD
    dtype: str = "float32"
    batch: int = 1
    size: tuple[int, ...] = (0, 0)
    stride: int | None = None
    channels: int | None = None
    backend: str | None = None
    milliseconds: float | None = None
    spread: float | None = None
    peak_mebibytes: float | None = None
    saved_mebibytes: float | None = None
    giga_state_steps: float | None = None
    problem: str | None = None
    states: int = 16

    @property
    def shape(self):
        """(B, H, W, D) in positions of a scan."""
        return self.batch, *(-(-side // (self.stride or 1)) for side in self.size), self.channels or 0

    @property
    def name(self):
        """What is measured, in words."""
        place = "" if self.channels is None else f" /{self.stride} D {self.channels}"
        pipeline = "no scan" if self.what == BASELINE else self.pipeline
        backend = "" if self.backend in (None, self.pipeline) else f" ({self.backend})"
        return (
            f"{self.what}, {pipeline}{backend}, {self.mode}, {self.passes}, {self.dtype}, batch {self.batch}, "
            f"{by(self.size)}{place}"
        )

    def line(self):
        """Everything in one line of text."""
        if self.problem:
            return f"{self.name}: NOT MEASURED, {self.problem}"
        numbers = {
            "{:.4g} ms": self.milliseconds,
            "spread {:.0%}": self.spread,
            "peak {:.0f} MiB": self.peak_mebibytes,
            "{:.1f} MiB kept for backward": self.saved_mebibytes,
            "{:.3g} G state-steps/s": self.giga_state_steps,
        }
        said = ", ".join(form.format(value) for form, value in numbers.items() if value is not None)
        return f"{self.name}: {said}"


def new_document(command, device, settings):
    """The head of a JSON file, with no figures yet.

    Args:
        command: "bench" or "gpu-check".
        device: "cpu" or "cuda".
        settings: the options, as far as JSON can hold them.
    """
    import torch

    from swin_umamba_nnunet.benchmark.steps import processor_name

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    # pytorch-triton is what nightly torch brings
    packages = ("swin_umamba_nnunet", "triton", "pytorch-triton", "numba", "mamba-ssm")
    versions |= {package: version_of(package) for package in packages}
    place = {"type": device, "name": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        versions |= {"cuda": torch.version.cuda, "driver": nvidia_smi("driver_version")}
        place |= {
            "name": gpu.name,
            "multiprocessors": gpu.multi_processor_count,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_gibibytes": round(gpu.total_memory / 2**30, 1),
            "highest_clock_megahertz": nvidia_smi("clocks.max.sm"),
        }
    return {
        "layout": LAYOUT,
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": place,
        "versions": versions,
        "settings": settings,
        **{name: [] for name in ("checks", "not_run", "done", "figures")},
    }


def write_document(path, document):
    """Write a document whole or not at all."""
    write_text(path, json.dumps(document, default=dataclasses.asdict, indent=1) + "\n")


def read_document(path):
    """A document with its checks and figures as such.

    Raises:
        ValueError: no such file, or not one of ours, whole.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["layout"] != LAYOUT:
            raise ValueError(f"the layout is {document['layout']!r}")
        figures = [Figure(**{**each, "size": tuple(each["size"])}) for each in document["figures"]]
        checks = [Check(**each) for each in document["checks"]]
        known = {key: document[key] for key in ("command", "date", "device", "versions", "settings", "not_run", "done")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: {type(error).__name__}, {error}; expected a file that `make gpu-check` or "
            "`make bench` has written"
        ) from error
    return {"layout": LAYOUT, **known, "checks": checks, "figures": figures}


def nvidia_smi(what):
    """One property of the first GPU, None where nvidia-smi does not answer, or only "[N/A]" and the like."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.partition("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if said.startswith("[") else said or None
