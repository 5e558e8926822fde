"""Bytes that autograd keeps, and what other code for a sequence computes."""

import sys
import types

import pytest
import torch

from swin_umamba_nnunet.ops import selective_scan
from swin_umamba_nnunet.ops._selftest import giga_state_steps
from tests.speed import scans
from tests.speed.measure import MissingPackageError
from tests.speed.record import BLOCK, CORE, FUSED, LOOP, MAMBA_SSM, MAMBAPY, OWN
from tests.speed.scans import parallel_scan, plain_loop, saved_bytes, saved_figures, stages


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
    found = scans.others(0)
    expected = [FUSED, FUSED, LOOP, LOOP] + [MAMBAPY, MAMBAPY] * installed
    assert [next(found).pipeline for _ in expected] == expected
    if not installed:
        with pytest.raises(MissingPackageError, match="pip install --no-deps mambapy"):
            next(found)


def test_one_figure_for_a_backend():
    assert giga_state_steps("numba", "cpu", 0) > 0
