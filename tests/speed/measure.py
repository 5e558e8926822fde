"""Time and memory of calls.

The exp bound: a forward scan evaluates one exponential per state and step, in four directions, and two for softplus in
each: 72 for each of E = batch * L * D elements (N = 16).  The backward pass evaluates each once more, and three for
softplus and its derivative: 76.  A multiprocessor does 16 per clock; no scan that computes every exponential is faster.
"""

import gc
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace

import torch

from swin_umamba_nnunet.ops._selftest import DIRECTIONS, MOST_CALLS, milliseconds, quartiles
from tests.speed.record import BACKWARD, BOTH, FORWARD, nvidia_smi

PER_CLOCK = 16
WARM_UP = 2  # calls
# exponentials and logarithms per step and direction, besides those of the states: of each scan that is computed
EXTRA = {FORWARD: (2,), BACKWARD: (3,), BOTH: (2, 3)}


class Clock:
    """Times callables on one device.

    Args:
        device: "cpu" or "cuda".
        seconds: to spend on the calls of one figure, beyond the warm-up and the fewest calls.
    """

    def __init__(self, device, seconds=0.15):
        self.device, self.seconds = device, seconds
        self.exponentials_per_second = None
        if device == "cuda" and (clock := nvidia_smi("clocks.max.sm") or "").isdigit():  # MHz
            units = torch.cuda.get_device_properties(0).multi_processor_count
            self.exponentials_per_second = PER_CLOCK * units * float(clock) * 1e6

    def time(self, figure, call, *, elements=0, steps=0, whole=False, **known):
        """The figure with time, memory and what follows from them.

        Args:
            figure: of what.
            call: does it once.
            elements: E of the scan, for the exp bound; 0 for a network.
            steps: state-steps in it, 0 for a network.
            whole: count the memory that was there before, too.
            known: further fields.
        """
        cuda = self.device == "cuda"
        gc.collect()
        for _ in range(WARM_UP):
            call()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda and not whole else 0
        operator = figure.passes in (FORWARD, BACKWARD, BOTH)  # a network's launches are part of its time
        low, median, high = quartiles(call, self.device, self.seconds, warm_up=0, queued=operator)
        bound = None
        if self.exponentials_per_second and elements:
            each = sum(DIRECTIONS * (figure.states + extra) for extra in EXTRA[figure.passes])
            bound = 100 * each * elements / self.exponentials_per_second / (median / 1e3)
        return replace(
            figure,
            milliseconds=median,
            spread=(high - low) / median,
            percent_of_exp_bound=bound,
            peak_mebibytes=(torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else None,
            giga_state_steps=steps / median / 1e6 if steps else None,
            **known,
        )


def interleaved(calls, seconds):
    """Medians of calls that take turns on a CPU, after one to warm up: what else runs there meets them alike.

    Args:
        calls: {figure without numbers: what takes the time}.
        seconds: to spend on all of them, beyond the warm-up and three rounds.
    """
    gc.collect()
    for call in calls.values():
        call()
    rounds = []
    end = time.monotonic() + seconds
    while len(rounds) < 3 or (time.monotonic() < end and len(rounds) < MOST_CALLS):
        rounds.append([milliseconds(call, "cpu") for call in calls.values()])
    return [replace(f, milliseconds=statistics.median(times)) for f, times in zip(calls, zip(*rounds))]


def autocast(device, dtype, **settings):
    """torch.autocast, or nothing for float32."""
    return nullcontext() if dtype == "float32" else torch.autocast(device, dtype=getattr(torch, dtype), **settings)
