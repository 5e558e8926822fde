import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import VSSMEncoder
from swin_umamba_nnunet.networks.vssm import drop_path_schedule, init_linear


def test_maps_of_the_stages():
    encoder = VSSMEncoder(3, depths=(1, 2, 1), width=8, d_state=2).eval()
    assert (encoder.widths, encoder.strides) == ((8, 16, 32), (4, 8, 16))
    x = torch.randn(2, 3, 32, 48)
    maps = encoder(x)
    assert [tuple(y.shape) for y in maps] == [(2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)]
    pairs = encoder.stage_maps(x.permute(0, 2, 3, 1))
    assert torch.equal(pairs[0][0], encoder.patch_embed(x.permute(0, 2, 3, 1)))
    assert torch.equal(pairs[1][0], encoder.layers[0].downsample(pairs[0][1]))
    for (before, after), stage, y in zip(pairs, encoder.layers, maps):
        assert torch.equal(after.permute(0, 3, 1, 2), y)
        for block in stage.blocks:
            before = block(before)
        assert torch.equal(before, after)
    assert encoder.layers[-1].downsample is None


def test_drop_path_schedule():
    assert drop_path_schedule(0, 0.4, (1, 2, 2)) == [[0.0], [0.1, 0.2], [pytest.approx(0.3), 0.4]]
    assert drop_path_schedule(0.4, 0, (3,)) == [[0.4, 0.2, 0.0]]
    assert drop_path_schedule(0, 0.2, (1,)) == [[0.0]]


def test_init_linear():
    linear = nn.Linear(200, 300)
    init_linear(linear)
    assert abs(float(linear.weight.detach().std()) - 0.02) < 5e-4
    assert linear.bias.eq(0).all()
