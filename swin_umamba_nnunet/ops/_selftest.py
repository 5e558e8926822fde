"""Does a backend compute right on this device, and how fast: what `swin-umamba doctor` and the speed tools ask.

Speed is counted in state-steps: one update of one state h, of which a call makes batch * K * D * L * N.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.ops._scan import selective_scan_2d
from swin_umamba_nnunet.ops._select import PLAIN

DIRECTIONS = 4
ALLOWED_ERROR = 1e-5  # relative L2, float32 against the float64 reference
_CHECKED = (2, 9, 13, 40)  # B, H, W, D: uneven on purpose
MOST_CALLS = 200  # of one figure
# cycles that a GPU waits: a millisecond at least, five times what it takes to launch a backward scan, then what an SS2D
# block or a scan with every direction written out takes (it is the CPU's time that counts where that is not enough)
QUEUES = (2_000_000, 8_000_000, 32_000_000)


def core_arguments(shape: tuple[int, ...], states: int = 16) -> list[Tensor]:
    """Random arguments of `selective_scan_2d` for images (B, H, W, D), in float32 on the CPU, the same at each call.

    The decays are VMamba's initial ones.
    """
    channels = shape[-1]
    rank = -(-channels // 32)
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, (DIRECTIONS, rank + 2 * states, channels), (DIRECTIONS, channels, rank), (DIRECTIONS, channels)]
    x, x_proj, dt_projs, bias = (torch.randn(s, generator=generator) for s in shapes)
    A_logs = torch.arange(1, states + 1.0).log().repeat(DIRECTIONS * channels, 1)
    return [x, x_proj / channels**0.5, dt_projs / rank**0.5, bias - 4, A_logs, torch.ones(DIRECTIONS * channels)]


def worst_error(backend: str, device: str, states: int = 16) -> float:
    """Largest relative L2 error of output and all gradients in float32 against the float64 reference on the CPU.

    Both compute with the same float32 numbers; an error that is no number is returned as one.
    """
    actual = _results(backend, device, torch.float32, states)
    errors = [((a - e).norm() / e.norm()).item() for a, e in zip(actual, _expected(states))]
    return float("nan") if any(e != e for e in errors) else max(errors)


@functools.cache
def _expected(states: int) -> list[Tensor]:
    return _results("reference", "cpu", torch.float64, states)


def _results(backend: str, device: str, dtype: torch.dtype, states: int) -> list[Tensor]:
    """Output and all gradients on an uneven image, in float64 on the CPU."""
    leaves = [a.to(device, dtype).requires_grad_() for a in core_arguments(_CHECKED, states)]
    output = selective_scan_2d(*leaves, backend=backend)
    cotangent = torch.randn(_CHECKED, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    return [each.detach().cpu().double() for each in (output, *torch.autograd.grad(output, leaves, cotangent))]


def giga_state_steps(backend: str, device: str, seconds: float = 0.3) -> float:
    """Speed of a backend in one figure: the scan with its projections, forward, of one 32x32 image, D = 192, N = 16.

    The plain backends, which take seconds for that, get an image of 4x4.
    """
    side = 4 if backend in PLAIN else 32
    arguments = [a.to(device) for a in core_arguments((1, side, side, 192))]
    with torch.no_grad():
        _, median, _ = quartiles(lambda: selective_scan_2d(*arguments, backend=backend), device, seconds, queued=True)
    return DIRECTIONS * arguments[0].numel() * 16 / median / 1e6


def quartiles(
    call: Callable[[], Any], device: str, seconds: float, warm_up: int = 1, queued: bool = False
) -> list[float]:
    """Quartiles of the milliseconds of a call: at least five calls, then more until the time is spent.

    `torch.utils.benchmark` does this too, but takes a second to import and warns of compilers it does not find.
    """
    for _ in range(warm_up):
        call()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < 1e3 * seconds and len(times) < MOST_CALLS):
        times.append(milliseconds(call, device, queued))
    return statistics.quantiles(times, n=4)


def milliseconds(call: Callable[[], Any], device: str, queued: bool = False) -> float:
    """How long one call takes: on a GPU by its own events, elsewhere by the wall clock.

    On a GPU that has nothing to do this includes what the CPU takes to launch the call; `queued` lets it launch while
    the GPU still waits, for the time of short kernels alone: once more with a longer wait, where that was too short.
    """
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            for wait in QUEUES if queued else (0,):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                if wait:
                    torch.cuda._sleep(wait)
                begin.record()
                call()
                waited = not begin.query()  # the GPU, until all was launched
                end.record()
                end.synchronize()
                if waited:
                    break
        return begin.elapsed_time(end)
    start = time.perf_counter()
    call()
    if device == "mps":
        torch.mps.synchronize()
    return 1e3 * (time.perf_counter() - start)
