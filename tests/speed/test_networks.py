"""Whole networks, tiny and on the CPU."""

import types
from dataclasses import replace

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import SwinUMambaD
from tests.speed import networks
from tests.speed.measure import Clock
from tests.speed.networks import build_network, measure
from tests.speed.record import COMPILED, FUSED, INFERENCE, OWN, STEP, WITHOUT, Figure

SIZE = (8, 8)


def tiny(*_):
    torch.manual_seed(0)
    return SwinUMambaD(1, 14, True, depths=(1, 1), width=8, d_state=2)


def figure(passes=STEP, **changed):
    return replace(Figure("SwinUMambaD", passes=passes, batch=2, size=SIZE), **changed)


@pytest.fixture
def measured(monkeypatch):
    """Measures a figure of the network that a function builds."""

    def measured(like, build=tiny):
        monkeypatch.setattr(networks, "build_network", build)
        networks.built.cache_clear()
        (found,) = measure(Clock("cpu", seconds=0), like)
        return found

    return measured


@pytest.mark.parametrize("passes", [STEP, INFERENCE])
@pytest.mark.parametrize("pipeline", [FUSED, OWN])
def test_figures(passes, pipeline, measured):
    found = measured(figure(passes, pipeline=pipeline))
    assert (found.what, found.passes, found.pipeline, found.backend) == ("SwinUMambaD", passes, pipeline, "numba")
    assert found.milliseconds > 0
    assert found.spread >= 0
    assert found.peak_mebibytes is None  # a CPU's is not measured


def test_a_step_trains_every_head_and_inference_one(measured):
    network = tiny()

    def heads():
        return [layer.weight.detach().clone() for layer in network.decoder.seg_layers]

    before = heads()
    measured(figure(INFERENCE), lambda *_: network)
    assert all(torch.equal(now, then) for now, then in zip(heads(), before, strict=True))
    assert isinstance(network(torch.randn(1, 1, *SIZE)), torch.Tensor)
    measured(figure(STEP, dtype="bfloat16"), lambda *_: network)
    assert len(network(torch.randn(1, 1, *SIZE))) == len(before) == 2
    assert not any(torch.equal(now, then) for now, then in zip(heads(), before, strict=True))


class Plain(nn.Module):
    """A network without scans, which remembers how it was set up."""

    def __init__(self, *_, mixing=None):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)
        self.decoder = types.SimpleNamespace(deep_supervision=True)
        self.mixing, self.seen = mixing, set()

    def forward(self, x):
        self.seen.add((self.training, self.decoder.deep_supervision, torch.is_inference_mode_enabled()))
        return [self.layer(x)] if self.decoder.deep_supervision else self.layer(x)


def test_a_network_that_evades_the_pipeline_is_found_out(measured):
    with pytest.raises(RuntimeError, match=r"computed no scan in the form asked for \(materialised, own 1D kernel\)"):
        measured(figure(pipeline=OWN), Plain)
    found = measured(figure(), Plain)
    assert found.backend is None


def test_networks_beside_their_controls(monkeypatch):
    built = []
    monkeypatch.setattr(networks.networks, "SwinUMambaD", lambda *a, **k: built.append(Plain(*a, **k)) or built[-1])
    found = measure(Clock("cpu", 0), figure(pipeline=WITHOUT))
    assert [network.mixing for network in built] == ["scan", "skip"]
    assert all(network.seen == {(True, True, False), (False, False, True)} for network in built)
    assert [(f.pipeline, f.passes) for f in found if f.milliseconds] == [
        (pipeline, passes) for passes in (STEP, INFERENCE) for pipeline in (FUSED, WITHOUT)
    ]


def test_compiled_runs_what_the_compiler_returns(monkeypatch, measured):
    seen = []

    def stand_in(network, dynamic):
        assert dynamic is False
        return lambda x: seen.append(x.shape) or network(x)

    monkeypatch.setattr(torch, "compile", stand_in)
    assert measured(figure(mode=COMPILED)).mode == COMPILED
    assert set(seen) == {(2, 1, *SIZE)}


@pytest.mark.parametrize("name", networks.TRAINERS)
def test_what_nnunet_shapes(name):
    network = build_network(name, (32, 32))
    networks.set_up(network, INFERENCE)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 14, 32, 32)
