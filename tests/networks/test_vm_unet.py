"""VM-UNet: its channels and settings, and what every segmentation network here has to do.

The tests imported from `test_training` run on this file's `network_class`.
"""

import pytest
import torch

from swin_umamba_nnunet.networks import VMUNet
from tests.networks.test_training import (  # noqa: F401
    test_autocast,
    test_checkpointing_changes_nothing_but_memory,
    test_checkpointing_keeps_fewer_tensors,
    test_compiles_without_a_graph_break,
    test_cuda_agrees_with_cpu,
    test_exports,
    test_same_seed_same_gradients,
    test_whole_network_in_another_dtype,
)


@pytest.fixture
def network_class():
    """A decoder as deep as its encoder, where nothing else is asked for."""

    def build(*arguments, depths, **settings):
        return VMUNet(*arguments, depths=depths, **{"depths_decoder": depths, **settings})

    return build


@pytest.mark.parametrize("size", [(32, 64), (33, 50)])
def test_one_channel_is_the_image_repeated_to_three(tiny_network, size):
    grey, colour = tiny_network(1).eval(), tiny_network(3).eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(2, 1, *size)
    with torch.no_grad():
        assert torch.equal(grey(x), colour(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"depths": (1, 1, 1), "depths_decoder": (1, 2, 1, 1)},
            r"depths \(1, 1, 1\) has 3 stages and depths_decoder \(1, 2, 1, 1\) has 4",
        ),
        ({"width": 18}, "width is 18; .*multiple of 4"),
    ],
)
def test_bad_settings(tiny_network, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_network(**settings)
