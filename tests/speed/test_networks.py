"""Whole networks, tiny and on the CPU."""

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import SwinUMambaD
from tests.speed import networks
from tests.speed.clock import Clock
from tests.speed.networks import Builder, Setting, measure
from tests.speed.record import COMPILED, FUSED, GRAPH, INFERENCE, MAMBA_SSM, OWN, STEP

SIZE = (8, 8)


def tiny(name="SwinUMambaD", size=SIZE):
    torch.manual_seed(0)
    return SwinUMambaD(1, 14, True, depths=(1, 1), width=8, d_state=2)


def setting(passes=STEP, **changed):
    return Setting(**{"network": "SwinUMambaD", "batch": 2, "size": SIZE, "dtype": torch.float32, "passes": passes}
                   | changed)  # fmt: skip


@pytest.mark.parametrize("passes", [STEP, INFERENCE])
@pytest.mark.parametrize("pipeline", [FUSED, OWN])
def test_figures(passes, pipeline):
    clock = Clock("cpu", seconds=0)
    figure = measure(clock, setting(passes, pipeline=pipeline), Builder(tiny))
    assert (figure.what, figure.passes, figure.pipeline, figure.backend) == ("SwinUMambaD", passes, pipeline, "numba")
    assert figure.milliseconds > 0
    assert figure.spread >= 0
    assert (figure.peak_mebibytes, figure.percent_of_exp_bound) == (None, None)  # a CPU's are not measured
    # encoder 2x2 and 1x1, decoder two blocks at 2x2; d_inner 16 and 32; four directions, two states
    steps = 2 * 4 * 2 * (3 * 4 * 16 + 32)
    assert figure.giga_state_steps == pytest.approx(steps / figure.milliseconds / 1e6)


def test_a_step_trains_every_head_and_inference_one():
    network = tiny()
    builder = Builder(lambda *_: network)

    def heads():
        return [layer.weight.detach().clone() for layer in network.decoder.seg_layers]

    before = heads()
    measure(Clock("cpu", seconds=0), setting(INFERENCE), builder)
    assert all(torch.equal(now, then) for now, then in zip(heads(), before, strict=True))
    assert isinstance(network(torch.randn(1, 1, *SIZE)), torch.Tensor)
    measure(Clock("cpu", seconds=0), setting(STEP, dtype=torch.bfloat16), builder)
    assert len(network(torch.randn(1, 1, *SIZE))) == len(before) == 2
    assert not any(torch.equal(now, then) for now, then in zip(heads(), before, strict=True))


def test_a_network_that_evades_the_pipeline_is_found_out():
    class Evasive(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Conv2d(1, 2, 1)
            self.decoder.deep_supervision = False

        def forward(self, x):
            return self.decoder(x)

    with pytest.raises(RuntimeError, match=r"computed no scan in the form asked for \(materialised, own 1D kernel\)"):
        measure(Clock("cpu", seconds=0), setting(pipeline=OWN), Builder(lambda *_: Evasive()))
    figure = measure(Clock("cpu", seconds=0), setting(), Builder(lambda *_: Evasive()))
    assert (figure.backend, figure.giga_state_steps) == (None, None)


def test_compiled_runs_what_the_compiler_returns(monkeypatch):
    seen = []

    def stand_in(network, dynamic):
        assert dynamic is False
        return lambda x: seen.append(x.shape) or network(x)

    monkeypatch.setattr(torch, "compile", stand_in)
    assert measure(Clock("cpu", seconds=0), setting(mode=COMPILED), Builder(tiny)).mode == "compiled"
    assert set(seen) == {(2, 1, *SIZE)}


def test_a_network_is_built_once_for_settings_in_a_row():
    built = []
    builder = Builder(lambda *key: built.append(key) or tiny())
    first, _ = builder.get("a", SIZE, "cpu")
    assert builder.get("a", SIZE, "cpu")[0] is first
    builder.get("b", SIZE, "cpu")
    assert built == [("a", SIZE), ("b", SIZE)]


def test_which_settings_make_sense():
    assert setting(pipeline=MAMBA_SSM).makes_sense
    assert not setting(network="UMambaEnc", pipeline=OWN).makes_sense
    assert not setting(network="PlainConvUNet", pipeline=MAMBA_SSM).makes_sense
    assert setting(INFERENCE, network="PlainConvUNet", mode=GRAPH).makes_sense
    assert not setting(STEP, mode=GRAPH).makes_sense


def test_finite_training(monkeypatch):
    monkeypatch.setattr(networks, "build_network", tiny)
    passed, detail = networks.stays_finite("cpu", torch.bfloat16, 2, size=8)
    assert passed
    assert detail.startswith("2 iterations, bfloat16, learning rate 1e-2, loss ")


def test_the_first_layer_that_is_not_finite_is_named(monkeypatch):
    def broken(*_):
        network = tiny()
        with torch.no_grad():
            network.encoder.layers[0].blocks[0].ln_1.weight.fill_(float("inf"))
        return network

    monkeypatch.setattr(networks, "build_network", broken)
    passed, detail = networks.stays_finite("cpu", torch.float32, 2, size=8)
    assert not passed
    assert detail == "float32: loss nan in iteration 1, first not finite in encoder.layers.0.blocks.0.ln_1"
