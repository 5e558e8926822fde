"""What a CPU is measured for beyond a backend's speed, at sizes that take no time."""

import sys
import types

import pytest
import torch
from torch import nn

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.ops import selective_scan
from tests.speed import cpu, ops
from tests.speed.clock import interleaved_milliseconds


def pscan(decays, inputs):
    """What mambapy's function computes, (batch, L, dim, N)."""
    state, states = torch.zeros_like(inputs[:, 0]), []
    for step in range(inputs.shape[1]):
        state = decays[:, step] * state + inputs[:, step]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("other", [cpu.plain_loop, cpu.parallel_scan(pscan)], ids=["plain loop", "parallel scan"])
def test_what_is_compared_computes_the_same(other):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 9), (2, 5, 9), (5, 3), (2, 3, 9), (2, 3, 9), (5,), (5,)]
    arguments = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    arguments[2] = -arguments[2].abs()
    expected = selective_scan(
        *arguments[:6], delta_bias=arguments[6], delta_softplus=True, backend="reference"
    )  # fmt: skip
    torch.testing.assert_close(other(*arguments), expected)


@pytest.mark.parametrize("installed", [True, False])
def test_other_code(installed, monkeypatch):
    monkeypatch.setattr(cpu, "SEQUENCE", (1, 4, 5, 2))
    module = types.SimpleNamespace(pscan=pscan) if installed else None
    monkeypatch.setitem(sys.modules, "mambapy.pscan", module)
    lines: list = []
    cpu.others(0, lines.append)
    text = "\n".join(lines)
    assert "plain loop" in text
    assert ("skipped, mambapy is not installed" in text) == (not installed)
    assert text.count("times as long") == 1 + installed


def test_stages(monkeypatch):
    monkeypatch.setattr(cpu, "STAGES", ((4, 16), (8, 32)))
    monkeypatch.setattr(cpu, "IMAGE", (16, 16))
    monkeypatch.setattr(cpu, "SMALLEST", (1, 2, 2, 16))
    lines: list = []
    figures = list(cpu.stages(0, lines.append))
    assert {(figure.size, figure.channels) for figure in figures} == {
        ((80, 80), 16), ((64, 64), 16), ((4, 4), 16), ((2, 2), 32)
    }  # fmt: skip
    for figure in figures:
        steps = 4 * 16 * figure.size[0] * figure.size[1] * figure.channels
        assert figure.giga_state_steps == pytest.approx(steps / figure.milliseconds / 1e6)
    assert "2x2x16" in lines[-1]


class Small(nn.Module):
    def __init__(self, channels, classes, deep_supervision, *, mixing):
        super().__init__()
        self.layer = nn.Conv2d(channels, classes, 1)
        self.decoder = types.SimpleNamespace(deep_supervision=deep_supervision)
        self.mixing = mixing
        self.seen = set()

    def forward(self, x):
        self.seen.add((self.training, self.decoder.deep_supervision, torch.is_inference_mode_enabled()))
        return [self.layer(x)] if self.decoder.deep_supervision else self.layer(x)


def test_networks_beside_their_controls(monkeypatch):
    built = []
    monkeypatch.setattr(networks, "SwinUMambaD", lambda *a, **k: built.append(Small(*a, **k)) or built[-1])
    monkeypatch.setattr(cpu, "CONTROLS", ("SwinUMambaD",))
    monkeypatch.setattr(cpu, "IMAGE", (8, 8))
    lines: list = []
    figures = list(cpu.controls(0, lines.append))
    assert [network.mixing for network in built] == ["scan", "skip"]
    assert all(network.seen == {(True, True, False), (False, False, True)} for network in built)
    by_name = {(figure.what, figure.passes): figure.milliseconds for figure in figures}
    for passes in ("training step", "inference"):
        ratio = by_name["SwinUMambaD", passes] / by_name["SwinUMambaD without scans", passes]
        (line,) = (line for line in lines if passes in line)
        assert line.split()[-1] == f"{ratio:.2f}"


def test_calls_take_turns():
    order: list = []
    times = interleaved_milliseconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0)
    assert order == ["a", "b"] * 4
    assert set(times) == {"a", "b"}


def test_one_figure_for_a_backend():
    assert ops.giga_state_steps("numba", "cpu", 0) > 0
