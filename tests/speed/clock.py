"""Time and memory of a call: on a GPU from its own events and allocator, on a CPU from the wall clock.

The exp bound: a forward scan evaluates one exponential per state and step, in four directions, and two for softplus in
each: 72 for each of E = batch * L * D elements (N = 16).  The backward pass evaluates each once more, and three for
softplus and its derivative: 76.  A multiprocessor does 16 per clock; no scan that computes every exponential is faster.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests.speed.record import nvidia_smi

DIRECTIONS, PER_CLOCK = 4, 16
EXTRA = {"forward": 2, "backward": 3}  # exponentials and logarithms per step and direction, besides the states'
WARM_UP, FEWEST, MOST = 2, 5, 200  # calls


@dataclass(frozen=True)
class Timing:
    """Quartiles of the time of a call, and on a GPU the memory allocated before the calls and at their peak."""

    milliseconds: float
    spread: float
    before_bytes: int | None
    peak_bytes: int | None

    @property
    def peak_mebibytes(self) -> float | None:
        """At the peak, everything."""
        return None if self.peak_bytes is None else self.peak_bytes / 2**20

    @property
    def extra_mebibytes(self) -> float | None:
        """At the peak, above what was there before."""
        return None if self.peak_bytes is None or self.before_bytes is None else (
            (self.peak_bytes - self.before_bytes) / 2**20
        )  # fmt: skip


class Clock:
    """Times callables on one device.

    Args:
        device: "cpu" or "cuda".
        budget: seconds after which no further measurement should begin; None for no end.
        seconds: to spend on the calls of one figure, beyond the warm-up and the fewest calls.
    """

    def __init__(self, device: str, budget: float | None = None, seconds: float = 0.3) -> None:
        self.device = device
        self.seconds = seconds
        self.end = float("inf") if budget is None else time.monotonic() + budget
        self.exponentials_per_second = _exponentials_per_second() if device == "cuda" else None

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.end - time.monotonic()

    def time(self, function: Callable[[], Any]) -> Timing:
        """Call it a few times for warming up, then until the time is spent."""
        cuda = self.device == "cuda"
        gc.collect()
        for _ in range(WARM_UP):
            function()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else None
        times: list[float] = []
        while len(times) < FEWEST or (sum(times) < 1e3 * self.seconds and len(times) < MOST):
            times.append(call_milliseconds(function, self.device))
        low, median, high = statistics.quantiles(times, n=4)
        peak = torch.cuda.max_memory_allocated() if cuda else None
        return Timing(median, (high - low) / median, before, peak)

    def percent_of_bound(self, milliseconds: float, elements: int, states: int, passes: str) -> float | None:
        """The exp bound over the time taken, in percent; None on a CPU or where the GPU's clock is unknown.

        Args:
            milliseconds: taken.
            elements: E.
            states: N.
            passes: "forward", "backward" or "forward+backward".
        """
        if self.exponentials_per_second is None:
            return None
        each = sum(DIRECTIONS * (states + EXTRA[one]) for one in passes.split("+"))
        return 100 * each * elements / self.exponentials_per_second / (milliseconds / 1e3)


def _exponentials_per_second() -> float | None:
    clock = nvidia_smi("clocks.max.sm")  # MHz
    if clock is None or not clock.isdigit():
        return None
    return PER_CLOCK * torch.cuda.get_device_properties(0).multi_processor_count * float(clock) * 1e6


def interleaved_milliseconds(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Medians of calls that take turns on a CPU, after one to warm up: what else runs there meets them alike.

    Args:
        calls: by name.
        seconds: to spend on all of them, beyond the warm-up and three rounds.
    """
    gc.collect()
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.monotonic() + seconds
    while min(map(len, times.values())) < 3 or (time.monotonic() < end and len(times[next(iter(times))]) < MOST):
        for name, call in calls.items():
            times[name].append(call_milliseconds(call, "cpu"))
    return {name: statistics.median(each) for name, each in times.items()}


def call_milliseconds(function: Callable[[], Any], device: str) -> float:
    """How long one call takes, by the GPU's events or the wall clock."""
    if device != "cuda":
        begin = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - begin)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
