import pytest
import torch
from torch.nn.functional import layer_norm

from swin_umamba_nnunet.blocks import LayerNorm, widen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype):
    x = (300 * torch.randn(4, 8)).to(dtype)  # 300 squared is beyond float16
    with torch.autocast("cpu", dtype):
        y = LayerNorm(8)(x)
        assert LayerNorm(8).eps == 1e-5
        assert widen(x).dtype == torch.float32
        assert widen(x.double()).dtype == torch.float64
    torch.testing.assert_close(y, layer_norm(x.float(), (8,)), rtol=1e-6, atol=1e-6)
