"""How fast and how exact the selective-scan backends are on this machine.

Speed is counted in state-steps: one update of one state h, of which a call makes batch * K * D * L * N.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from swin_umamba_nnunet.ops import BACKENDS, backend_report, selective_scan_2d
from swin_umamba_nnunet.ops._scan import scan

DIRECTIONS = 4
ALLOWED_ERROR = 1e-5  # relative L2, float32 against the float64 reference
_CHECK_SIZE = (2, 9, 13, 40)  # batch, H, W, D: uneven on purpose
_REFERENCE_SIDE = 12  # the reference is timed on a small image: it takes minutes on a real one


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        backend: name of the backend.
        what: "scan" (step sizes, B and C given) or "scan with projections" (all of `selective_scan_2d`).
        passes: "forward" or "forward+backward".
        seconds: median over the repetitions, per call.
        spread: interquartile range over the median, from 0.
        rate: 1e9 state-steps per second, from the median.
    """

    backend: str
    what: str
    passes: str
    seconds: float
    spread: float
    rate: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `swin-umamba bench ops`."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--backend", choices=BACKENDS, help="only this backend (default: every one that can run)")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("H", "W"),
                        help="image height and width in positions (default: 64 64)")  # fmt: skip
    parser.add_argument("--batch", type=int, default=1, help="images per call (default: 1)")
    parser.add_argument("--channels", type=int, default=192, help="inner width d_inner (default: 192)")
    parser.add_argument("--states", type=int, default=16, help="states per channel, d_state (default: 16)")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each figure (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Check, measure, and `say` line by line what was found.

    Returns:
        1 if a backend's values or gradients are off, else 0.

    Raises:
        ValueError: options that make no sense, or a device or backend that is not here.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if args.json and not args.json.absolute().parent.is_dir():
        raise ValueError(f"--json {args.json}: the folder {args.json.absolute().parent} does not exist; make it first")
    if min(*args.size, args.batch, args.channels, args.states) < 1:
        raise ValueError("--size, --batch, --channels and --states must be at least 1")
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError("--threads must be at least 1")
        torch.set_num_threads(args.threads)
    say(f"{_machine(args.device)}; torch {torch.__version__}, {torch.get_num_threads()} threads")
    report = backend_report(args.device)
    wanted = [args.backend] if args.backend else [name for name in BACKENDS if report[name] == "available"]
    for name in BACKENDS:
        if report[name] != "available":
            say(f"  {name}: not here ({report[name]})")
    if args.backend and report[args.backend] != "available":
        raise ValueError(f"--backend {args.backend} cannot run on {args.device}: {report[args.backend]}")
    say("\nLargest relative L2 error against the float64 reference, float32 inputs, output and all gradients:")
    errors = {name: worst_error(name, args.device, args.states) for name in wanted if name != "reference"}
    for name, error in errors.items():
        say(f"  {name:10s} {error:.1e}  {'ok' if error <= ALLOWED_ERROR else f'WRONG (allowed: {ALLOWED_ERROR})'}")
    failed = [name for name, error in errors.items() if not error <= ALLOWED_ERROR]
    height, width = args.size
    say(
        f"\nSpeed at batch {args.batch}, {height}x{width}, d_inner {args.channels}, d_state {args.states}, float32, "
        f"median of about {args.seconds:g} s each\n"
        "(1 state-step = one update of one state; a call makes batch*4*d_inner*H*W*d_state of them):\n"
    )
    say(f"  {'backend':10s} {'what':22s} {'passes':17s} {'G state-steps/s':>15s} {'spread':>7s} {'x reference':>12s}")
    figures: list[Figure] = []
    for name in sorted(wanted, key=lambda name: name != "reference"):
        side = (min(height, _REFERENCE_SIDE), min(width, _REFERENCE_SIDE)) if name == "reference" else (height, width)
        for figure in measure(name, args.device, (args.batch, *side, args.channels), args.states, args.seconds):
            figures.append(figure)
            base = [f for f in figures if (f.backend, f.what, f.passes) == ("reference", figure.what, figure.passes)]
            ratio = f"{figure.rate / base[0].rate:.0f}" if base else "-"
            numbers = f"{figure.rate:15.3g} {figure.spread:7.0%} {ratio:>12s}"
            say(f"  {name:10s} {figure.what:22s} {figure.passes:17s} {numbers}")
    if "reference" in wanted:
        say(f"  (x reference: over the reference's rate at side {_REFERENCE_SIDE}, which falls further with size)")
    say("\nSpread is the interquartile range over the median. Times are comparable within one run only.")
    if args.json:
        _write_json(args, errors, figures)
        say(f"\nwritten to {args.json}")
    return 1 if failed else 0


def worst_error(backend: str, device: str, states: int = 16) -> float:
    """Largest relative L2 error of output and gradients against the float64 reference on the same float32 numbers."""
    arguments = _arguments_2d(_CHECK_SIZE, states, device)
    cotangent = torch.randn(_CHECK_SIZE, generator=torch.Generator().manual_seed(1)).to(device)

    def results(dtype: torch.dtype, name: str) -> list[Tensor]:
        leaves = [a.to(dtype).requires_grad_() for a in arguments]
        output = selective_scan_2d(*leaves, backend=name)
        return [output.detach(), *torch.autograd.grad(output, leaves, cotangent.to(dtype))]

    expected, actual = results(torch.float64, "reference"), results(torch.float32, backend)
    errors = [((a.double() - e).norm() / e.norm()).item() for a, e in zip(actual, expected)]
    return float("nan") if any(e != e for e in errors) else max(errors)


def measure(backend: str, device: str, shape: tuple[int, int, int, int], states: int, seconds: float) -> list[Figure]:
    """Median times of the scan alone and with its projections, forward and forward+backward.

    Args:
        backend: what to run.
        device: "cpu" or "cuda".
        shape: (batch, H, W, D).
        states: N.
        seconds: time to spend on each figure.
    """
    batch, height, width, channels = shape
    full = _arguments_2d(shape, states, device)
    core = _arguments_core(shape, states, device)
    candidates: list[tuple[str, list[Tensor], Callable[..., Tensor]]] = [
        ("scan", core, lambda x, dt, B, C, A, D, bias: scan(x, dt, B, C, A, D, bias, True, backend)),
        ("scan with projections", full, lambda *a: selective_scan_2d(*a, backend=backend)),
    ]
    steps = batch * DIRECTIONS * channels * height * width * states
    figures = []
    for what, arguments, function in candidates:
        leaves = [a.detach().requires_grad_() for a in arguments]
        cotangent = torch.randn_like(function(*arguments))

        def forward(function=function, arguments=arguments) -> None:
            with torch.no_grad():
                function(*arguments)

        def both(function=function, leaves=leaves, cotangent=cotangent) -> None:
            torch.autograd.grad(function(*leaves), leaves, cotangent)

        for passes, call in (("forward", forward), ("forward+backward", both)):
            low, median, high = _quartiles(call, device, seconds)
            figures.append(Figure(backend, what, passes, median, (high - low) / median, steps / median / 1e9))
    return figures


def _quartiles(call: Callable[[], None], device: str, seconds: float) -> list[float]:
    """Quartiles of the seconds one call takes, after a warm-up; on CUDA by the device's own clock.

    `torch.utils.benchmark` would do on a CPU, but it prints a warning about compilers on machines that have none.
    """
    call()
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 5:
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            taken.append(start.elapsed_time(end) / 1e3)
        else:
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
    return statistics.quantiles(taken, n=4)


def _arguments_2d(shape: tuple[int, int, int, int], states: int, device: str) -> list[Tensor]:
    """Random arguments of `selective_scan_2d` with VMamba's initial decays."""
    channels = shape[3]
    rank = -(-channels // 32)
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, (DIRECTIONS, rank + 2 * states, channels), (DIRECTIONS, channels, rank), (DIRECTIONS, channels)]
    x, x_proj, dt_projs, bias = (torch.randn(s, generator=generator) for s in shapes)
    A_logs = torch.arange(1, states + 1.0).log().repeat(DIRECTIONS * channels, 1)
    Ds = torch.ones(DIRECTIONS * channels)
    arguments = [x, x_proj / channels**0.5, dt_projs / rank**0.5, bias - 4, A_logs, Ds]
    return [a.to(device) for a in arguments]


def _arguments_core(shape: tuple[int, int, int, int], states: int, device: str) -> list[Tensor]:
    """Random arguments of the scan alone (`ops._scan.scan`)."""
    channels = shape[3]
    generator = torch.Generator().manual_seed(0)
    positions = (*shape[:3], DIRECTIONS, states)
    shapes = [shape, (DIRECTIONS, *shape), positions, positions, (DIRECTIONS, channels)]
    x, dt, Bs, Cs, bias = (torch.randn(s, generator=generator) for s in shapes)
    A = -torch.arange(1, states + 1.0).expand(DIRECTIONS, channels, states).contiguous()
    return [a.to(device) for a in (x, dt, Bs, Cs, A, torch.ones(DIRECTIONS, channels), bias - 4)]


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"


def _write_json(args: argparse.Namespace, errors: dict[str, float], figures: list[Figure]) -> None:
    content = {
        "machine": _machine(args.device),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": args.batch,
        "size": list(args.size),
        "channels": args.channels,
        "states": args.states,
        "relative_errors": errors,
        "figures": [asdict(figure) for figure in figures],
    }
    args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
