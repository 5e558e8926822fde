import pytest
import torch

from swin_umamba_nnunet.blocks import DropPath, VSSBlock


def test_block_is_residual():
    torch.manual_seed(0)
    block = VSSBlock(8, d_state=2)
    x = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(block(x), x + block.self_attention(block.ln_1(x)))


def test_residual_stream_stays_float32_under_autocast():
    block = VSSBlock(8, d_state=2)
    with torch.autocast("cpu", torch.float16):
        assert block(torch.randn(1, 2, 2, 8).half()).dtype == torch.float32


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    y = DropPath(0.2)(x)
    assert set(y.flatten(1).unique(dim=1).unique().tolist()) == {0.0, 1.25}
    assert torch.equal(y.amin((1, 2)), y.amax((1, 2)))
    assert float((y == 0).float().mean()) == pytest.approx(0.2, abs=0.02)


def test_drop_path_does_nothing_in_eval_and_at_rate_zero():
    x = torch.ones(8, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0)(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_drop_path_rejects_rates(rate):
    with pytest.raises(ValueError, match="DropPath rate"):
        DropPath(rate)
