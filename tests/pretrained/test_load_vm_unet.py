"""ImageNet weights into VM-UNet: blocks cut off, blocks used twice, two checkpoints to choose from."""

import logging

import pytest
import torch

from swin_umamba_nnunet.networks import VMUNet
from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    WeightsNotFoundError,
    cache_folder,
    ensure_weights,
    get_record,
    load_imagenet_weights,
    locate,
    registry,
    remap_authors_state_dict,
)
from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
from swin_umamba_nnunet.pretrained.load import LoadReport
from swin_umamba_nnunet.pretrained.variants import inventory
from tests import golden
from tests.messages import naming

CLASSIFIER = ("norm.weight", "norm.bias", "head.weight", "head.bias")
CONVOLUTION = "patch_embed.proj.weight"
SMALL, TINY, BASE = (get_record(f"vmamba_{size}_v0") for size in ("small", "tiny", "base"))
PER_BLOCK = 13  # tensors


@pytest.fixture(scope="module")
def pristine():
    """A VM-UNet of the published settings and its initial values, built once."""
    torch.manual_seed(0)
    network = VMUNet(3, 2)
    return network, {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture
def network(pristine):
    """It again, as it was."""
    pristine[0].load_state_dict(pristine[1])
    return pristine[0]


def as_the_authors_load(network, file):
    """The state dict after their two passes: keys of the encoder as they are, then `layers.X` as `layers_up.(3-X)`.

    A key counts if their network has it.  Written with their names on purpose, to be held against our plan.
    """
    theirs = {key: ours for ours, key in zip(*_names(network))}
    loaded = dict(network)
    for key, value in file.items():
        renamed = key.replace(f"layers.{key[7]}", f"layers_up.{3 - int(key[7])}") if key.startswith("layers.") else key
        for name in {key, renamed} & theirs.keys():
            loaded[theirs[name]] = value
    return loaded


def _names(network):
    shapes = golden.shapes("vm_unet")
    ours = remap_authors_state_dict("vm_unet", dict.fromkeys(shapes))
    assert ours.keys() == network.keys()
    return list(ours), list(shapes)


@pytest.mark.parametrize("record", [SMALL, TINY], ids=lambda record: record.name)
def test_what_the_authors_load_and_nothing_else(network, pristine, save, state_dict, record):
    file = state_dict(record.name)
    report = load_imagenet_weights(network, save({"model": file}))
    expected = as_the_authors_load(pristine[1], file)
    assert {key for key, value in network.state_dict().items() if not torch.equal(value, expected[key])} == set()
    encoder = [key for key in report.loaded if not key.startswith("decoder.")]
    assert (len(encoder), len(report.loaded), report.adapted) == (117, 208, ())
    assert (report.variant, report.missing, report.unexpected) == (record.name, (), ())


def test_the_report_names_what_was_cut_off(network, save, state_dict, caplog):
    caplog.set_level(logging.INFO)
    report = load_imagenet_weights(network, save({"model": state_dict(SMALL.name)}))
    cut = {key for key in report.left_out_by_design if key not in CLASSIFIER}
    assert {key.split(".")[1] for key in cut} == {"2"}
    assert {int(key.split(".")[3]) for key in cut} == set(range(2, 27))
    assert len(cut) == 25 * PER_BLOCK
    assert len(report.kept) == 14
    assert not any(".blocks." in key for key in report.kept)
    assert "\n" not in report.summary()
    assert report.summary().endswith(
        "117 of 117 encoder tensors and 91 of 105 decoder tensors loaded; left out by design: layers.2.blocks.2 to 26, "
        "norm.weight, norm.bias, head.weight, head.bias"
    )
    assert report.summary() in caplog.text


def test_a_range_of_one_block_and_two_stages():
    left_out = ("layers.0.blocks.3.a", "layers.0.blocks.3.b", "layers.2.blocks.5.a", "layers.2.blocks.6.a", "norm.bias")
    report = LoadReport("file", "ab" * 32, "x", ("a",), (), left_out, (), ())
    assert report.summary().endswith("by design: layers.0.blocks.3, layers.2.blocks.5 to 6, norm.bias")


@pytest.mark.parametrize("channels", [1, 3])
def test_one_and_three_channels_need_no_change(channels, mini_vm_unet):
    build, weights, path = mini_vm_unet
    network = build(channels)
    assert load_imagenet_weights(network, path).adapted == ()
    assert torch.equal(network.encoder.state_dict()[CONVOLUTION], weights[CONVOLUTION])


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_adapt_the_convolution(channels, mini_vm_unet):
    build, weights, path = mini_vm_unet
    network = build(channels)
    report = load_imagenet_weights(network, path)
    assert report.adapted == (CONVOLUTION,)
    expected = adapt_input_convolution(weights[CONVOLUTION], channels)
    assert torch.equal(network.encoder.state_dict()[CONVOLUTION], expected)


@pytest.fixture
def mini_vm_unet(mini, monkeypatch, save):
    """A function channels -> a small VM-UNet, the weights of its VMamba, and the path of a file of them."""
    monkeypatch.setitem(registry.WEIGHTS_OF_NETWORK, "vm_unet", mini.name)
    monkeypatch.setitem(registry.ALTERNATIVES_OF_NETWORK, "vm_unet", ())
    generator = torch.Generator().manual_seed(0)
    weights = {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in inventory(mini).items()}

    def build(channels=3, depths=mini.depths, depths_decoder=(1, 1), **settings):
        settings = {"width": mini.width, **settings}
        return VMUNet(channels, 2, depths=depths, depths_decoder=depths_decoder, **settings).eval()

    return build, weights, save({"model": weights}, "mini_copy.pth")


def test_a_decoder_deeper_than_the_encoder_takes_blocks_the_encoder_does_not(save, state_dict):
    """So do the defaults of the authors' class; what the file does not have keeps its initial values."""
    network = VMUNet(3, 2, depths=(1, 1, 1, 1), depths_decoder=(3, 4, 1, 1))
    report = load_imagenet_weights(network, save({"model": state_dict(TINY.name)}))
    file = state_dict(TINY.name)
    loaded = network.state_dict()
    assert torch.equal(loaded["decoder.stages.1.blocks.3.ln_1.bias"], file["layers.2.blocks.3.ln_1.bias"])
    assert "layers.2.blocks.3.ln_1.bias" not in report.left_out_by_design
    assert "layers.2.blocks.4.ln_1.bias" in report.left_out_by_design
    assert "decoder.stages.0.blocks.2.ln_1.bias" in report.kept
    assert loaded["decoder.stages.0.blocks.2.ln_1.bias"].eq(0).all()


def test_an_encoder_of_another_width_or_deeper_than_the_file_is_told(mini_vm_unet):
    build, _, path = mini_vm_unet
    for settings in ({"width": 20}, {"depths": (1, 2)}, {"depths": (1, 1, 1), "depths_decoder": (1, 1, 1)}):
        with pytest.raises(TypeError, match=naming("VMUNet", "nobody", "depths 1,")):
            load_imagenet_weights(build(**settings), path)


def test_a_file_that_lacks_a_tensor_changes_nothing(network, pristine, save, state_dict):
    file = state_dict(SMALL.name)
    del file["layers.2.blocks.20.ln_1.bias"]  # even of a block that is cut off
    with pytest.raises(CheckpointError, match=r"1 missing: layers\.2\.blocks\.20\.ln_1\.bias"):
        load_imagenet_weights(network, save(file))
    assert all(torch.equal(value, pristine[1][key]) for key, value in network.state_dict().items())


# -------------------------------------------------------------------------------------------------- which file


def test_base_is_too_wide_and_says_so_in_one_sentence(network, save, state_dict):
    path = save({"model": state_dict(BASE.name)})
    for attempt in (lambda: load_imagenet_weights(network, path), lambda: ensure_weights("vm_unet", path)):
        with pytest.raises(CheckpointError) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"{path} is VMamba-Base")
        for part in ("too wide for a network of width 96", SMALL.title, SMALL.file_name, TINY.title, TINY.file_name):
            assert part in message
        assert "\n" not in message


@pytest.mark.parametrize("record", [SMALL, TINY], ids=lambda record: record.name)
def test_the_file_the_user_points_at_may_be_either(save, state_dict, monkeypatch, record):
    path = save({"model": state_dict(record.name)}, "mine.pth")
    assert ensure_weights("vm_unet", path).path == path
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(path))
    assert ensure_weights("vm_unet").path == path


def test_tiny_under_its_published_name_must_be_the_published_file(save, state_dict):
    path = save({"model": state_dict(TINY.name)}, TINY.file_name)
    with pytest.raises(CheckpointError, match=naming("vssmtiny_dp01_ckpt_epoch_292.pth", "91,649,482")):
        ensure_weights("vm_unet", path)


@pytest.mark.parametrize("name", SMALL.file_names)
def test_small_is_found_in_a_folder_and_tiny_beside_it_is_not_looked_at(save, state_dict, name):
    save({"model": state_dict(TINY.name)}, TINY.file_name, cache_folder())
    path = save({"model": state_dict(SMALL.name)}, name, cache_folder())
    assert ensure_weights("vm_unet").path == path


def test_tiny_in_a_folder_is_not_taken_silently(save, state_dict, monkeypatch):
    path = save({"model": state_dict(TINY.name)}, TINY.file_name)
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(path.parent))
    with pytest.raises(WeightsNotFoundError) as caught:
        ensure_weights("vm_unet", scratch_trainer="nnUNetTrainerVMUNetScratch")
    for part in (
        f"The ImageNet weights {SMALL.name}", SMALL.url, "use nnUNetTrainerVMUNetScratch",
        f"{TINY.title} ({TINY.file_name}) serves instead if {locate.ENVIRONMENT_VARIABLE} names that file.",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_small_by_its_own_name_is_small_only(save, state_dict):
    with pytest.raises(CheckpointError, match=r"is VMamba-Tiny.*expected VMamba-Small.*") as caught:
        ensure_weights("vmamba_small_v0", save({"model": state_dict(TINY.name)}))
    assert "or VMamba-Tiny" not in str(caught.value)
