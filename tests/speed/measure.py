"""Time and memory of calls."""

import gc
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch

from swin_umamba_nnunet.ops._selftest import MOST_CALLS, milliseconds, quartiles
from tests.speed.record import BACKWARD, BOTH, FORWARD

WARM_UP = 2  # calls


@dataclass(frozen=True)
class Clock:
    """Times callables on one device.

    Attributes:
        device: "cpu" or "cuda".
        seconds: to spend on the calls of one figure, beyond the warm-up and the fewest calls.
    """

    device: str
    seconds: float = 0.15

    def time(self, figure, call, *, steps=0, whole=False, **known):
        """The figure with time, memory and what follows from them.

        Args:
            figure: of what.
            call: does it once.
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
        return replace(
            figure,
            milliseconds=median,
            spread=(high - low) / median,
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
