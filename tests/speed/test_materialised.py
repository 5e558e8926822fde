"""The forms that the fused scan is compared with compute the same function."""

import pytest
import torch

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import selective_scan
from tests.speed.materialised import core, networks_in, pipelines
from tests.speed.record import FUSED, MAMBA_SSM, OWN


class StandIn:
    """mamba_ssm's extension as far as it is used, computed in float64; complains about what the real one refuses."""

    def run(self, u, delta, A, B, C, D, delta_bias):
        return selective_scan(u, delta, A, B, C, D, None, delta_bias, True, backend="reference")

    def fwd(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        assert (z, delta_softplus) == (None, True)
        for tensor in (u, delta, A, B, C, D, delta_bias):
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous()
        batch, rows, length = u.shape
        assert B.shape == C.shape == (batch, 4, A.shape[1], length)
        assert A.shape[0] == D.shape[0] == delta_bias.shape[0] == rows
        self.saved = torch.randn(3)
        return self.run(*(t.double() for t in (u, delta, A, B, C, D, delta_bias))).float(), self.saved

    def bwd(self, u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus, recompute):
        assert (z, out, dz, delta_softplus, recompute) == (None, None, None, True, False)
        assert torch.equal(x, self.saved)
        assert dout.is_contiguous()
        leaves = [t.double().requires_grad_() for t in (u, delta, A, B, C, D, delta_bias)]
        with torch.enable_grad():
            self.run(*leaves).backward(dout.double())
        return [leaf.grad.float() for leaf in leaves]


def arguments():
    torch.manual_seed(0)
    return [
        torch.randn(2, 3, 5, 4),
        torch.randn(4, 7, 4) / 2,
        torch.randn(4, 4, 3),
        torch.randn(4, 4),
        torch.rand(16, 2),
        torch.randn(16),
    ]


@pytest.mark.parametrize("form", [core(OWN, "reference"), core(MAMBA_SSM, extension=StandIn())], ids=[OWN, MAMBA_SSM])
def test_the_same_function(form):
    results = []
    for function in (core(FUSED, "reference"), form):
        leaves = [t.requires_grad_() for t in arguments()]
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for fused, other in zip(*results, strict=True):
        torch.testing.assert_close(other, fused, rtol=1e-4, atol=1e-4)


def test_networks_and_back():
    torch.manual_seed(0)
    block = SS2D(8, d_state=2, backend="reference")
    x = torch.randn(1, 4, 3, 8)
    fused = block(x)
    with networks_in(block, OWN) as calls:
        torch.testing.assert_close(block(x), fused, rtol=1e-4, atol=1e-4)
        block(x)
    assert len(calls) == 2
    with networks_in(block, FUSED) as calls:
        assert torch.equal(block(x), fused)
    assert calls
    assert block.given_scan is None


def test_which_run_on_a_cpu():
    assert pipelines("cpu") == [FUSED, OWN]
