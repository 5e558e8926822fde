"""Targets against made-up figures."""

import dataclasses

import pytest
import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.blocks import SS2D
from tests.speed import targets
from tests.speed.made_up import cores, document, everything, kept, network_figure, scans
from tests.speed.record import COMPILED, FUSED, GRAPH, INFERENCE, MAMBA_SSM, OWN
from tests.speed.targets import MET, NOT_MEASURED, NOT_MET, verdicts

COUNT = 9


def found(figures, *words):
    """The verdict on the one target with these words in it."""
    (verdict,) = [v for v in verdicts(document(figures)) if all(word in v.target for word in words)]
    return verdict


def test_all_of_them_are_met_by_figures_that_meet_them():
    result = verdicts(everything())
    assert [v.verdict for v in result] == [MET] * COUNT


def test_nothing_measured():
    assert [(v.verdict, v.measured) for v in verdicts(document([]))] == [(NOT_MEASURED, "-")] * COUNT


def test_figures_without_numbers_count_for_nothing():
    figures = [dataclasses.replace(f, problem="out of memory") for f in everything()["figures"]]
    assert {v.verdict for v in verdicts(document(figures))} == {NOT_MEASURED}


def test_times_of_a_cpu_count_for_nothing_bytes_do():
    result = verdicts({**everything(), "device": {"type": "cpu", "name": "a CPU"}})
    assert [v.verdict for v in result].count(NOT_MEASURED) == COUNT - 1
    assert result[1].verdict == MET


@pytest.mark.parametrize(("size", "limit"), [(320, 2.5), (256, 2.0)])
def test_speed_over_mamba_ssm(size, limit):
    words = f"{size}x{size}, forward+backward"
    assert found(cores(size, {FUSED: 1, MAMBA_SSM: limit}), words).verdict == MET
    slow = found(cores(size, {FUSED: 1, MAMBA_SSM: limit - 0.01}, milliseconds=2), words)
    assert slow.verdict == NOT_MET
    assert f"SwinUMambaD {limit - 0.01:.2f} times ({42 * (limit - 0.01):.1f} / 42.0 ms" in slow.measured  # 21 blocks


def test_the_own_kernel_is_said_but_does_not_decide():
    verdict = found(cores(320, {FUSED: 1, OWN: 9}), "320x320, forward+backward")
    assert verdict.verdict == NOT_MEASURED
    assert "SwinUMambaD 9.00 times" in verdict.measured
    assert OWN in verdict.measured


def test_a_stage_that_is_missing():
    assert found(cores()[3:], "320x320, forward+backward").verdict == NOT_MEASURED


def test_blocks_are_those_of_the_networks():
    for name, blocks in targets.BLOCKS.items():
        with torch.device("meta"):
            network = getattr(networks, name)(1, 2)
        inner = [part.dt_projs_weight.shape[1] for part in network.modules() if isinstance(part, SS2D)]
        assert {channels: inner.count(channels) for channels in set(inner)} == blocks


def test_kept_for_backward():
    assert found(kept(1, 4), "kept for backward").verdict == MET
    verdict = found(kept(1, 3.9), "kept for backward")
    assert verdict.verdict == NOT_MET
    assert "scan with projections 0.26 (21 / 82 MiB" in verdict.measured


@pytest.mark.parametrize(("passes", "most"), [("forward", 3), ("backward", 6)])
def test_exp_bound(passes, most):
    assert found(scans(**{passes: most - 0.01}), f"scan, {passes}").verdict == MET
    verdict = found(scans(**{passes: most + 0.01}), f"scan, {passes}")
    assert verdict.verdict == NOT_MET
    assert f"SwinUMambaD {most + 0.01:.2f} times" in verdict.measured


def test_the_bound_is_summed_not_averaged():
    figures = [dataclasses.replace(f, milliseconds=10 * f.milliseconds) if f.channels == 192 else f for f in scans()]
    assert found(figures, "scan, forward").verdict == MET  # as far from the bound as before, only larger


@pytest.mark.parametrize(
    ("what", "other", "expected"),
    [
        ("time", {"milliseconds": 16.0}, (MET, "1.60 times (16 / 10 ms")),
        ("time", {"milliseconds": 15.9}, (NOT_MET, "1.59 times")),
        ("peak memory", {"peak_mebibytes": 1000.0}, (MET, "40% less (1000 / 600 MiB")),
        ("peak memory", {"peak_mebibytes": 990.0}, (NOT_MET, "39% less")),
    ],
)
def test_training_step(what, other, expected):
    fused = network_figure(milliseconds=10.0, peak_mebibytes=600.0)
    verdict = found([fused, network_figure(pipeline=OWN, **other)], "training step", what)
    assert verdict.verdict == expected[0]
    assert expected[1] in verdict.measured


def test_mamba_ssm_decides_where_it_was_measured():
    figures = [network_figure(milliseconds=10.0), network_figure(pipeline=OWN, milliseconds=30.0)]
    assert found(figures, "training step", "time").verdict == MET
    assert found([*figures, network_figure(pipeline=MAMBA_SSM, milliseconds=12.0)], "step", "time").verdict == NOT_MET


@pytest.mark.parametrize(("milliseconds", "verdict"), [(10.1, MET), (10.3, NOT_MET)])
def test_compiled(milliseconds, verdict):
    eager, compiled = network_figure(milliseconds=10.0), network_figure(mode=COMPILED, milliseconds=milliseconds)
    assert found([eager, compiled], "compiled").verdict == verdict
    assert found([network_figure(milliseconds=10.0, batch=30), compiled], "compiled").verdict == NOT_MEASURED


def test_one_image():
    slow = network_figure(passes=INFERENCE, batch=1, milliseconds=11.0)
    assert found([slow], "one 320x320 slice").verdict == NOT_MET
    graph = network_figure(passes=INFERENCE, batch=1, mode=GRAPH, milliseconds=9.0)
    assert found([slow, graph], "one 320x320 slice").verdict == MET
    other = network_figure("SwinUMamba", passes=INFERENCE, batch=1, milliseconds=11.0)
    assert found([slow, graph, other], "one 320x320 slice").verdict == NOT_MET
