"""Calls that take turns."""

from dataclasses import replace

from tests.speed.made_up import network_figure
from tests.speed.measure import interleaved


def test_calls_take_turns():
    order: list = []
    figures = [replace(network_figure(name), backend=None) for name in "ab"]
    times = interleaved({figure: lambda f=figure: order.append(f.what) for figure in figures}, 0)
    assert order == ["a", "b"] * 4
    assert [f.what for f in times if f.milliseconds >= 0] == ["a", "b"]
