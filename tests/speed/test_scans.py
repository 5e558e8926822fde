"""Bytes that autograd keeps, and the time of the scan and its kernels."""

import sys
import types
from dataclasses import replace

import pytest
import torch

from swin_umamba_nnunet.ops import selective_scan
from tests.messages import assert_names
from tests.speed import scans
from tests.speed.measure import Clock
from tests.speed.record import (
    BACKWARD,
    BLOCK,
    BOTH,
    CORE,
    FORWARD,
    FUSED,
    KERNELS,
    LAUNCHES,
    LOOP,
    MAMBA_SSM,
    MAMBAPY,
    OWN,
    SCAN,
    Figure,
)
from tests.speed.scans import measure, parallel_scan, plain_loop, saved_bytes, saved_figures, stages


def test_every_block_of_memory_counts_once():
    def forward():
        x = torch.empty(10, 100, requires_grad=True)
        y = torch.empty(10, 100, requires_grad=True)
        return (x * y)[:5].sum() + (x.t() * 2.0).sum() + (y[3:] * y[:7]).sum()

    assert saved_bytes(forward) == 2 * 4000
    assert saved_bytes(lambda: torch.empty(1000, requires_grad=True) + 1) == 0
    assert saved_bytes(lambda: torch.empty(1000) * 2) == 0


def test_stage_one_of_the_papers():
    """By hand, in bytes per element of x at D = 192, R = 6, N = 16 under float16 autocast."""
    stage, *_ = stages(12, 320)
    elements = torch.Size(stage.shape).numel()
    figures = {(f.what, f.pipeline): f.saved_mebibytes * 2**20 / elements for f in saved_figures("cpu", stage)}
    assert set(figures) == {(what, pipeline) for what in (CORE, BLOCK) for pipeline in (FUSED, OWN, MAMBA_SSM)}
    projected = 4 * (6 + 2 * 16) / 192  # values per element: low-rank step sizes, B and C of four directions
    of_scans = 4 * 2 * 16 / 192  # B and C
    # fused, at most: x, step sizes, what is projected (whole), B and C once more, states each 64 steps
    most = 2 + 2 * 4 + 2 * projected + 2 * of_scans + 4 * 4 * 16 / 64
    assert figures[CORE, FUSED] <= 1.001 * most
    # mamba_ssm: x in four orders, that and the step sizes in float32, what is projected, B and C in float32, and two
    # numbers per state and chunk of 2048 steps
    authors = 2 * 4 + 4 * 4 + 4 * 4 + 2 * projected + 4 * of_scans + 4 * 4 * 4 * 2 * 16 / 6400
    assert figures[CORE, MAMBA_SSM] == pytest.approx(authors, rel=1e-3)
    assert figures[BLOCK, FUSED] > figures[CORE, FUSED]
    assert figures[BLOCK, MAMBA_SSM] > 1.5 * figures[BLOCK, FUSED]


def pscan(decays, inputs):
    """What mambapy's function computes, (batch, L, dim, N)."""
    state, states = torch.zeros_like(inputs[:, 0]), []
    for step in range(inputs.shape[1]):
        state = decays[:, step] * state + inputs[:, step]
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("other", [plain_loop, parallel_scan(pscan)], ids=["plain loop", "parallel scan"])
def test_what_is_compared_computes_the_same(other):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 9), (2, 5, 9), (5, 3), (2, 3, 9), (2, 3, 9), (5,), (5,)]
    arguments = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    arguments[2] = -arguments[2].abs()
    settings = {"delta_bias": arguments[6], "delta_softplus": True, "backend": "reference"}
    torch.testing.assert_close(other(*arguments), selective_scan(*arguments[:6], **settings))


@pytest.mark.parametrize("installed", [True, False])
def test_other_code(installed, monkeypatch):
    monkeypatch.setattr(scans, "OF_SEQUENCE", (1, 4, 5, 2))
    monkeypatch.setitem(sys.modules, "mambapy.pscan", types.SimpleNamespace(pscan=pscan) if installed else None)
    *found, last = scans.others(0)
    assert [f.pipeline for f in found] == [FUSED, FUSED, LOOP, LOOP, *[MAMBAPY] * installed]
    if installed:
        assert last.pipeline == MAMBAPY
    else:
        assert last.skipped
        assert_names(last.line(), MAMBAPY, "pip install --no-deps mambapy")


@pytest.mark.parametrize(
    ("what", "passes"),
    [(SCAN, FORWARD), (SCAN, BACKWARD), (CORE, FORWARD), (CORE, BOTH), (BLOCK, FORWARD), (BLOCK, BOTH)],
)
def test_the_scan_alone_with_projections_and_in_a_block(what, passes):
    (figure,) = measure(Clock("cpu", 0), Figure(what, passes=passes, size=(4, 4), stride=1, channels=16, states=4))
    steps = 4 * 16 * 4 * 4 * 4  # directions * channels * H * W * states
    assert figure.giga_state_steps == pytest.approx(steps / figure.milliseconds / 1e6)
    assert (figure.what, figure.passes, figure.backend, figure.spread >= 0) == (what, passes, "numba", True)


@pytest.fixture
def launched(monkeypatch):
    """What the scan's kernels were given, where none runs: (name, options, arguments by name); each takes 3 ms."""
    pytest.importorskip("triton")
    from swin_umamba_nnunet.ops import _triton, _triton_kernels

    seen = []

    class Event:
        def __init__(self, enable_timing):
            self.elapsed_time = lambda end: 3.0

        def record(self):
            pass

    class Kernel:
        def __init__(self, name):
            self.name, self.arg_names = name, getattr(_triton_kernels, name).arg_names

        def __getitem__(self, grid):
            return lambda *given, **options: seen.append((self.name, options, dict(zip(self.arg_names, given))))

    for name in KERNELS:
        monkeypatch.setattr(_triton_kernels, name, Kernel(name))
    for name, value in {"Event": Event, "_sleep": lambda cycles: None, "synchronize": lambda: None}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 132)
    return seen


@pytest.mark.parametrize("passes", [FORWARD, BACKWARD])
def test_kernels_are_timed_one_by_one_as_launched_and_otherwise(passes, launched, monkeypatch):
    stage = Figure(LAUNCHES, passes=passes, size=(24, 24), stride=1, channels=32)
    found = list(measure(Clock("cpu"), stage))
    main, first = KERNELS[:2] if passes == FORWARD else KERNELS[2:]
    assert {f.what: f.milliseconds for f in found} == {main: 3.0, first: 3.0}
    steps = {f.what: f.giga_state_steps * 3e6 for f in found}
    assert steps[main] == pytest.approx(4 * 24 * 24 * 32 * 16)
    _, _, at = launched[-1]
    assert at["chunks"] > 1
    assert steps[first] < steps[main]
    assert not any("maxnreg" in given for name, given, _ in launched if name == main)
    del launched[:]
    monkeypatch.setattr(scans, "PROGRAMS", (4, 24))
    found = list(measure(Clock("cpu"), replace(stage, pipeline="fused, 128 registers")))
    assert {f.pipeline for f in found} == {f"fused, 128 registers, {warps} warps" for warps in (4, 24)}
    given = [options.get("maxnreg") for name, options, _ in launched if name == main]
    assert set(given[passes == FORWARD :]) == {128}  # what backward needs of a forward pass is launched as ever
