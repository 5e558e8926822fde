import torch
from torch.nn.functional import conv2d, conv_transpose2d, instance_norm, leaky_relu

from swin_umamba_nnunet.blocks import ResidualBlock, ResidualUpBlock


def test_block_is_what_it_says():
    block = ResidualBlock(2, 3)
    x = torch.randn(2, 2, 5, 7)
    y = leaky_relu(instance_norm(conv2d(x, block.conv1.weight, padding=1)), 0.01)
    y = instance_norm(conv2d(y, block.conv2.weight, padding=1)) + instance_norm(conv2d(x, block.shortcut.weight))
    torch.testing.assert_close(block(x), leaky_relu(y, 0.01))
    assert set(block.state_dict()) == {"conv1.weight", "conv2.weight", "shortcut.weight"}


def test_equal_widths_have_an_identity_shortcut():
    block = ResidualBlock(3, 3)
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(block(x), leaky_relu(x, 0.01))
    assert set(block.state_dict()) == {"conv1.weight", "conv2.weight"}


def test_up_block_concatenates_up_before_skip():
    step = ResidualUpBlock(4, 2)
    x, skip = torch.randn(1, 4, 3, 5), torch.randn(1, 2, 6, 10)
    up = conv_transpose2d(x, step.up.weight, stride=2)
    torch.testing.assert_close(step(x, skip), step.block(torch.cat((up, skip), 1)))
    assert step.up.bias is None
