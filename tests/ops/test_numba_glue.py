"""Norm and gate in one pass on a CPU, against torch's own operations in float64."""

import pytest
import torch
from torch.nn.functional import layer_norm, silu

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import _glue, fuses_glue
from tests.ops.cases import relative_error, values_and_gradients

SHAPES = [(1, 1, 1, 16), (2, 7, 5, 48), (1, 16, 9, 192), (3, 2, 2, 768)]


def plain(y, gate, weight, bias):
    normal = layer_norm(y, (y.shape[-1],), weight, bias, 1e-5)
    return normal if gate is None else normal * silu(gate)


def arguments(y, gate, weight, bias, save):
    """Of the operator, with a scan that gives back its image: all skip the states, a quarter each direction."""
    channels = y.shape[-1]
    parameters = [torch.zeros(s) for s in ((4, channels, 1), (4, channels), (4 * channels, 1))]
    skip = torch.full((4 * channels,), 0.25)
    return y, y.new_zeros(*y.shape[:3], 4 * 3), *parameters, skip, gate, weight, bias, 1e-5, save


def fused(y, gate, weight, bias):
    return torch.ops.swin_umamba.scan_2d_norm_gate(*arguments(y, gate, weight, bias, True))[0]


def make(shape, gated):
    """y, a projection whose second half is the gate (or None), weight, bias; float32."""
    generator = torch.Generator().manual_seed(0)
    y, wide, parameters = (
        torch.randn(*s, generator=generator) for s in (shape, (*shape[:3], 2 * shape[3]), (2, shape[3]))
    )
    return 3 * y + 1, 8 * wide if gated else None, *parameters


def run(function, inputs):
    """Output and the gradients of all inputs; the gate is read in place, half of a wider projection."""

    def call(y, wide, weight, bias):
        return function(y, None if wide is None else wide.chunk(2, dim=-1)[1], weight, bias)

    return values_and_gradients(call, inputs)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(shape, gated):
    inputs = make(shape, gated)
    assert fused(inputs[0], None, *inputs[2:]).dtype == torch.float32
    expected = run(plain, [None if t is None else t.double() for t in inputs])
    for found, wanted in zip(run(fused, inputs), expected, strict=True):
        assert relative_error(found, wanted) < 5e-6


def test_a_row_that_is_constant_and_gates_that_are_huge():
    y, wide, weight, bias = make((1, 2, 2, 32), True)
    y[0, 0, 0] = 7.0
    wide[0, 1, :, 32:48], wide[0, 1, :, 48:] = 1e4, -1e4
    expected = run(plain, [t.double() for t in (y, wide, weight, bias)])
    for found, wanted in zip(run(fused, (y, wide, weight, bias)), expected, strict=True):
        assert relative_error(found, wanted) < 5e-5  # a variance of zero: divided by sqrt(eps)


def test_the_same_bits_at_any_number_of_threads(set_threads):
    inputs, results = make((2, 31, 17, 64), True), []
    for count in (1, 2, 5):
        set_threads(count)
        results.append(run(fused, inputs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("gated", [True, False])
def test_registration(gated):
    """torch's own checks of schema, fake kernel and autograd registration."""
    y, wide, *parameters = make((1, 3, 4, 32), gated)
    gate = None if wide is None else wide[..., 32:].clone()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for save in (False, True):
        leaves = [None if t is None else t.clone().requires_grad_(save) for t in (y, gate, *parameters)]
        operator = torch.ops.swin_umamba.scan_2d_norm_gate
        torch.library.opcheck(operator.default, arguments(*leaves, save), test_utils=tests)
    _, _, mean, rstd, _ = operator(*arguments(y, gate, *parameters, True))
    saved = (torch.randn_like(y), y, mean, rstd, gate, *parameters, "numba")
    torch.library.opcheck(torch.ops.swin_umamba.norm_gate_backward.default, saved, test_utils=tests[::2])


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_in_a_block(dtype, gate, monkeypatch):
    """Fused and in torch's own operations, under autocast too: the product with the gate is then rounded once."""
    torch.manual_seed(0)
    block, x = SS2D(24, d_state=4, gate=gate, backend="numba"), torch.randn(2, 5, 6, 24)
    results = []
    for switch in ("1", "0"):
        monkeypatch.setenv(_glue.ENVIRONMENT_VARIABLE, switch)
        assert fuses_glue("numba", "cpu", 48) is (switch == "1")
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = block(given)
        block.zero_grad()
        out.float().square().sum().backward()
        results.append([out, given.grad, *(p.grad for p in block.parameters())])
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == wanted.dtype
        assert relative_error(found.double(), wanted.double()) < (2e-6 if dtype == torch.float32 else 3e-2)


def test_only_whole_vectors_and_only_on_a_cpu():
    assert fuses_glue("numba", "cpu", 48)
    assert not fuses_glue("numba", "cpu", 40)
    assert not fuses_glue("numba", "mps", 48)
    assert not fuses_glue("reference", "cpu", 48)
    block = SS2D(20, d_state=2, backend="numba")  # 40 channels inside
    assert block(torch.randn(1, 3, 3, 20)).shape == (1, 3, 3, 20)
