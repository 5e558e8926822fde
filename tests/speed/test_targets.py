"""Targets against made-up figures."""

import dataclasses

import pytest
import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.blocks import SS2D
from tests.speed import targets
from tests.speed.made_up import cores, document, everything, kept, kernels, network_figure, scans
from tests.speed.record import COMPILED, FUSED, INFERENCE, MAMBA_SSM, OWN
from tests.speed.targets import MET, NOT_MEASURED, NOT_MET, verdicts

LARGE, SMALL = "320x320, forward+backward", "256x256, forward+backward"
ONE = {"passes": INFERENCE, "batch": 1}
STEP = network_figure(milliseconds=10.0, peak_mebibytes=600.0)
SLOW = network_figure(milliseconds=11.0, **ONE)
FAR = [dataclasses.replace(f, milliseconds=10 * f.milliseconds) if f.channels == 192 else f for f in scans()]


def test_what_is_not_measured_or_not_on_a_gpu_counts_for_nothing():
    failed = [dataclasses.replace(f, problem="out of memory") for f in everything()["figures"]]
    assert {(v.verdict, v.measured) for v in verdicts(document(failed))} == {(NOT_MEASURED, "-")}
    result = verdicts({**everything(), "device": {"type": "cpu", "name": "a CPU"}})
    (found,) = (v for v in result if v.verdict != NOT_MEASURED)
    assert (found.verdict, found.target) == (MET, result[1].target)  # bytes


@pytest.mark.parametrize(
    ("figures", "target", "verdict", "said"),
    [
        (cores(320, {FUSED: 1, MAMBA_SSM: 2.49}, 2), LARGE, NOT_MET, "SwinUMambaD 2.49 (104.6 / 42.0 ms"),  # 21
        (cores(256, {FUSED: 1, MAMBA_SSM: 1.99}), SMALL, NOT_MET, ""),
        # the own kernel is said but does not decide
        (cores(320, {FUSED: 1, OWN: 9}), LARGE, NOT_MEASURED, f"SwinUMambaD 9.00 (189.0 / 21.0 ms, {OWN}"),
        (cores()[3:], LARGE, NOT_MEASURED, ""),  # a stage is missing
        (kept(1, 3.9), "kept for backward", NOT_MET, "SwinUMambaD 0.26 (21.0 / 81.9 MiB"),
        (scans(forward=3.01), "scan, forward", NOT_MET, "SwinUMambaD 3.01 ("),
        (scans(backward=6.01), "scan, backward", NOT_MET, "SwinUMambaD 6.01 ("),
        (FAR, "scan, forward", MET, ""),  # summed, not averaged: as far from the bound as before, only larger
        ([STEP, network_figure(pipeline=OWN, milliseconds=15.9)], "320x320, time", NOT_MET, "1.59 times"),
        ([STEP, network_figure(pipeline=OWN, peak_mebibytes=990.0)], "peak memory", NOT_MET, "39% less"),
        # mamba_ssm's decides where it was measured
        (
            [
                STEP,
                network_figure(pipeline=OWN, milliseconds=30.0),
                network_figure(pipeline=MAMBA_SSM, milliseconds=12.0),
            ],
            "320x320, time",
            NOT_MET,
            "1.20 times",
        ),
        ([STEP, network_figure(mode=COMPILED, milliseconds=10.3)], "compiled", NOT_MET, ""),
        ([STEP, network_figure(mode=COMPILED, milliseconds=10.1, batch=30)], "compiled", NOT_MEASURED, ""),
        (kernels(199.9), "forward_kernel", MET, "200 (2 ms, float16): 1.12 of what was predicted"),
        (kernels(200.1), "forward_kernel", NOT_MET, "200 (2 ms"),
        ([SLOW], "one 320x320 slice", NOT_MET, "11.00 ms"),
        (
            [network_figure(milliseconds=9.0, **ONE), network_figure("SwinUMamba", milliseconds=11.0, **ONE)],
            "one 320x320 slice",
            NOT_MET,
            "SwinUMamba 11.00 ms",
        ),
    ],
)
def test_verdicts(figures, target, verdict, said):
    (found,) = [v for v in verdicts(document(figures)) if target in v.target]
    assert found.verdict == verdict
    assert said in found.measured


def test_blocks_are_those_of_the_networks():
    for name, blocks in targets.BLOCKS.items():
        with torch.device("meta"):
            network = getattr(networks, name)(1, 2)
        inner = [part.dt_projs_weight.shape[1] for part in network.modules() if isinstance(part, SS2D)]
        assert {channels: inner.count(channels) for channels in set(inner)} == blocks
