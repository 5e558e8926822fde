"""U-Mamba: agreement with the authors, counts, forms, sizes, the control without Mamba, 2D and 3D."""

import math

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from torch import nn
from torch._dynamo.testing import EagerAndRecordGraphs

from swin_umamba_nnunet.blocks import Mamba, MambaLayer
from swin_umamba_nnunet.networks import UMambaBot, UMambaEnc, _umamba_parts, set_backend
from swin_umamba_nnunet.networks._umamba_parts import convolution_settings
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden
from tests.messages import raises
from tests.networks.test_training import assert_same, outputs_and_gradients, switch_checkpointing
from tests.plans import planned

RELEASES = ("2024-03", "2024-01")
PLANNED = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder")
ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


TINY = planned((16, 24), (8, 12, 16))
TINY_3D = planned((8, 16, 16), (8, 12, 16), ANISOTROPIC, [[1, 3, 3], [3, 3, 3], [3, 3, 3]])
FORMS = [(cls, release) for cls in (UMambaBot, UMambaEnc) for release in RELEASES]


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0].__name__}-{form[1]}")
def form(request):
    """Each network in each release: a function (input_channels, num_classes, deep_supervision, **settings)."""
    cls, release = request.param

    def build(input_channels=1, num_classes=3, deep_supervision=False, **settings):
        torch.manual_seed(0)
        return cls(input_channels, num_classes, deep_supervision, **TINY | {"release": release} | settings)

    return build


def mamba_layers(network) -> dict[int, MambaLayer]:
    return {s: layer for s, layer in enumerate(network.encoder.mamba_layers) if isinstance(layer, MambaLayer)}


# ------------------------------------------------------------------------------------------------- the authors' results


# Two networks amplify float32's rounding: the 7-stage one, whose last LayerNorm has two values, a relative change of
# its input by 2000, so that the stored float32 outputs are themselves 1.2e-4 to 4.9e-4 from those of float64.  Ours
# without rounding of its own (float64) has to be as near: what remains is that of the stored outputs.
@pytest.mark.parametrize(
    ("name", "tolerance", "theirs"),
    [
        ("umamba_bot", golden.OUTPUT, None),
        ("umamba_enc", golden.OUTPUT, None),
        ("umamba_bot_2024_01", golden.OUTPUT, None),
        ("umamba_enc_7_stages", 1e-3, 6e-4),
        ("umamba_enc_2024_01", 1e-3, 2.5e-4),
    ],
)
def test_agrees_with_the_authors(name, tolerance, theirs):
    case = golden.case(name)
    settings = case.settings
    for alias, first in settings["aliases"].items():
        case.state_dict[alias] = case.state_dict[first]
    kind = name.removesuffix("_7_stages")
    network = golden.network(
        lambda: {"umamba_bot": UMambaBot, "umamba_enc": UMambaEnc}[kind.removesuffix("_2024_01")](
            settings["in_channels"],
            settings["num_classes"],
            settings["deep_supervision"],
            patch_size=settings["input_shape"][2:],
            release="2024-01" if name.endswith("2024_01") else "2024-03",
            **{key: settings[key] for key in PLANNED},
        ),
        remap_authors_state_dict(kind, case.state_dict),
    )
    with torch.no_grad():
        compared = [(network(case.image), tolerance)]
        if theirs:
            network.double()
            set_backend(network, "reference")
            compared.append((network(case.image.double()), theirs))
    assert len(case.outputs) == settings["n_stages"] - 1
    for outputs, allowed in compared:
        for found, expected in zip(outputs, case.outputs, strict=True):
            assert golden.relative_error(found, expected) < allowed


def test_without_mamba_january_is_nnunets_residual_unet():
    settings = convolution_settings(2)
    theirs = ResidualUNet(
        1,
        3,
        TINY["features_per_stage"],
        settings.pop("conv_op"),
        TINY["kernel_sizes"],
        TINY["strides"],
        TINY["n_conv_per_stage"],
        3,
        TINY["n_conv_per_stage_decoder"],
        deep_supervision=True,
        **settings,
    )
    ours = UMambaEnc(1, 3, True, release="2024-01", mamba=False, **TINY)
    own = theirs.state_dict()
    ours.load_state_dict(
        {k.replace("transpconvs", "upsample_layers"): v for k, v in own.items() if not k.startswith("decoder.encoder.")}
    )
    x = torch.randn(2, 1, 16, 24)
    for found, expected in zip(ours(x), theirs(x)):
        torch.testing.assert_close(found, expected)


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


def test_the_control_is_the_same_network_without_mamba(form):
    full, control = form(), form(mamba=False)
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
def test_settings_that_do_not_fit(form, settings, message):
    with pytest.raises(ValueError, match=message):
        form(**settings)


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


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("cls", [UMambaBot, UMambaEnc])
def test_three_dimensions_and_anisotropic_strides(cls, release):
    network = cls(2, 3, True, release=release, **TINY_3D)
    assert network.stride == (2, 4, 4)
    assert network.head_strides == ((1, 1, 1), (1, 2, 2))
    assert [tuple(y.shape) for y in network(torch.randn(1, 2, 7, 14, 15))] == [(1, 3, 7, 14, 15), (1, 3, 7, 7, 8)]
    kernels = [stage[0].conv1.kernel_size for stage in network.encoder.stages] if release == "2024-03" else None
    assert kernels in (None, [(1, 3, 3), (3, 3, 3), (3, 3, 3)])


# --------------------------------------------------------------------------------- names, values, backends, dtypes


def test_initial_values(form):
    network = form(features_per_stage=(32, 64, 128)).requires_grad_(False)
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


def gradients(network, x) -> dict[str, torch.Tensor]:
    network.zero_grad()
    generator = torch.Generator().manual_seed(1)
    sum((y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in network(x)).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def well_conditioned(network):
    """Norms away from their initial 1 and 0, none of them zero."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, BasicBlockD):
                part.conv2.norm.weight.uniform_(0.5, 1.5)
    return network


@pytest.mark.parametrize("settings", [TINY, TINY_3D], ids=["2D", "3D"])
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("cls", [UMambaBot, UMambaEnc])
def test_gradients_are_those_of_float64(cls, release, settings, monkeypatch):
    """Every parameter's, against the same network in float64 on the plain loop.

    Without LeakyReLU's kinks: one of 400,000 values that rounding takes over to the other side is a relative error of
    1e-2 in these small maps.
    """
    monkeypatch.setattr(_umamba_parts, "NEGATIVE_SLOPE", 1.0)
    torch.manual_seed(0)
    network = well_conditioned(cls(1, 3, True, release=release, **settings))
    exact = cls(1, 3, True, release=release, backend="reference", **settings).double()
    exact.load_state_dict(network.state_dict())
    x = torch.randn(2, 1, *settings["patch_size"])
    found, expected = gradients(network, x), gradients(exact, x.double())
    scale = max(float(value.norm()) for value in expected.values())
    for name, value in expected.items():
        if float(value.norm()) > 1e-6 * scale:  # a convolution's bias before a norm has no gradient
            assert golden.relative_error(found[name], value) < golden.GRADIENT, name
    assert sum(float(value.norm()) > 1e-6 * scale for value in expected.values()) > len(expected) / 2


def test_gradient_checkpointing_changes_nothing(form):
    network, x = well_conditioned(form(deep_supervision=True)), torch.randn(2, 1, 16, 24)
    plain = outputs_and_gradients(network, x)
    assert switch_checkpointing(network, True) == 2
    assert_same(outputs_and_gradients(network, x), plain)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_autocast(form, dtype, tolerance):
    network, x = form(deep_supervision=True), torch.randn(2, 1, 16, 24)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", dtype):
            outputs = network(x)
    assert all(golden.relative_error(*pair) < tolerance for pair in zip(outputs, expected))


def test_compiles_without_a_graph_break(form):
    network = form(deep_supervision=True)
    torch.compiler.reset()
    recorder = EagerAndRecordGraphs()
    compiled = torch.compile(network, backend=recorder, fullgraph=True)
    for _ in range(2):
        x = torch.randn(2, 1, 13, 24)
        for found, expected in zip(compiled(x), network(x)):
            torch.testing.assert_close(found, expected)
    assert len(recorder.graphs) == 1


@pytest.mark.skipif(torch.__version__ < "2.5", reason="PyTorch 2.4 cannot export autocast regions")
def test_exports(form):
    network = form().eval()
    x = torch.randn(1, 1, 16, 24)
    program = torch.export.export(network, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x))
