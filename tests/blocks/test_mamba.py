import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from swin_umamba_nnunet.blocks import Mamba, MambaLayer
from tests import golden


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
    """Those of the loop in float64 against finite differences, and those of the backend chosen against the loop's."""
    torch.manual_seed(0)
    block = Mamba(3, d_state=2, backend="reference").double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    parameters = dict(block.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))
    block(x).square().sum().backward()
    fast = Mamba(3, d_state=2)
    fast.load_state_dict(block.state_dict())
    fast(x.detach().float()).square().sum().backward()
    for name, parameter in fast.named_parameters():
        assert golden.relative_error(parameter.grad, parameters[name].grad) < 1e-4, name


def test_keys_and_shapes_are_mamba_ssms():
    theirs = {
        key.removeprefix("mamba_layer."): shape
        for key, shape in golden.shapes("umamba_bot").items()
        if key.startswith("mamba_layer.")
    }
    assert {key: tuple(value.shape) for key, value in MambaLayer(512).state_dict().items()} == theirs


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
    logs = softplus(block.dt_proj.bias.double()).log()
    assert math.log(0.99e-3) < logs.min()
    assert logs.max() < math.log(1.01e-1)
    assert float(logs.mean()) == pytest.approx(math.log(1e-2), abs=0.2)
    assert float(logs.std()) == pytest.approx(math.log(100) / math.sqrt(12), rel=0.07)


def test_no_position_sees_a_later_one():
    torch.manual_seed(0)
    block = Mamba(8).eval()
    x = torch.randn(1, 12, 8)
    changed = x.clone()
    changed[:, 7] += 1
    with torch.no_grad():
        before, after = block(x), block(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(dim=-1).all()


@pytest.mark.parametrize("size", [(1,), (9,), (5, 3), (2, 3, 4)])
def test_layer_on_maps_of_any_axes(size):
    torch.manual_seed(0)
    layer = MambaLayer(8)
    x = torch.randn(2, 8, *size)
    y = layer(x)
    assert y.shape == x.shape
    assert y.is_contiguous()
    sequence = layer(x.flatten(2)[..., None]).view_as(x)  # the same positions in row-major order
    torch.testing.assert_close(y, sequence)


def test_channel_tokens_are_the_transposed_map():
    torch.manual_seed(0)
    positions, channels = MambaLayer(6), MambaLayer(6, channel_tokens=True)
    channels.load_state_dict(positions.state_dict())
    x = torch.randn(2, 9, 2, 3)
    transposed = positions(x.flatten(2).transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    torch.testing.assert_close(channels(x), transposed.reshape(x.shape))


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
    assert torch.equal(found, expected.to(dtype))


def test_a_network_in_half_precision():
    layer = MambaLayer(16).bfloat16()
    assert layer(torch.randn(1, 16, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_backend_is_passed_down():
    with pytest.raises(ValueError, match="no_such_backend"):
        MambaLayer(8, backend="no_such_backend")(torch.zeros(1, 8, 2, 2))
