"""Images that are refused, initial values, and what is held, of the segmentation networks as published."""

import math

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2, VMUNet

NETWORKS = [SwinUMamba, SwinUMambaD, SwinUMambaV2, SwinUMambaDV2]


@pytest.fixture(scope="module", params=[*NETWORKS, VMUNet], ids=lambda cls: cls.__name__)
def full_size(request):
    """Each network as published, at 1 channel and 14 classes."""
    torch.manual_seed(0)
    return request.param(1, 14).requires_grad_(False)


def test_what_is_held_is_the_imagenet_encoder_without_its_stem(full_size):
    frozen = {id(p) for p in full_size.freezable_parameters()}
    names = {name for name, p in full_size.imagenet_encoder.named_parameters() if id(p) in frozen}
    assert names == {n for n, _ in full_size.imagenet_encoder.named_parameters() if n.startswith("layers.")}
    assert len(frozen) == len(names)


def test_initial_values_of_linears_and_norms(full_size):
    like_vmamba = set((full_size if isinstance(full_size, VMUNet) else full_size.imagenet_encoder).modules())
    for name, module in full_size.named_modules():
        if isinstance(module, nn.LayerNorm | nn.InstanceNorm2d) and module.weight is not None:
            assert module.weight.eq(1).all(), name
            assert module.bias.eq(0).all(), name
        elif isinstance(module, nn.Linear) and module in like_vmamba:
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.05), name
            assert module.bias is None or module.bias.eq(0).all()
        elif isinstance(module, nn.Linear):  # torch's default: uniform within fan_in ** -0.5
            assert float(module.weight.abs().max()) == pytest.approx(module.in_features**-0.5, rel=0.01), name
            assert float(module.weight.std()) == pytest.approx((3 * module.in_features) ** -0.5, rel=0.03), name


def test_initial_values_of_convolutions(full_size):
    for name, module in full_size.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        fan_in = module.weight[0].numel()
        if isinstance(full_size, SwinUMambaD | SwinUMambaDV2):  # He at slope 0.01, biases 0 but for one
            assert float(module.weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.12), name
            on_the_image = name in ("encoder.patch_embed.proj", "encoder.patch_embed.0")
            assert module.bias is None or bool(module.bias.any()) == on_the_image, name
        else:  # torch's default, biases too
            assert module.weight.abs().max() <= fan_in**-0.5
            assert float(module.weight.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.1), name
            assert module.bias is None or module.bias.any()


@pytest.mark.parametrize("cls", [*NETWORKS, VMUNet])
def test_gradients_at_the_start_survive_a_black_image(cls):
    """Zeros meet row upon row of LayerNorms: without a bias in the patch embedding this is infinite for the daggers."""
    torch.manual_seed(0)
    network = cls(1, 3)
    x = torch.zeros(1, 1, 32, 64)
    x[..., :32] = torch.randn(32, 32)
    (network(x).square().mean()).backward()
    norms = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None])
    assert float(norms.norm()) < 1e3
