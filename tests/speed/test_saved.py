"""Bytes that autograd keeps."""

import pytest
import torch

from tests.speed.record import BLOCK, CORE, FUSED, MAMBA_SSM, OWN
from tests.speed.saved import saved_bytes, saved_figures
from tests.speed.scans import Stage


def test_every_block_of_memory_counts_once():
    def forward():
        x = torch.empty(10, 100, requires_grad=True)
        y = torch.empty(10, 100, requires_grad=True)
        return (x * y)[:5].sum() + (x.t() * 2.0).sum() + (y[3:] * y[:7]).sum()

    assert saved_bytes(forward) == 2 * 4000


def test_what_is_not_kept_does_not_count():
    assert saved_bytes(lambda: torch.empty(1000, requires_grad=True) + 1) == 0
    assert saved_bytes(lambda: torch.empty(1000) * 2) == 0


def test_stage_one_of_the_papers():
    """By hand, in bytes per element of x at D = 192, R = 6, N = 16 under float16 autocast."""
    stage = Stage(12, (320, 320), 4, 192, torch.float16)
    figures = {(f.what, f.pipeline): f.saved_mebibytes * 2**20 / stage.elements for f in saved_figures("cpu", stage)}
    assert set(figures) == {(what, pipeline) for what in (CORE, BLOCK) for pipeline in (FUSED, OWN, MAMBA_SSM)}
    projected = 4 * (6 + 2 * 16) / 192  # values per element: low-rank step sizes, B and C of four directions
    scans = 4 * 2 * 16 / 192  # B and C
    # fused, at most: x, step sizes, what is projected (whole), B and C once more, states each 64 steps
    most = 2 + 2 * 4 + 2 * projected + 2 * scans + 4 * 4 * 16 / 64
    assert figures[CORE, FUSED] <= 1.001 * most
    # mamba_ssm: x in four orders, that and the step sizes in float32, what is projected, B and C in float32, and two
    # numbers per state and chunk of 2048 steps
    authors = 2 * 4 + 4 * 4 + 4 * 4 + 2 * projected + 4 * scans + 4 * 4 * 4 * 2 * 16 / 6400
    assert figures[CORE, MAMBA_SSM] == pytest.approx(authors, rel=1e-3)
    assert figures[BLOCK, FUSED] > figures[CORE, FUSED]
    assert figures[BLOCK, MAMBA_SSM] > 1.5 * figures[BLOCK, FUSED]
