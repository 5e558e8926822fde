import torch
from torch import nn

from swin_umamba_nnunet.blocks import PatchEmbed, PatchExpand, PatchMerging, space_from_channels


def test_space_from_channels_is_p_h_p_w_c():
    batch, height, width, scale, channels = 2, 3, 2, 4, 5
    x = torch.randn(batch, height, width, scale * scale * channels)
    y = space_from_channels(x, scale)
    assert y.shape == (batch, scale * height, scale * width, channels)
    for row, column in ((0, 0), (5, 3), (11, 7)):
        cell = x[:, row // scale, column // scale].view(batch, scale, scale, channels)
        assert torch.equal(y[:, row, column], cell[:, row % scale, column % scale])


def test_merging_order_of_the_cells():
    merging = PatchMerging(2)
    merging.norm = nn.Identity()
    merging.reduction = nn.Identity()
    x = torch.randn(1, 4, 6, 2)
    y = merging(x)
    assert y.shape == (1, 2, 3, 8)
    expected = torch.cat([x[:, 2, 4], x[:, 3, 4], x[:, 2, 5], x[:, 3, 5]], dim=-1)
    assert torch.equal(y[:, 1, 2], expected)


def test_shapes_and_parameters():
    x = torch.randn(2, 8, 12, 6)
    assert PatchEmbed(6, 10, 4)(x).shape == (2, 2, 3, 10)
    assert PatchMerging(6)(x).shape == (2, 4, 6, 12)
    assert PatchExpand(6, 3)(x).shape == (2, 16, 24, 3)
    last = PatchExpand(6, 5, 4)
    assert last(x).shape == (2, 32, 48, 5)
    assert {key: tuple(value.shape) for key, value in last.state_dict().items()} == {
        "expand.weight": (80, 6),
        "norm.weight": (5,),
        "norm.bias": (5,),
    }
