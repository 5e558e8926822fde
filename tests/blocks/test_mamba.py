import math

import pytest
import torch

from swin_umamba_nnunet.blocks import Mamba, MambaLayer
from tests.blocks.test_ss2d import check_step_sizes


def test_gradients():
    """Those of the loop in float64 against finite differences; every backend's against the loop's: `networks`."""
    torch.manual_seed(0)
    block = Mamba(3, d_state=2, backend="reference").double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(block.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()), atol=1e-9, rtol=1e-7)


def test_initial_values():
    torch.manual_seed(0)
    block = Mamba(256).requires_grad_(False)
    inner, rank = 512, 16
    torch.testing.assert_close(block.A_log.exp(), torch.arange(1.0, 17).expand(inner, 16))
    assert torch.equal(block.D, torch.ones(inner))
    bounds = {"dt_proj": rank**-0.5, "in_proj": 256**-0.5, "x_proj": inner**-0.5, "out_proj": inner**-0.5}
    for name, bound in bounds.items():  # all uniform: the others as torch initialises a Linear
        weight = getattr(block, name).weight
        assert 0.97 * bound < weight.abs().max() <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0.9 * 0.5 < block.conv1d.weight.abs().max() <= 0.5  # 4 taps
    check_step_sizes(block.dt_proj.bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_inside_under_autocast(dtype):
    """Values far beyond float16's range between the projections; the result is that of float32, rounded once."""
    torch.manual_seed(0)
    layer = MambaLayer(16)
    with torch.no_grad():
        layer.mamba.in_proj.weight.mul_(1e3)
        layer.mamba.out_proj.weight.mul_(1e-5)
    x = torch.randn(1, 16, 6, 6).to(dtype)
    expected = layer(x.float())
    with torch.autocast("cpu", dtype):
        found = layer(x)
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert torch.equal(found, expected.to(dtype))


def test_a_network_in_half_precision():
    layer = MambaLayer(16).bfloat16()
    assert layer(torch.randn(1, 16, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
