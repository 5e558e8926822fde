"""Swin-UMamba and dagger on other encoders: the second generation has to pass what the first passes."""

import pytest
import torch

from swin_umamba_nnunet.blocks import SS2D, VSSBlock, VSSBlockV2
from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2
from swin_umamba_nnunet.networks.vssm import drop_path_schedule
from swin_umamba_nnunet.pretrained.variants import shapes_in

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


@pytest.mark.parametrize("cls", [SwinUMambaD, SwinUMambaDV2])
def test_the_decoder_may_drop_less_than_the_encoder(cls):
    network = cls(1, 2, depths=(1, 1, 1, 1), width=8, drop_path_rate=0.6, decoder_drop_path_rate=0.2)
    rates = [[m.rate for m in part.modules() if hasattr(m, "rate")] for part in (network.encoder, network.decoder)]
    assert rates[0] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert rates[1] == pytest.approx([0.2, 0.16, 0.12, 0.08, 0.04, 0])


def test_widths_and_decoder_are_those_of_the_first_generation():
    """So that decoder and heads are the very same parts, and its weights fit."""
    with torch.device("meta"):
        first, second = SwinUMamba(1, 14), SwinUMambaV2(1, 14)
    assert first.encoder.widths == second.encoder.widths == (48, 96, 192, 384, 768, 768)
    assert shapes_in(first.decoder.state_dict()) == shapes_in(second.decoder.state_dict())


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


def test_drop_path_schedule():
    assert drop_path_schedule(0, 0.4, (1, 2, 2)) == [[0.0], [0.1, 0.2], [pytest.approx(0.3), 0.4]]
    assert drop_path_schedule(0.4, 0, (3,)) == [[0.4, 0.2, 0.0]]
    assert drop_path_schedule(0, 0.2, (1,)) == [[0.0]]
