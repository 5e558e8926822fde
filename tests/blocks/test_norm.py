import pytest
import torch
from torch.nn.functional import layer_norm

from swin_umamba_nnunet.blocks import LayerNorm, widen


def test_is_torch_layer_norm():
    x, norm = 100 + torch.randn(2, 3, 5, 8), LayerNorm(8)
    torch.nn.init.normal_(norm.weight)
    assert torch.equal(norm(x), layer_norm(x, (8,), norm.weight, norm.bias, 1e-5))
    assert norm.eps == 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_outside_autocast(dtype):
    x = torch.randn(4, 8, dtype=dtype)
    assert LayerNorm(8).to(dtype)(x).dtype == dtype
    assert widen(x) is x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype):
    x = (300 * torch.randn(4, 8)).to(dtype)  # 300 squared is beyond float16
    with torch.autocast("cpu", dtype):
        y = LayerNorm(8)(x)
        assert widen(x).dtype == torch.float32
        assert widen(x.double()).dtype == torch.float64
    torch.testing.assert_close(y, layer_norm(x.float(), (8,)), rtol=1e-6, atol=1e-6)


def test_runs_on_the_meta_device():
    """Where autocast does not exist; counters of parameters and multiplications go this way."""
    assert LayerNorm(8).to("meta")(torch.empty(2, 8, device="meta")).shape == (2, 8)
