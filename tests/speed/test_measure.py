"""Clocks: calls that take turns, and a GPU that has to wait until all is launched."""

from contextlib import nullcontext

import pytest
import torch

from swin_umamba_nnunet.ops._selftest import milliseconds
from tests.speed.measure import interleaved
from tests.speed.record import Figure


def test_calls_take_turns():
    order: list = []
    figures = [Figure(name) for name in "ab"]
    times = interleaved({figure: lambda f=figure: order.append(f.what) for figure in figures}, 0)
    assert order == ["a", "b"] * 4
    assert [f.what for f in times if f.milliseconds >= 0] == ["a", "b"]


@pytest.mark.parametrize(("launches", "waits"), [(1e6, [2e6]), (9e6, [2e6, 8e6, 32e6]), (9e9, [2e6, 8e6, 32e6])])
def test_a_gpu_waits_until_all_is_launched(launches, waits, monkeypatch):
    """On a stand-in for a GPU that has nothing to do but wait for `launches` cycles of the CPU; the call takes 1000."""
    now = {"cpu": 0.0, "gpu": 0.0}

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self):
            self.at = now["gpu"] = max(now.values())

        def query(self):
            return self.at <= now["cpu"]

        def synchronize(self):
            now["cpu"] = now["gpu"]

        def elapsed_time(self, end):
            return end.at - self.at

    def call():
        now["cpu"] += launches
        now["gpu"] = max(now.values()) + 1000

    slept = []

    def sleep(cycles):
        slept.append(cycles)
        now["gpu"] += cycles

    for name, value in {"Event": Event, "_sleep": sleep, "device": lambda _: nullcontext()}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    taken = milliseconds(call, "cuda", queued=True)
    assert slept == waits
    assert taken == 1000 if launches < waits[-1] else taken > launches / 2
    assert milliseconds(call, "cuda") == launches + 1000  # a network's launches are part of its time
    assert slept == waits
