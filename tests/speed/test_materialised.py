"""The forms that the fused scan is compared with compute the same function."""

import pytest
import torch

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import _mamba_ssm
from tests.ops.cases import inputs_2d
from tests.ops.test_mamba_ssm import CHANNELS, StandIn
from tests.speed.materialised import core, networks_in, pipelines
from tests.speed.record import FUSED, MAMBA_SSM, OWN


class Extension(StandIn):
    def bwd(self, *given):
        with torch.enable_grad():  # which autograd calls it without
            return super().bwd(*(each.detach() if isinstance(each, torch.Tensor) else each for each in given))


@pytest.mark.parametrize("form", [core(OWN, "reference"), core(MAMBA_SSM, extension=Extension())], ids=[OWN, MAMBA_SSM])
def test_the_same_function(form, monkeypatch):
    monkeypatch.setattr(_mamba_ssm, "CHUNK", 4)  # so that what the extension saved is held against what comes back
    results = []
    for function in (core(FUSED, "reference"), form):
        leaves = [t.float().requires_grad_() for t in inputs_2d(2, 3, 5, CHANNELS, states=2)]
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
