"""Times of scans and networks on a GPU, from CUDA events.

The exp bound: a scan evaluates one exponential per state and step, in four directions, and two for the step size: 72
for each of E = batch * L * D elements.  A multiprocessor does 16 per clock.  The forward pass cannot be faster.
"""

import logging
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.benchmark.materialised import materialised_2d, materialised_networks
from swin_umamba_nnunet.ops import backend_report, selective_scan_2d
from swin_umamba_nnunet.ops._scan import scan

logger = logging.getLogger(__name__)

STATES, EXPONENTIALS, PER_CLOCK = 16, 72, 16


@dataclass(frozen=True)
class Figure:
    """One time.  `variant` is fused, materialised, eager, compiled ...; `passes` forward, backward, step."""

    what: str
    variant: str
    dtype: str
    batch: int
    size: int
    channels: int
    passes: str
    milliseconds: float
    spread: float  # interquartile range over median
    peak_mebibytes: float
    giga_state_steps: float | None = None  # 1e9 per second
    times_exp_bound: float | None = None


class Clock:
    """Times callables on one device until the budget is used up."""

    def __init__(self, device: str, budget: float) -> None:
        self.device = device
        self.end = time.monotonic() + budget
        self.exps_per_second = _exps_per_second() if device == "cuda" else None

    def left(self) -> float:
        return self.end - time.monotonic()

    def time(self, function: Callable[[], Any], seconds: float = 0.15) -> tuple[float, float, float]:
        """(median ms, spread, peak MiB above what was there) of at least five calls after two for warming up."""
        cuda = self.device == "cuda"
        for _ in range(2):
            function()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else 0
        times: list[float] = []
        while len(times) < 5 or (sum(times) < 1e3 * seconds and len(times) < 100):
            times.append(_event_time(function) if cuda else _wall_time(function))
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else 0.0
        quartiles = statistics.quantiles(times, n=4)
        return quartiles[1], (quartiles[2] - quartiles[0]) / quartiles[1], peak


def stage(clock: Clock, batch: int, size: int, stride: int, channels: int, dtype: torch.dtype) -> list[Figure]:
    """The scan alone, and SS2D's core with its projections, fused and materialised, for one stage of a network."""
    side = -(-size // stride)
    x, weights = _core_inputs(clock.device, batch, side, channels, dtype)
    figures = []

    def add(what: str, variant: str, passes: str, function: Callable[[], Any], bound: bool) -> None:
        milliseconds, spread, peak = clock.time(function)
        elements = batch * side * side * channels
        figure = Figure(
            what, variant, str(dtype).removeprefix("torch."), batch, size, channels, passes, milliseconds, spread, peak,
            4 * elements * STATES / milliseconds / 1e6,
            milliseconds / 1e3 * clock.exps_per_second / (EXPONENTIALS * elements)
            if bound and clock.exps_per_second else None,
        )  # fmt: skip
        figures.append(figure)
        _show(figure)

    _scan_alone(add, *_scan_inputs(clock.device, batch, side, channels, dtype))
    forms: list[tuple[str, Callable[..., Tensor], str | None]] = [
        ("fused", selective_scan_2d, None), ("materialised, own 1D kernel", materialised_2d, None)
    ]  # fmt: skip
    if clock.device == "cuda" and backend_report("cuda")["mamba_ssm"] == "available":
        forms.append(("materialised, mamba_ssm", selective_scan_2d, "mamba_ssm"))
    for variant, function, backend_name in forms:
        with _autocast(clock.device, dtype):
            with torch.no_grad():
                add("ss2d core", variant, "forward", partial(function, x, *weights, backend=backend_name), False)
            tensors = [t.detach().requires_grad_() for t in (x, *weights)]

            def both(f=function, b=backend_name, tensors=tensors) -> None:
                y = f(*tensors, backend=b)
                torch.autograd.grad(y, tensors, torch.ones_like(y))

            add("ss2d core", variant, "forward+backward", both, False)
    return figures


def _scan_alone(add: Callable[..., None], inputs: Any, cotangent: Tensor) -> None:
    settings: Any = (True, "triton" if cotangent.is_cuda else "numba")
    with torch.no_grad():
        add("scan", "fused", "forward", lambda: scan(*inputs, *settings), True)
    leaves = tuple(t.detach().requires_grad_() for t in inputs)
    y = scan(*leaves, *settings)
    add("scan", "fused", "backward", lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True), True)


def network(
    clock: Clock, name: str, batch: int, size: int, dtype: torch.dtype, compiled: bool = False, **settings: Any
) -> list[Figure]:
    """A whole network: training step, forward pass, one image; fused and materialised, or compiled."""
    from swin_umamba_nnunet import networks

    if compiled and clock.left() < 150:
        raise TimeoutError(f"no time left to compile {name}")
    torch.manual_seed(0)
    model = getattr(networks, name)(3, 14, True, **settings).to(clock.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.99, nesterov=True)
    images = torch.randn(batch, 3, size, size, device=clock.device)
    run: Callable[[Tensor], Any] = torch.compile(model) if compiled else model
    figures = []

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(clock.device, dtype):
            loss = sum(logits.float().square().mean() for logits in run(images))
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def predict(count: int) -> None:
        with _autocast(clock.device, dtype):
            run(images[:count])

    for variant in ("compiled",) if compiled else ("fused", "materialised, own 1D kernel"):
        with materialised_networks() if variant.startswith("materialised") else nullcontext():
            jobs: list[tuple[str, int, Callable[[], None]]] = [("step", batch, step)]
            jobs += [("forward", count, partial(predict, count)) for count in sorted({batch, 1}, reverse=True)]
            for passes, count, job in jobs:
                model.train(passes == "step")
                milliseconds, spread, peak = clock.time(job)
                kind = str(dtype).removeprefix("torch.")
                figures.append(Figure(name, variant, kind, count, size, 0, passes, milliseconds, spread, peak))
                _show(figures[-1])
    return figures


def cuts(clock: Clock, batch: int, size: int, stride: int, channels: int) -> list[Figure]:
    """The scan for every way to cut the sequence into chunks: what the constants in `ops/_triton.py` should be."""
    from swin_umamba_nnunet.ops import _triton

    side = -(-size // stride)
    inputs, cotangent = _scan_inputs(clock.device, batch, side, channels, torch.float16)
    windows = -(-side * side // _triton.WINDOW)
    chosen = _triton._chunks
    settings: Any = (True, True)
    y, states = _triton.forward(*inputs, *settings)
    rest: Any = (states, True)
    figures = []
    try:
        for chunk_windows in sorted({-(-windows // chunks) for chunks in (1, 2, 3, 4, 6, 8, 12, 16, 25, 50, 100)}):
            cut = (-(-windows // chunk_windows), chunk_windows)
            _triton._chunks = lambda *_, cut=cut, **__: cut  # type: ignore[assignment]
            for passes, function in (
                ("forward", lambda: _triton.forward(*inputs, *settings)),
                ("backward", lambda: _triton.backward(cotangent.float(), *inputs, *rest)),
            ):
                milliseconds, spread, peak = clock.time(function, 0.03)
                variant = f"{cut[0]} chunks of {cut[1]} windows"
                figures.append(
                    Figure("cut", variant, "float16", batch, size, channels, passes, milliseconds, spread, peak)
                )
                _show(figures[-1])
    finally:
        _triton._chunks = chosen
    return figures


def _exps_per_second() -> float | None:
    clock = nvidia_smi("clocks.max.sm")  # MHz
    if clock is None or not clock.isdigit():
        return None
    return PER_CLOCK * torch.cuda.get_device_properties(0).multi_processor_count * float(clock) * 1e6


def nvidia_smi(what: str) -> str | None:
    try:
        command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split("\n")[0].strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _autocast(device: str, dtype: torch.dtype) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)


def _scan_inputs(device: str, batch: int, side: int, channels: int, dtype: torch.dtype) -> tuple[Any, Tensor]:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    sequences = [random(batch, side, side, channels), random(4, batch, side, side, channels)]
    sequences += [random(batch, side, side, 4, STATES) for _ in range(2)]
    decay = -torch.arange(1.0, STATES + 1, device=device).expand(4, channels, STATES).contiguous()
    inputs = (*(t.to(dtype) for t in sequences), decay, random(4, channels), random(4, channels) - 4)
    return inputs, random(batch, side, side, channels).to(dtype)


def _core_inputs(device: str, batch: int, side: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """x in `dtype` and float32 weights, as autocast finds them."""
    rank = -(-channels // 32)
    weights = [
        torch.randn(4, rank + 2 * STATES, channels) / channels**0.5, torch.randn(4, channels, rank) / rank**0.5,
        torch.randn(4, channels) - 4, torch.arange(1.0, STATES + 1).log().repeat(4 * channels, 1),
        torch.ones(4 * channels),
    ]  # fmt: skip
    return torch.randn(batch, side, side, channels, device=device).to(dtype), [w.to(device) for w in weights]


def _event_time(function: Callable[[], Any]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _wall_time(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _show(figure: Figure) -> None:
    bound = "" if figure.times_exp_bound is None else f"{figure.times_exp_bound:6.2f} x exp bound"
    logger.info(
        "%-12s %-28s %-8s b%-3d %4d %5d %-17s %9.3f ms %7.0f MiB %s", figure.what, figure.variant, figure.dtype,
        figure.batch, figure.size, figure.channels, figure.passes, figure.milliseconds, figure.peak_mebibytes, bound,
    )  # fmt: skip
