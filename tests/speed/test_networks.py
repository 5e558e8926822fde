"""Whole networks, tiny and on the CPU."""

import types
from dataclasses import replace

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import SwinUMambaD
from tests.speed import networks
from tests.speed.measure import Clock
from tests.speed.networks import build_network, measure, scanned
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
    assert (found.peak_mebibytes, found.percent_of_exp_bound) == (None, None)  # a CPU's are not measured
    # encoder 2x2 and 1x1, decoder two blocks at 2x2; d_inner 16 and 32; four directions, two states
    steps = 2 * 4 * 2 * (3 * 4 * 16 + 32)
    assert found.giga_state_steps == pytest.approx(steps / found.milliseconds / 1e6)


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
    assert (found.backend, found.giga_state_steps) == (None, None)


def test_networks_beside_their_controls(monkeypatch):
    built = []
    monkeypatch.setattr(networks.networks, "SwinUMambaD", lambda *a, **k: built.append(Plain(*a, **k)) or built[-1])
    found = measure(Clock("cpu", 0), figure(pipeline=WITHOUT))
    assert [network.mixing for network in built] == ["scan", "skip"]
    assert all(network.seen == {(True, True, False), (False, False, True)} for network in built)
    assert [(f.pipeline, f.passes) for f in found if f.milliseconds] == [
        (pipeline, passes) for pipeline in (FUSED, WITHOUT) for passes in (STEP, INFERENCE)
    ]


def test_compiled_runs_what_the_compiler_returns(monkeypatch, measured):
    seen = []

    def stand_in(network, dynamic):
        assert dynamic is False
        return lambda x: seen.append(x.shape) or network(x)

    monkeypatch.setattr(torch, "compile", stand_in)
    assert measured(figure(mode=COMPILED)).mode == COMPILED
    assert set(seen) == {(2, 1, *SIZE)}


# KERNELS.md, section 2: state-steps of an image of 320x320; two-dimensional scans have 64 for each element
@pytest.mark.parametrize(
    ("name", "size", "steps", "per_element"),
    [
        ("SwinUMamba", 320, pytest.approx(0.433e9, abs=5e5), 64),
        ("SwinUMambaD", 320, pytest.approx(0.708e9, abs=5e5), 64),
        ("PlainConvUNet", 32, 0, None),
        ("UMambaBot", 32, 4 * 4 * 2 * 256 * 16, None),  # 4x4 positions of 256 channels, expanded twice, 16 states
    ],
)
def test_work_of_the_scans(name, size, steps, per_element):
    with torch.device("meta"):
        found, elements = scanned(build_network(name, (size, size)).eval(), (size, size), "meta")
    assert found == steps
    assert found == per_element * elements if per_element else elements == 0
