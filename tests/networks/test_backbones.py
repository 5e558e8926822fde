"""Swin-UMamba and dagger on other encoders: the second generation has to pass what the first passes."""

import pytest
import torch

from swin_umamba_nnunet.blocks import SS2D, VSSBlock, VSSBlockV2
from swin_umamba_nnunet.networks import SwinUMambaDV2, SwinUMambaV2

# what training needs of a network, run here on the second generation (the fixture below takes the place of conftest's)
from tests.networks.test_training import (  # noqa: F401
    test_autocast,
    test_checkpointing_changes_nothing_but_memory,
    test_compiles_ahead_of_time_with_backward,
    test_compiles_without_a_graph_break,
    test_cuda_agrees_with_cpu,
    test_exports,
    test_same_seed_same_gradients,
    test_whole_network_in_another_dtype,
)


@pytest.fixture(params=[SwinUMambaV2, SwinUMambaDV2], ids=lambda cls: cls.__name__)
def network_class(request):
    return request.param


def test_the_skip_at_stride_two_is_vmambas_own_stem():
    network = SwinUMambaV2(1, 2, depths=(1, 1, 1, 1), width=16).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        skips = network.encoder(x)
        half = network.imagenet_encoder.patch_embed.first_half(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert torch.equal(skips[1], network.encoder.skip_blocks[1](half))


def test_all_blocks_of_the_second_dagger_are_of_the_second_generation(tiny_network, network_class):
    network = tiny_network()
    assert not any(isinstance(module, VSSBlock) for module in network.modules())
    blocks = sum(isinstance(module, VSSBlockV2) for module in network.decoder.modules())
    assert blocks == (6 if network_class is SwinUMambaDV2 else 0)
    assert not any(module.has_gate for module in network.modules() if isinstance(module, SS2D))
