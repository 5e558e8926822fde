"""How fast and how exact the selective-scan backends are on this machine.

Speed is counted in state-steps: one update of one state h, of which a call makes batch * K * D * L * N.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.ops import BACKENDS, PLAIN, backend_report, selective_scan_2d
from swin_umamba_nnunet.ops._scan import scan
from tests.speed import cpu
from tests.speed.clock import Clock, call_milliseconds
from tests.speed.record import (
    CORE,
    EAGER,
    FUSED,
    Figure,
    check_folder,
    new_document,
    write_document,
)

DIRECTIONS = 4
ALLOWED_ERROR = 1e-5  # relative L2, float32 against the float64 reference
_CHECK_SIZE = (2, 9, 13, 40)  # batch, H, W, D: uneven on purpose
_REFERENCE_SIDE = 12  # the reference is timed on a small image: it takes minutes on a real one


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Check, measure, and `say` line by line what was found; on a CPU also what whole networks pay for their scans.

    A backend asked for by name is measured alone.

    Returns:
        1 if a backend's values or gradients are off, else 0.

    Raises:
        ValueError: options that make no sense, or a device or backend that is not here.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use --device cpu")
    check_folder(args.json)
    if args.backend and args.backend not in BACKENDS:
        raise ValueError(f"--backend {args.backend}: choose from {', '.join(BACKENDS)}")
    if min(*args.size, args.batch, args.channels, args.states) < 1:
        raise ValueError("--size, --batch, --channels and --states must be at least 1")
    if args.threads is not None:
        if args.threads < 1:
            raise ValueError("--threads must be at least 1")
        torch.set_num_threads(args.threads)
    document = new_document("bench ops", args.device, _settings(args))
    clock = Clock(args.device)
    say(f"{_machine(document['device'])}; torch {torch.__version__}, {torch.get_num_threads()} threads")
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
        for figure in measure(name, args.device, (args.batch, *side, args.channels), args.states, args.seconds, clock):
            figures.append(figure)
            rates = [_rate(f) for f in figures
                     if (f.backend, f.what, f.passes) == ("reference", figure.what, figure.passes)]  # fmt: skip
            ratio = f"{_rate(figure) / rates[0]:.0f}" if rates else "-"
            numbers = f"{_rate(figure):15.3g} {figure.spread:7.0%} {ratio:>12s}"
            say(f"  {name:10s} {figure.what:22s} {figure.passes:17s} {numbers}")
    if "reference" in wanted:
        say(f"  (x reference: over the reference's rate at side {_REFERENCE_SIDE}, which falls further with size)")
    say("\nSpread is the interquartile range over the median. Times are comparable within one run only.")
    if args.device == "cpu" and not args.backend and not failed:
        figures += [*cpu.stages(args.seconds, say)]
        cpu.others(args.seconds, say)
        figures += [*cpu.controls(args.seconds, say)]
    if args.json:
        document["figures"] = figures
        document["checks"] = [
            {"name": f"{name} against the reference", "passed": name not in failed,
             "detail": f"largest relative L2 error {error:.1e} (allowed: {ALLOWED_ERROR})"}
            for name, error in errors.items()
        ]  # fmt: skip
        write_document(args.json, document)
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


def giga_state_steps(backend: str, device: str, seconds: float = 0.3) -> float:
    """Speed of a backend in one figure: the scan with its projections, forward, of one 32x32 image, D = 192, N = 16.

    The plain backends, which take seconds for that, get a smaller image.
    """
    side = _REFERENCE_SIDE if backend in PLAIN else 32
    arguments = _arguments_2d((1, side, side, 192), 16, device)

    @torch.no_grad()
    def forward() -> None:
        selective_scan_2d(*arguments, backend=backend)

    return DIRECTIONS * side * side * 192 * 16 / _quartiles(forward, device, seconds)[1] / 1e6


def measure(
    backend: str, device: str, shape: tuple[int, int, int, int], states: int, seconds: float, clock: Clock
) -> list[Figure]:
    """Median times of the scan alone and with its projections, forward and forward+backward.

    Args:
        backend: what to run.
        device: "cpu" or "cuda".
        shape: (batch, H, W, D).
        states: N.
        seconds: time to spend on each figure.
        clock: knows the exp bound.
    """
    batch, height, width, channels = shape
    full = _arguments_2d(shape, states, device)
    core = _arguments_core(shape, states, device)
    candidates: list[tuple[str, list[Tensor], Callable[..., Tensor]]] = [
        ("scan", core, lambda x, dt, B, C, A, D, bias: scan(x, dt, B, C, A, D, bias, True, backend)),
        (CORE, full, lambda *a: selective_scan_2d(*a, backend=backend)),
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
            bound = clock.percent_of_bound(median, batch * height * width * channels, states, passes)
            figures.append(Figure(
                what, FUSED, EAGER, passes, "float32", batch, (height, width), 1, channels, backend, median,
                (high - low) / median, giga_state_steps=steps / median / 1e6, percent_of_exp_bound=bound,
            ))  # fmt: skip
    return figures


def _quartiles(call: Callable[[], None], device: str, seconds: float) -> list[float]:
    """Quartiles of the milliseconds one call takes, after a warm-up; on CUDA by the device's own clock.

    `torch.utils.benchmark` would do on a CPU, but it prints a warning about compilers on machines that have none.
    """
    call()
    taken: list[float] = []
    while sum(taken) < 1e3 * seconds or len(taken) < 5:
        taken.append(call_milliseconds(call, device))
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


def _machine(device: dict[str, Any]) -> str:
    return device["name"] if device["type"] == "cuda" else f"{device['name']}, {device['cores']} cores"


def _rate(figure: Figure) -> float:
    return figure.giga_state_steps or 0.0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    names = ("backend", "size", "batch", "channels", "states", "threads", "seconds")
    return {name: getattr(args, name) for name in names}
