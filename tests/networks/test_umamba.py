"""U-Mamba: counts, forms, sizes, the control without Mamba, 2D and 3D; with its authors it agrees in `test_golden`."""

import math

import pytest
import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import nn

from swin_umamba_nnunet.blocks import Mamba, MambaLayer
from swin_umamba_nnunet.networks import UMambaBot, UMambaEnc
from tests.messages import raises
from tests.networks import test_training
from tests.networks.test_training import (  # noqa: F401
    assert_same,
    check_autocast,
    outputs_and_gradients,
    switch_checkpointing,
    test_compiles_without_a_graph_break,
)
from tests.plans import planned

RELEASES = ("2024-03", "2024-01")
ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


TINY = planned((33, 50), (8, 12, 16))
TINY_3D = planned((8, 16, 16), (8, 12, 16), ANISOTROPIC, [[1, 3, 3], [3, 3, 3], [3, 3, 3]])
FORMS = [(cls, release) for cls in (UMambaBot, UMambaEnc) for release in RELEASES]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0].__name__}-{form[1]}")
def network_class(request):
    """Each network in each release, as small as its plans are and not as `tiny_network` asks for."""
    cls, release = request.param

    def build(*arguments, depths, width, d_state, **settings):
        return cls(*arguments, **TINY | {"release": release} | settings)

    return build


def mamba_layers(network):
    return {s: layer for s, layer in enumerate(network.encoder.mamba_layers) if isinstance(layer, MambaLayer)}


# ------------------------------------------------------------------------------------------------------ where Mamba is


@pytest.mark.parametrize("stages", [2, 3, 6])
def test_where_mamba_layers_are(stages):
    widths = [8] * stages
    for release in RELEASES:
        for axes in (2, 3):
            settings = planned([2**stages] * axes, widths) | {"release": release}
            with torch.device("meta"):
                bot, enc = UMambaBot(1, 2, **settings), UMambaEnc(1, 2, **settings)
            assert list(mamba_layers(bot)) == [stages - 1]
            every_second = release == "2024-03" and axes == 2
            expected = [s for s in range(stages) if not every_second or (stages - 1 - s) % 2 == 0]
            assert list(mamba_layers(enc)) == expected


def test_channels_are_tokens_where_they_are_no_fewer_than_positions():
    """Maps of 16x24, 8x12 and 4x6 positions; 6 * 4 = 24."""
    for width, expected in ((23, (23, False)), (24, (24, True)), (25, (24, True))):
        layer = mamba_layers(UMambaEnc(1, 2, **planned((16, 24), (8, 8, width))))[2]
        assert (layer.mamba.in_proj.in_features, layer.channel_tokens) == expected
    for network in (
        UMambaBot(1, 2, **planned((16, 24), (8, 8, 64))),
        UMambaEnc(1, 2, release="2024-01", **planned((16, 24), (8, 8, 64))),
    ):
        assert not any(layer.channel_tokens for layer in mamba_layers(network).values())


def test_the_control_is_the_same_network_without_mamba(tiny_network):
    full, control = tiny_network(), tiny_network(mamba=False)
    assert not any(isinstance(part, Mamba) for part in control.modules())
    rest = {key: value.shape for key, value in full.state_dict().items() if ".mamba_layers." not in key}
    assert {key: value.shape for key, value in control.state_dict().items()} == rest
    control.load_state_dict({key: value for key, value in full.state_dict().items() if key in rest})
    full.encoder.mamba_layers = nn.ModuleList(nn.Identity() for _ in range(3))
    x = torch.randn(1, 1, 16, 24)
    assert torch.equal(control(x), full(x))


@pytest.mark.parametrize("settings", [TINY, TINY_3D], ids=["2D", "3D"])
def test_the_controls_of_bot_and_enc_are_one_network(settings):
    bot, enc = UMambaBot(1, 3, mamba=False, **settings), UMambaEnc(1, 3, mamba=False, **settings)
    enc.load_state_dict(bot.state_dict())
    x = torch.randn(1, 1, *settings["patch_size"])
    assert torch.equal(bot(x), enc(x))


# ------------------------------------------------------------------------------------------------------------ plans


def test_blocks_per_stage():
    """March 2024 counts for itself in the coarser half of the encoder and the finer half of the decoder."""
    settings = planned((64, 64), (4, 4, 4, 4, 4))
    settings |= {"n_conv_per_stage": [1, 3, 4, 6, 6], "n_conv_per_stage_decoder": [3, 2, 3, 2]}
    with torch.device("meta"):
        march, january = UMambaBot(1, 2, **settings), UMambaBot(1, 2, release="2024-01", **settings)
    assert [len(stage) for stage in march.encoder.stages] == [1, 3, 4, 1, 1]
    assert [len(stage) for stage in march.decoder.stages] == [3, 2, 3, 1]
    assert len(march.encoder.stem) == 1
    assert [len(stage.blocks) for stage in january.encoder.stages] == [1, 3, 4, 6, 6]
    assert [len(stage.blocks) for stage in january.decoder.stages] == [3, 2, 3, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"release": "2023"}, "no U-Mamba release '2023'; choose one of 2024-03, 2024-01"),
        ({"patch_size": (16,)}, r"patch_size is \(16,\); .*two or three axes"),
        ({"n_stages": 1}, "n_stages is 1; .*at least 2"),
        ({"features_per_stage": (8, 8)}, r"features_per_stage is \(8, 8\); expected 3 entries"),
        ({"n_conv_per_stage": 2}, "n_conv_per_stage is 2; expected 3 entries"),
        ({"n_conv_per_stage_decoder": (2, 2, 2)}, "n_conv_per_stage_decoder .*expected 2 entries"),
        ({"n_conv_per_stage": (2, 0, 2)}, r"a stage without blocks: n_conv_per_stage \(2, 0, 2\)"),
        ({"strides": ((1, 1), 2, 2)}, "strides .*expected 2 numbers per stage"),
        ({"patch_size": (8, 16, 24)}, "kernel_sizes .*expected 3 numbers per stage"),
        ({"kernel_sizes": ((3, 3), (4, 3), (3, 3))}, "only odd kernels"),
    ],
)
def test_settings_that_do_not_fit(tiny_network, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_network(**settings)


def test_kernels_are_the_plans():
    for release, first in (("2024-03", "0.conv1"), ("2024-01", "blocks.0.conv1.conv")):
        stages = UMambaBot(2, 3, release=release, **TINY_3D).encoder.stages
        assert [stage.get_submodule(first).kernel_size for stage in stages] == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]


# ------------------------------------------------------------------------------------------------------------- images


def test_enc_of_march_is_tied_to_its_patch():
    network = UMambaEnc(1, 3, **planned((13, 24), (8, 12, 30))).eval()  # 16x24 when padded: 24 positions at the bottom
    assert network.tied_to_patch
    x = torch.randn(1, 1, 5, 7)
    padded = torch.zeros(1, 1, 16, 24)
    padded[:, :, :5, :7] = x
    with torch.no_grad():
        assert torch.equal(network(x), network(padded)[:, :, :5, :7])
        assert network(torch.zeros(1, 1, 16, 24)).shape == (1, 3, 16, 24)
    with raises(ValueError, "(17, 24) pixels, more than the patch of (13, 24) to which", "UMambaBot"):
        network(torch.zeros(1, 1, 17, 24))


# --------------------------------------------------------------------------------- names, values, backends, dtypes


def test_initial_values(tiny_network):
    network = tiny_network(features_per_stage=(32, 64, 128), patch_size=(16, 24)).requires_grad_(False)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight[0].numel()
            expected = math.sqrt(2 / (1 + 0.01**2) / fan_in)
            assert float(module.weight.std()) == pytest.approx(expected, rel=0.2), name
            assert module.bias is None or module.bias.eq(0).all()
        elif isinstance(module, Mamba):
            assert module.D.eq(1).all()
            assert not module.conv1d.bias.eq(0).any()  # a one-dimensional convolution: torch's values stay
        elif isinstance(module, BasicBlockD):
            zero = isinstance(network, UMambaEnc) and "blocks" in name.split(".")  # release 2024-01 of Enc
            assert module.conv2.norm.weight.eq(0 if zero else 1).all()


def test_gradient_checkpointing_changes_nothing(tiny_network):
    network, x = tiny_network(deep_supervision=True), torch.randn(2, 1, 16, 24)
    plain = outputs_and_gradients(network, x)
    assert switch_checkpointing(network, True) == 2
    assert_same(outputs_and_gradients(network, x), plain)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_autocast(tiny_network, dtype, tolerance):
    check_autocast(tiny_network(deep_supervision=True), dtype, tolerance, factor=8)


@pytest.mark.skipif(torch.__version__ < "2.5", reason="PyTorch 2.4 cannot export autocast regions")
def test_exports(tiny_network):
    test_training.test_exports(tiny_network)
