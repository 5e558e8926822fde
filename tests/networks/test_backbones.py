"""Swin-UMamba and dagger on other encoders: the second generation has to pass what the first passes."""

import math

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.blocks import SS2D, VSSBlock, VSSBlockV2
from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2

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


def test_deeper_encoders_add_only_blocks_of_the_third_stage():
    with torch.device("meta"):
        tiny, small = SwinUMamba(1, 14).state_dict(), SwinUMamba(1, 14, depths=(2, 2, 27, 2)).state_dict()
    more = {key for key in small if key not in tiny}
    assert set(tiny) < set(small)
    assert all(key.startswith("encoder.vssm.layers.2.blocks.") for key in more)
    assert {int(key.split(".")[5]) for key in more} == set(range(9, 27))


@pytest.mark.parametrize("cls", [SwinUMambaD, SwinUMambaDV2])
def test_the_decoder_may_drop_less_than_the_encoder(cls):
    network = cls(1, 2, depths=(1, 1, 1, 1), width=8, drop_path_rate=0.6, decoder_drop_path_rate=0.2)
    rates = [[m.rate for m in part.modules() if hasattr(m, "rate")] for part in (network.encoder, network.decoder)]
    assert rates[0] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert rates[1] == pytest.approx([0.2, 0.16, 0.12, 0.08, 0.04, 0])


def test_what_is_frozen_is_the_imagenet_encoder_without_its_stem(network_class):
    with torch.device("meta"):
        network = network_class(1, 14)
    frozen = {id(p) for p in network.freezable_parameters()}
    names = [name for name, p in network.imagenet_encoder.named_parameters() if id(p) not in frozen]
    assert {name.split(".")[1] for name in names} == {"0", "2", "5", "7"}
    assert all(name.startswith("patch_embed.") for name in names)
    assert len(frozen) == 272 - 8


def test_widths_and_strides_are_those_of_the_first_generation():
    """So that decoder and heads are the very same parts, and its weights fit."""
    with torch.device("meta"):
        first, second = SwinUMamba(1, 14), SwinUMambaV2(1, 14)
    assert first.encoder.widths == second.encoder.widths == (48, 96, 192, 384, 768, 768)
    shapes = [{key: value.shape for key, value in network.decoder.state_dict().items()} for network in (first, second)]
    assert shapes[0] == shapes[1]
    skips = [network.encoder.skip_blocks.state_dict() for network in (first, second)]
    assert all(skips[0][key].shape == skips[1][key].shape for key in skips[0])
    assert first.stride == second.stride == 32


def test_the_skip_at_stride_two_is_vmambas_own_stem():
    network = SwinUMambaV2(1, 2, depths=(1, 1, 1, 1), width=16).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        skips = network.encoder(x)
        half = network.imagenet_encoder.patch_embed.first_half(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert torch.equal(skips[1], network.encoder.skip_blocks[1](half))
    assert [tuple(y.shape[1:]) for y in skips] == [
        (8, 64, 64),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
        (128, 4, 4),
        (128, 2, 2),
    ]


def test_all_blocks_of_the_second_dagger_are_of_the_second_generation(tiny_network, network_class):
    network = tiny_network()
    assert not any(isinstance(module, VSSBlock) for module in network.modules())
    blocks = sum(isinstance(module, VSSBlockV2) for module in network.decoder.modules())
    assert blocks == (6 if network_class is SwinUMambaDV2 else 0)
    assert not any(module.has_gate for module in network.modules() if isinstance(module, SS2D))


def test_initial_values_of_the_second_dagger():
    torch.manual_seed(0)
    network = SwinUMambaDV2(1, 14).requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):  # He at slope 0.01, biases 0 but for the convolution on the image
            expected = math.sqrt(2 / module.weight[0].numel())
            assert float(module.weight.std()) == pytest.approx(expected, rel=0.12), name
            if module.bias is not None:
                assert bool(module.bias.any()) == (name == "encoder.patch_embed.0"), name
    for name, module in network.decoder.named_modules():
        if isinstance(module, nn.Linear):  # torch's default
            assert float(module.weight.abs().max()) == pytest.approx(module.in_features**-0.5, rel=0.01), name
