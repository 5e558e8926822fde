import pytest
import torch

from swin_umamba_nnunet.blocks import DropPath, VSSBlock, VSSBlockV2
from tests.messages import raises


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
    with raises(ValueError, "DropPath rate"):
        DropPath(rate)


def test_both_branches_drop_whole_images():
    torch.manual_seed(0)
    block = VSSBlockV2(8, drop_path=0.5).train()
    x = torch.randn(1, 3, 3, 8).expand(64, 3, 3, 8)
    results = {tuple(y.flatten()[:4].tolist()) for y in block(x).detach()}
    assert len(results) == 4  # neither, either or both branches
