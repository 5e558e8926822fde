import math

import pytest
import torch
from torch.nn.functional import softplus

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import selective_scan_2d
from tests import golden
from tests.messages import raises


def check_step_sizes(bias):
    """Initial ones are log-uniform from 1e-3 to 1e-1."""
    logs = softplus(bias.double()).log()
    assert math.log(0.99e-3) < logs.min()
    assert logs.max() < math.log(1.01e-1)
    assert float(logs.mean()) == pytest.approx(math.log(1e-2), abs=0.2)
    assert float(logs.std()) == pytest.approx(math.log(100) / math.sqrt(12), rel=0.07)


@pytest.mark.parametrize("name", ["ss2d_square", "ss2d_wide"])
def test_agrees_with_the_authors(name):
    case = golden.case(name)
    block = SS2D(**case.settings["config"])
    block.load_state_dict(case.state_dict)
    output = block(case.image)
    assert golden.relative_error(output, case.outputs[0]) < golden.OUTPUT
    (output * case.cotangents[0]).sum().backward()
    assert set(case.gradients) == {name for name, _ in block.named_parameters()}
    for name, parameter in block.named_parameters():
        assert golden.relative_error(parameter.grad, case.gradients[name]) < golden.GRADIENT, name


def test_initial_values():
    torch.manual_seed(0)
    block = SS2D(64, d_state=16).requires_grad_(False)
    inner, rank = 128, 4
    assert block.dt_projs_weight.shape == (4, inner, rank)
    torch.testing.assert_close(block.A_logs.exp(), torch.arange(1.0, 17).expand(4 * inner, 16))
    assert torch.equal(block.Ds, torch.ones(4 * inner))
    for parameter, bound in ((block.x_proj_weight, inner**-0.5), (block.dt_projs_weight, rank**-0.5)):
        assert 0.97 * bound < parameter.abs().max() <= bound
        assert float(parameter.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    check_step_sizes(block.dt_projs_bias)


def test_rank_of_the_step_size():
    assert SS2D(40).dt_projs_weight.shape[-1] == 3  # ceil(40 / 16)
    assert SS2D(40, dt_rank=7).dt_projs_weight.shape[-1] == 7


def test_names_an_even_convolution():
    with raises(ValueError, "d_conv is 4"):
        SS2D(8, d_conv=4)


def test_it_runs_the_scan_it_is_given():
    torch.manual_seed(0)
    block, x = SS2D(8, d_state=2, gate=False), torch.randn(1, 3, 2, 16)
    given = SS2D(8, d_state=2, gate=False, scan=lambda *a, **k: 2 * selective_scan_2d(*a, **k))
    given.load_state_dict(block.state_dict())
    torch.testing.assert_close(given.scan(x), 2 * block.scan(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_norms_in_float32(dtype):
    """The squares of what the norm sees are far beyond float16's range here."""
    torch.manual_seed(0)
    block = SS2D(16, d_state=4)
    with torch.no_grad():
        block.Ds.mul_(3000)
    x = torch.randn(1, 6, 6, 16)
    expected = block(x)
    seen = []
    block.out_norm.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype):
        output = block(x)
    assert output.dtype == dtype
    assert seen == [torch.float32]
    assert golden.relative_error(output, expected) < (0.03 if dtype == torch.bfloat16 else 0.005)
