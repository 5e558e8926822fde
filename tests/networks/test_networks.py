"""Sizes, heads, names, counts and initial values of the segmentation networks."""

import math

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.networks import (
    SwinUMamba,
    SwinUMambaD,
    SwinUMambaDV2,
    SwinUMambaV2,
    VMUNet,
    VSSMEncoder,
)
from swin_umamba_nnunet.networks._base import check_image
from tests import golden

VMAMBA_LEAVES = {"x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds"}


@pytest.fixture(scope="module", params=[SwinUMamba, SwinUMambaD], ids=lambda cls: cls.__name__)
def full_size(request):
    """Each network as published, at 1 channel and 14 classes."""
    torch.manual_seed(0)
    return request.param(1, 14).requires_grad_(False)


# FACTS.md, sections 2 and 5; at 1 channel and 14 classes the catalogue's test of the trainers counts
@pytest.mark.parametrize(
    ("cls", "channels", "classes", "settings", "millions"),
    [
        (SwinUMamba, 3, 8, {}, "59.891"),
        (SwinUMamba, 3, 3, {}, "59.887"),
        (SwinUMambaD, 3, 8, {}, "27.496"),
        (SwinUMambaD, 3, 3, {}, "27.492"),
        (VMUNet, 1, 2, {}, "27.428"),
        (VMUNet, 3, 2, {}, "27.428"),
        (VMUNet, 3, 2, {"depths": (2, 2, 9, 2), "depths_decoder": (2, 9, 2, 2)}, "44.27"),  # of the authors' class
    ],
)
def test_parameter_counts(cls, channels, classes, settings, millions):
    with torch.device("meta"):
        network = cls(channels, classes, **settings)
    digits = len(millions.split(".")[1])
    assert f"{sum(p.numel() for p in network.parameters()) / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize("cls", [SwinUMamba, SwinUMambaD, SwinUMambaV2, SwinUMambaDV2])
def test_where_heads_are(cls):
    with torch.device("meta"):
        assert cls(1, 14).head_strides == ((1, 4, 8, 16) if "MambaD" in cls.__name__ else (1, 2, 4, 8))


def test_encoder_has_the_count_of_vmamba_tiny():
    """22.893 M with norm and classifier head (FACTS.md, section 4)."""
    with torch.device("meta"):
        encoder = VSSMEncoder(3)
    head = 2 * 768 + 768 * 1000 + 1000
    assert round((sum(p.numel() for p in encoder.parameters()) + head) / 1e6, 3) == 22.893


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 0, 32), r"empty axis, shape \(1, 1, 0, 32\)"),
        ((0, 1, 32, 32), r"empty axis, shape \(0, 1, 32, 32\)"),
        ((1, 3, 32, 32), r"3 channels, .*expected \(B, 1, H, W\)"),
        ((1, 32, 32), r"3 axes, .*expected \(B, 1, H, W\)"),
        ((1, 1, 8, 32, 32), r"5 axes, .*2D network"),
    ],
)
def test_bad_images(tiny_network, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_network()(torch.zeros(shape))


def test_a_flat_image_for_a_network_of_volumes():
    with pytest.raises(ValueError, match=r"4 axes, .*expected \(B, 1, D, H, W\).*3D network"):
        check_image(torch.zeros(1, 1, 32, 32), 1, 3)


def test_other_depths(network_class):
    """Three stages: everything follows, scales included."""
    network = network_class(1, 2, True, depths=(1, 1, 1), width=8, d_state=2).eval()
    assert network.stride == 16
    with torch.no_grad():
        outputs = network(torch.randn(1, 1, 17, 30))
    sizes = [(math.ceil(17 * scale), math.ceil(30 * scale)) for scale in network.deep_supervision_scales]
    assert [tuple(y.shape[2:]) for y in outputs] == sizes


def test_imagenet_keys_are_vmambas(full_size):
    ours = full_size.imagenet_encoder.state_dict()
    theirs = {
        key: shape for key, shape in golden.shapes("vmamba_tiny_v0").items() if not key.startswith(("norm", "head"))
    }
    assert ours.keys() == theirs.keys()
    differing = {key for key, shape in theirs.items() if tuple(ours[key].shape) != shape}
    assert differing == {"patch_embed.proj.weight"}


def test_freezable_parameters(full_size):
    frozen = {id(p) for p in full_size.freezable_parameters()}
    names = [name for name, p in full_size.named_parameters() if id(p) in frozen]
    prefix = "encoder.vssm.layers." if isinstance(full_size, SwinUMamba) else "encoder.layers."
    assert names == [name for name, _ in full_size.named_parameters() if name.startswith(prefix)]
    assert len(names) == 204


def test_drop_path_rises_and_falls(full_size):
    def rates(part):
        return [module.rate for module in part.modules() if hasattr(module, "rate")]

    rising = [0.2 * i / 14 for i in range(15)]
    assert rates(full_size.imagenet_encoder) == pytest.approx(rising)
    falling = [0.2 * i / 5 for i in reversed(range(6))] if isinstance(full_size, SwinUMambaD) else []
    assert rates(full_size.decoder) == pytest.approx(falling)


def test_initial_values_of_linears_and_norms(full_size):
    encoder = set(full_size.imagenet_encoder.modules())
    for name, module in full_size.named_modules():
        if isinstance(module, nn.LayerNorm | nn.InstanceNorm2d) and module.weight is not None:
            assert module.weight.eq(1).all(), name
            assert module.bias.eq(0).all(), name
        elif isinstance(module, nn.Linear) and module in encoder:
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.03), name
            assert module.bias is None
        elif isinstance(module, nn.Linear):  # torch's default: uniform within fan_in ** -0.5
            assert float(module.weight.abs().max()) == pytest.approx(module.in_features**-0.5, rel=0.01), name
            assert float(module.weight.std()) == pytest.approx((3 * module.in_features) ** -0.5, rel=0.03), name


def test_initial_values_of_convolutions(full_size):
    for name, module in full_size.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        fan_in = module.weight[0].numel()
        if isinstance(full_size, SwinUMambaD):  # He at slope 0.01, biases 0 but for the patch embedding
            assert float(module.weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.1), name
            assert bool(module.bias.any()) == (name == "encoder.patch_embed.proj"), name
        else:  # torch's default, biases too
            assert module.weight.abs().max() <= fan_in**-0.5
            assert float(module.weight.std()) == pytest.approx((3 * fan_in) ** -0.5, rel=0.1), name
            assert module.bias is None or module.bias.any()


@pytest.mark.parametrize("cls", [SwinUMamba, SwinUMambaD, SwinUMambaV2, SwinUMambaDV2, VMUNet])
def test_gradients_at_the_start_survive_a_black_image(cls):
    """Zeros meet row upon row of LayerNorms: without a bias in the patch embedding this is infinite for the daggers."""
    torch.manual_seed(0)
    network = cls(1, 3)
    x = torch.zeros(1, 1, 32, 64)
    x[..., :32] = torch.randn(32, 32)
    (network(x).square().mean()).backward()
    norms = torch.stack([p.grad.norm() for p in network.parameters() if p.grad is not None])
    assert float(norms.norm()) < 1e3


def test_leaf_names_of_the_scan_are_vmambas(tiny_network):
    leaves = {key.rsplit(".", 1)[1] for key in tiny_network().state_dict()}
    assert leaves == VMAMBA_LEAVES | {"weight", "bias"}
