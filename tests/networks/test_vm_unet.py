"""VM-UNet: the authors' outputs and gradients, and what every segmentation network here has to do.

The tests imported from `test_training` run on this file's `tiny_network`.
"""

import pytest
import torch
from torch import nn

from swin_umamba_nnunet.blocks import DropPath, VSSBlock
from swin_umamba_nnunet.networks import VMUNet
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden
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

SMALL = {"depths": (1, 1, 2, 1), "depths_decoder": (1, 2, 1, 1), "width": 16, "d_state": 4}


@pytest.fixture
def tiny_network():
    """A function (input_channels, num_classes, deep_supervision, **settings) -> a small VM-UNet, seeded."""

    def build(input_channels=1, num_classes=3, deep_supervision=False, **settings):
        torch.manual_seed(0)
        settings = {"depths_decoder": settings.get("depths", SMALL["depths_decoder"]), **settings}
        return VMUNet(input_channels, num_classes, deep_supervision, **SMALL | settings)

    return build


@pytest.fixture(scope="module")
def full_size():
    torch.manual_seed(0)
    return VMUNet(1, 2).requires_grad_(False)


# -------------------------------------------------------------------------------------------------- the authors'


@pytest.mark.parametrize("name", ["vm_unet", "vm_unet_deep"])
def test_outputs_and_gradients(name):
    case = golden.case(name)
    settings = {key: case.settings[key] for key in ("depths", "depths_decoder")}
    remapped = remap_authors_state_dict("vm_unet", case.state_dict)
    network = golden.network(
        lambda: VMUNet(case.settings["in_channels"], case.settings["num_classes"], **settings), remapped
    )
    with torch.set_grad_enabled(bool(case.gradients)):
        output = network(case.image)
    assert golden.relative_error(output, case.outputs[0]) < golden.OUTPUT
    if not case.gradients:
        return
    (output * case.cotangents[0]).sum().backward()
    parameters = dict(network.named_parameters())
    our_name = dict(zip(case.state_dict, remapped))
    for key, expected in case.gradients.items():
        assert golden.relative_error(parameters[our_name[key]].grad, expected) < golden.GRADIENT, key


def test_gradients_are_stored_for_the_published_depths():
    assert sum(key.startswith("grad:") for key in golden.stored("vm_unet")) == 5


def test_drop_path_rises_in_the_encoder_and_falls_in_the_decoder(full_size):
    for part, expected in (
        (full_size.encoder.layers, [0.2 * i / 7 for i in range(8)]),
        (full_size.decoder.stages, [0.2 * i / 6 for i in reversed(range(7))]),
    ):
        rates = [module.rate for module in part.modules() if isinstance(module, DropPath)]
        assert rates == pytest.approx(expected)


def test_initial_values(full_size):
    """Linear: truncated normal of deviation 0.02, everywhere; convolutions: PyTorch's own."""
    for name, module in full_size.named_modules():
        if isinstance(module, nn.Linear):
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.05), name
            assert module.bias is None
        elif isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < float(module.weight.abs().max()) <= bound, name
            assert module.bias.any(), name


# -------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("size", [(32, 64), (33, 50)])
def test_one_channel_is_the_image_repeated_to_three(tiny_network, size):
    grey, colour = tiny_network(1).eval(), tiny_network(3).eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(2, 1, *size)
    with torch.no_grad():
        assert torch.equal(grey(x), colour(x.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("channels", "embedded"), [(1, 3), (2, 2), (3, 3), (4, 4)])
def test_channels_of_the_patch_embedding(tiny_network, channels, embedded):
    assert tiny_network(channels).encoder.patch_embed.proj.in_channels == embedded


# -------------------------------------------------------------------------------------------------- contract


def test_the_imagenet_encoder_is_vmambas(full_size):
    ours = {key: tuple(value.shape) for key, value in full_size.imagenet_encoder.state_dict().items()}
    theirs = golden.shapes("vmamba_small_v0")
    assert ours == {key: theirs[key] for key in ours}
    assert len(ours) == 4 + 8 * 13 + 3 * 3
    frozen = {id(p) for p in full_size.freezable_parameters()}
    assert {name for name, p in full_size.named_parameters() if id(p) in frozen} == {
        f"encoder.{key}" for key in ours if not key.startswith("patch_embed.")
    }


def test_every_decoder_block_has_a_counterpart_of_its_shape(full_size):
    copies = full_size.imagenet_copies()
    own, theirs = full_size.state_dict(), golden.shapes("vmamba_small_v0")
    assert set(copies) == {key for key in own if key.startswith("decoder.") and ".blocks." in key}
    assert all(tuple(own[key].shape) == theirs[source] for key, source in copies.items())
    assert copies["decoder.stages.1.blocks.1.ln_1.bias"] == "layers.2.blocks.1.ln_1.bias"


def test_other_stages_and_depths(tiny_network):
    network = tiny_network(depths=(1, 2, 1), depths_decoder=(2, 1, 3)).eval()
    assert network.stride == 16
    blocks = [sum(isinstance(module, VSSBlock) for module in stage.modules()) for stage in network.decoder.stages]
    assert blocks == [2, 1, 3]
    with torch.no_grad():
        assert network(torch.randn(1, 1, 17, 30)).shape == (1, 3, 17, 30)


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


def test_backend_is_passed_down(tiny_network):
    network = tiny_network(backend="no_such_backend")
    backends = [module.backend for module in network.modules() if hasattr(module, "backend")]
    assert backends == 10 * ["no_such_backend"]


def test_checkpointing_reaches_every_stage(tiny_network):
    flags = [
        m.gradient_checkpointing
        for m in tiny_network(gradient_checkpointing=True).modules()
        if hasattr(m, "gradient_checkpointing")
    ]
    assert flags == [True] * 8
