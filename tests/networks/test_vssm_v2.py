"""The second-generation encoder: VMamba's class scores, names, shapes, initial values, gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm, linear, silu

from swin_umamba_nnunet.blocks import ConvDownsample, ConvStem, VSSBlockV2
from swin_umamba_nnunet.networks import VSSMEncoderV2
from tests import golden

CASES = ["vmamba_tiny_v2", "vmamba_small_v2"]


def encoder_of(settings) -> VSSMEncoderV2:
    return VSSMEncoderV2(
        settings["in_channels"],
        depths=settings["depths"],
        width=settings["dims"],
        d_state=settings["d_state"],
        expand=int(settings["ssm_ratio"]),
    ).eval()


@pytest.mark.parametrize("name", CASES)
def test_gives_the_authors_class_scores(name):
    case = golden.case(name)
    classifier = {key: value for key, value in case.state_dict.items() if key.startswith("classifier.")}
    encoder = encoder_of(case.settings)
    encoder.load_state_dict({key: value for key, value in case.state_dict.items() if key not in classifier})
    with torch.no_grad():
        last = encoder(case.image)[-1].permute(0, 2, 3, 1)
        norm = [classifier["classifier.norm.weight"], classifier["classifier.norm.bias"]]
        head = [classifier["classifier.head.weight"], classifier["classifier.head.bias"]]
        scores = linear(layer_norm(last, last.shape[-1:], *norm).mean(dim=(1, 2)), *head)
    assert golden.relative_error(scores, case.outputs[0]) < golden.OUTPUT
    assert float((scores - case.outputs[0]).abs().max()) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_keys_and_shapes_are_the_released_ones(name):
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in encoder_of(golden.manifest()[name]).state_dict().items()}
    theirs = golden.shapes(name)
    assert ours == {key: shape for key, shape in theirs.items() if not key.startswith("classifier.")}
    assert len(ours) == len(theirs) - 4


@pytest.mark.parametrize(
    ("settings", "millions"),  # FACTS.md, section 4, norm and classifier head included
    [
        ({}, 30.249),
        ({"depths": (2, 2, 15, 2), "expand": 2}, 50.148),
        ({"depths": (2, 2, 15, 2), "expand": 2, "width": 128}, 88.558),
    ],
)
def test_parameter_counts(settings, millions):
    with torch.device("meta"):
        encoder = VSSMEncoderV2(3, **settings)
    width = encoder.widths[-1]
    head = 2 * width + width * 1000 + 1000
    assert round((sum(p.numel() for p in encoder.parameters()) + head) / 1e6, 3) == millions


def test_maps_of_the_stages():
    encoder = VSSMEncoderV2(3, depths=(1, 2, 1), width=8).eval()
    assert (encoder.widths, encoder.strides) == ((8, 16, 32), (4, 8, 16))
    x = torch.randn(2, 3, 32, 48)
    maps = encoder(x)
    assert [tuple(y.shape) for y in maps] == [(2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)]
    half, *others = encoder.with_stem(x)
    assert half.shape == (2, 4, 16, 24)
    assert all(torch.equal(a, b) for a, b in zip(others, maps))
    assert encoder.layers[-1].downsample is None


def test_block_written_out():
    """Two branches; in the first no gate, no bias in the convolution and nothing between norm and projection."""
    torch.manual_seed(0)
    block = VSSBlockV2(8, expand=2).double()
    op = block.op
    op.backend = "reference"
    assert op.conv2d.bias is None
    x = torch.randn(1, 5, 6, 8, dtype=torch.double)
    inner = linear(layer_norm(x, (8,)), op.in_proj.weight).permute(0, 3, 1, 2)
    inner = silu(conv2d(inner, op.conv2d.weight, padding=1, groups=16)).permute(0, 2, 3, 1)
    middle = x + linear(layer_norm(op.scan(inner), (16,)), op.out_proj.weight)
    hidden = gelu(linear(layer_norm(middle, (8,)), block.mlp.fc1.weight, block.mlp.fc1.bias))
    expected = middle + linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
    torch.testing.assert_close(block(x), expected)


def test_gradients_of_a_block_with_one_state():
    """The fast CPU backend at N = 1 beside the plain loop in float64."""
    torch.manual_seed(0)
    block = VSSBlockV2(24, backend="numba")
    plain = copy.deepcopy(block).double()
    plain.op.backend = "reference"
    x, cotangent = torch.randn(2, 2, 9, 11, 24).unbind()
    for each, dtype in ((block, torch.float32), (plain, torch.double)):
        (each(x.to(dtype)) * cotangent).sum().backward()
    for (name, found), expected in zip(block.named_parameters(), plain.parameters()):
        assert golden.relative_error(found.grad, expected.grad) < 1e-4, name


def test_both_branches_drop_whole_images():
    torch.manual_seed(0)
    block = VSSBlockV2(8, drop_path=0.5).train()
    x = torch.randn(1, 3, 3, 8).expand(64, 3, 3, 8)
    results = {tuple(y.flatten()[:4].tolist()) for y in block(x).detach()}
    assert len(results) == 4  # neither, either or both branches


def test_stem_and_downsampling():
    stem, below = ConvStem(3, 8), ConvDownsample(8)
    x = torch.randn(2, 8, 12, 3)
    assert stem.first_half(x).shape == (2, 4, 6, 4)
    assert torch.equal(stem(x), stem.second_half(stem.first_half(x)))
    assert stem(x).shape == (2, 2, 3, 8)
    assert below(torch.randn(2, 4, 6, 8)).shape == (2, 2, 3, 16)
    assert set(stem.state_dict()) == {f"{i}.{leaf}" for i in (0, 2, 5, 7) for leaf in ("weight", "bias")}
    assert set(below.state_dict()) == {f"{i}.{leaf}" for i in (1, 3) for leaf in ("weight", "bias")}


def test_initial_values():
    torch.manual_seed(0)
    for name, module in VSSMEncoderV2(3).requires_grad_(False).named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.weight.eq(1).all(), name
            assert module.bias.eq(0).all(), name
        elif isinstance(module, nn.Linear):
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.05), name
            assert module.bias is None or module.bias.eq(0).all(), name
        elif isinstance(module, nn.Conv2d):  # torch's default
            bound = module.weight[0].numel() ** -0.5
            assert 0.9 * bound < float(module.weight.abs().max()) <= bound, name
        elif hasattr(module, "A_logs"):
            assert module.A_logs.eq(0).all(), name  # log 1, of the only state
            assert module.Ds.eq(1).all(), name


def test_drop_path_rises():
    rates = [module.rate for module in VSSMEncoderV2(3).modules() if hasattr(module, "rate")]
    assert rates == pytest.approx([0.2 * i / 13 for i in range(14)])
