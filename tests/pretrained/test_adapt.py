import pytest
import torch
from torch.nn.functional import conv2d

from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution, channel_mixing
from tests.messages import raises

WEIGHT = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
def test_a_grey_image_gives_the_same_in_any_number_of_channels(channels):
    grey = torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(1))
    adapted = adapt_input_convolution(WEIGHT, channels)
    expected = conv2d(grey.expand(-1, 3, -1, -1), WEIGHT, stride=4)
    torch.testing.assert_close(conv2d(grey.expand(-1, channels, -1, -1), adapted, stride=4), expected)
    torch.testing.assert_close(adapted.sum(dim=1), WEIGHT.sum(dim=1))


def test_three_channels_are_unchanged():
    assert adapt_input_convolution(WEIGHT, 3) is WEIGHT
    assert torch.equal(channel_mixing(3), torch.eye(3, dtype=torch.float64))


def test_two_channels_stand_for_the_first_the_second_and_the_first_again():
    red, green, blue = WEIGHT.unbind(1)
    torch.testing.assert_close(adapt_input_convolution(WEIGHT, 2), torch.stack((red + blue, green), dim=1))


def test_more_channels_share_a_colour_as_its_mean():
    red, green, blue = WEIGHT.unbind(1)
    torch.testing.assert_close(
        adapt_input_convolution(WEIGHT, 5), torch.stack((red / 2, green / 2, blue, red / 2, green / 2), dim=1)
    )


def test_dtype_is_kept():
    assert adapt_input_convolution(WEIGHT.half(), 1).dtype is torch.float16


def test_no_channels_are_refused():
    with raises(ValueError, "at least one channel, got 0"):
        adapt_input_convolution(WEIGHT, 0)
