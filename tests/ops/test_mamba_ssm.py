"""The adapter to mamba-ssm's extension: a stand-in for the extension, computed in float64, shows that layouts fit.

What the real extension computes is not tested here; it needs a GPU and a compiler.
"""

import sys
from types import SimpleNamespace

import pytest
import torch

from swin_umamba_nnunet.ops import _mamba_ssm, selective_scan
from tests.ops.cases import assert_keeps_contract, inputs_core

CHANNELS = 2


def run(u, delta, A, B, C, D, delta_bias, delta_softplus):
    return selective_scan(u, delta, A, B, C, D, None, delta_bias, delta_softplus, backend="reference")


class StandIn(SimpleNamespace):
    """`selective_scan_cuda` as far as the adapter uses it; complains about what the real one would not take."""

    def fwd(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        assert z is None
        for tensor in (u, delta, A, B, C, D, delta_bias):
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous()
        assert u.shape == delta.shape == (u.shape[0], A.shape[0], u.shape[2])
        assert u.shape[1] == A.shape[0]
        assert B.shape == C.shape == (u.shape[0], A.shape[0] // CHANNELS, A.shape[1], u.shape[2])
        chunks = -(-u.shape[2] // _mamba_ssm.CHUNK)
        self.saved = torch.randn(u.shape[0], u.shape[1], chunks, 2 * A.shape[1])
        return run(u, delta, A, B, C, D, delta_bias, delta_softplus), self.saved

    def bwd(self, u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute):
        assert (z, out, dz, recompute) == (None, None, None, False)
        assert dout.is_contiguous()
        if self.saved.shape[2] > 1:
            assert torch.equal(x, self.saved), "what the extension saved did not survive"
        leaves = [t.double().requires_grad_() for t in (u, delta, A, B, C, D, delta_bias)]
        run(*leaves, delta_softplus).backward(dout.double())
        return [leaf.grad.float() for leaf in leaves]


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("size", [(2, 3, 5), (1, 20, 13)])
def test_directions_and_layouts(size, sets, monkeypatch):
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", StandIn())
    monkeypatch.setattr(_mamba_ssm, "CHUNK", 256)  # so that a short sequence has two
    inputs = inputs_core(size[0] * sets, *size[1:], CHANNELS, 4, 3, sets=sets)
    assert_keeps_contract(_mamba_ssm, inputs)


def test_where_it_cannot_run(monkeypatch):
    assert "CUDA" in _mamba_ssm.unavailable_reason("cpu")
    monkeypatch.setattr(_mamba_ssm.importlib.util, "find_spec", lambda name: None)
    assert "not installed" in _mamba_ssm.unavailable_reason("cuda")
