import math

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.blocks import Mamba, MambaLayer
from tests import golden
from tests.blocks.test_ss2d import check_step_sizes


def written_out(block: Mamba, x: np.ndarray) -> np.ndarray:
    """Mamba-1 by the paper, position by position in numpy's float64; x (L, C)."""
    w = {name: p.detach().double().numpy() for name, p in block.named_parameters()}

    def silu(a):
        return a / (1 + np.exp(-a))

    inner, states = w["A_log"].shape
    rank, taps = w["dt_proj.weight"].shape[1], w["conv1d.weight"].shape[2]
    xz = x @ w["in_proj.weight"].T
    u, gate = xz[:, :inner], xz[:, inner:]
    h, outputs = np.zeros((inner, states)), []
    for position in range(len(x)):
        past = [u[position - lag] if position >= lag else np.zeros(inner) for lag in reversed(range(taps))]
        v = silu(sum(w["conv1d.weight"][:, 0, tap] * past[tap] for tap in range(taps)) + w["conv1d.bias"])
        projected = w["x_proj.weight"] @ v
        delta = np.log1p(np.exp(w["dt_proj.weight"] @ projected[:rank] + w["dt_proj.bias"]))
        B, C = projected[rank : rank + states], projected[rank + states :]
        h = np.exp(-delta[:, None] * np.exp(w["A_log"])) * h + (delta * v)[:, None] * B
        outputs.append(w["out_proj.weight"] @ ((h @ C + w["D"] * v) * silu(gate[position])))
    return np.stack(outputs)


@pytest.mark.parametrize(("width", "length"), [(6, 1), (6, 2), (20, 37), (1, 70)])
def test_is_mamba_as_the_paper_defines_it(width, length):
    torch.manual_seed(0)
    block = Mamba(width, d_state=5)
    x = torch.randn(2, length, width)
    expected = np.stack([written_out(block, each) for each in x.double().numpy()])
    assert golden.relative_error(block(x), torch.from_numpy(expected)) < 1e-5
    in_double = block.double()
    in_double.backend = "reference"
    assert golden.relative_error(in_double(x.double()), torch.from_numpy(expected)) < 1e-12


def test_gradients():
    """Those of the loop in float64 against finite differences; every backend's against the loop's: `networks`."""
    torch.manual_seed(0)
    block = Mamba(3, d_state=2, backend="reference").double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(block.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


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
