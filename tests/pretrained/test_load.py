"""ImageNet weights into every network: what is loaded, what is left out and kept, and that nothing else changes."""

import hashlib
import json
import logging

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm, linear
from torch.nn.parallel import DistributedDataParallel

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2, VMUNet
from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    LoadReport,
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
from swin_umamba_nnunet.pretrained.checkpoint import examine_checkpoint
from swin_umamba_nnunet.pretrained.variants import inventory
from tests import golden
from tests.messages import assert_names, raises
from tests.pretrained.test_variants import LINEAR

CLASSIFIER = ("norm.weight", "norm.bias", "head.weight", "head.bias")
CLASSIFIER_V2 = tuple(f"classifier.{key}" for key in CLASSIFIER)
CONVOLUTION, CONVOLUTION_V2 = "patch_embed.proj.weight", "patch_embed.0.weight"
PATCH = (CONVOLUTION, "patch_embed.proj.bias", "patch_embed.norm.weight")
SMALL, TINY, BASE = (get_record(f"vmamba_{size}_v0") for size in ("small", "tiny", "base"))
SMALL_V2_SIZE = {"depths": (2, 2, 15, 2), "expand": 2}
PER_BLOCK = 13  # tensors
small_or_tiny = pytest.mark.parametrize("record", [SMALL, TINY], ids=lambda record: record.name)


def copy_of(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def blank(network, *arguments, **settings):
    """A network of full size with 0.5 everywhere: nothing is drawn for it."""
    with torch.device("meta"):
        made = network(*arguments, **settings).eval()
    made = made.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in made.state_dict().values():
            tensor.fill_(0.5)
    return made


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def refused_unchanged(network, weights, error, *facts):
    """Hold that the weights are refused by a message with those facts and that no tensor of the network has changed."""
    before = copy_of(network)
    with raises(error, *facts):
        load_imagenet_weights(network, weights)
    assert same(before, network.state_dict())


@pytest.fixture
def build(mini, monkeypatch):
    """Small networks: the encoder is the mini VMamba's."""
    monkeypatch.setitem(registry.WEIGHTS_OF_NETWORK, "vm_unet", mini.name)
    monkeypatch.setitem(registry.ALTERNATIVES_OF_NETWORK, "vm_unet", ())

    def build(network, channels=3, **settings):
        decoder = {"depths_decoder": (1, 1)} if network is VMUNet else {}
        return network(
            channels, 2, **{"depths": mini.variant.depths, "width": mini.variant.width, **decoder, **settings}
        ).eval()

    return build


@pytest.fixture
def weights(mini):
    """Random weights of the mini VMamba, at the scale of trained ones."""
    generator = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in inventory(mini).items()}


@pytest.fixture
def file(save, weights):
    return save({"model": weights}, "mini_copy.pth")


# ------------------------------------------------------------------------------------------------- what is loaded


@pytest.mark.parametrize(
    ("name", "network_class", "settings", "tensors", "classifier"),
    [
        ("vmamba_tiny_v0", SwinUMambaD, {}, 208, CLASSIFIER),
        ("vmamba_tiny_v2", SwinUMambaDV2, {}, 272, CLASSIFIER_V2),
        ("vmamba_small_v2", SwinUMambaDV2, SMALL_V2_SIZE, 398, CLASSIFIER_V2),
    ],
)
def test_the_golden_class_scores(save, name, network_class, settings, tensors, classifier):
    """Through the real path: file, checks, remap, encoder; then the file's own norm and head."""
    case = golden.case(name)
    weights = case.state_dict
    path = save({"model": weights})
    network = blank(network_class, 3, 2, **settings)
    report = load_imagenet_weights(network, path)
    assert (report.source, report.variant) == (str(path), name)
    assert (len(report.loaded), report.adapted, report.left_out_by_design) == (tensors, (), classifier)
    assert f"{tensors} of {tensors} encoder tensors" in report.summary()
    norm_weight, norm_bias, head_weight, head_bias = (weights[key] for key in classifier)
    with torch.no_grad():
        last = network.imagenet_encoder(case.image)[-1].permute(0, 2, 3, 1)
        scores = linear(layer_norm(last, last.shape[-1:], norm_weight, norm_bias).mean((1, 2)), head_weight, head_bias)
    assert golden.relative_error(scores, case.outputs[0]) < golden.OUTPUT


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("network_class", [SwinUMamba, SwinUMambaD, VMUNet])
def test_any_number_of_channels(file, weights, build, network_class, channels):
    """D and VM-UNet adapt the convolution where they have to, and nothing else stays out; VM-UNet takes grey as RGB."""
    network = build(network_class, channels)
    before = copy_of(network)
    report = load_imagenet_weights(network, file)
    outside = PATCH if network_class is SwinUMamba else ()
    adapted = () if outside or channels == 3 or (network_class is VMUNet and channels == 1) else (CONVOLUTION,)
    encoder = {key for key in report.loaded if not key.startswith("decoder.")}
    assert encoder == set(weights) - {*adapted, *outside, *CLASSIFIER}
    assert (report.adapted, report.missing, report.unexpected) == (adapted, (), ())
    assert report.left_out_by_design == outside + CLASSIFIER
    assert (report.variant, report.sha256) == ("vmamba_mini", hashlib.sha256(file.read_bytes()).hexdigest())
    loaded = network.imagenet_encoder.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in encoder)
    if adapted:
        assert torch.equal(loaded[CONVOLUTION], adapt_input_convolution(weights[CONVOLUTION], channels))
    prefix = next(name for name, module in network.named_modules() if module is network.imagenet_encoder)
    expected = {f"{prefix}.{key}" for key in (*encoder, *adapted)} | {*report.loaded} - encoder
    assert {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])} == expected


@pytest.mark.parametrize("as_convolutions", [False, True])
@pytest.mark.parametrize("network_class", [SwinUMambaV2, SwinUMambaDV2])
def test_the_second_generation_loads_every_tensor(network_class, as_convolutions, save, state_dict):
    """In both networks and for any image: the stem sees the image, so its first convolution is adapted."""
    published = state_dict("vmamba_tiny_v2")
    stored = {
        key: value[..., None, None] if as_convolutions and key.endswith(LINEAR) else value
        for key, value in published.items()
    }
    network = blank(network_class, 1, 2)
    report = load_imagenet_weights(network, save({"model": stored}))
    assert (report.adapted, len(report.loaded)) == ((CONVOLUTION_V2,), 271)
    assert (report.left_out_by_design, report.kept, report.missing, report.unexpected) == (CLASSIFIER_V2, (), (), ())
    loaded = network.imagenet_encoder.state_dict()
    assert torch.equal(loaded[CONVOLUTION_V2], adapt_input_convolution(published[CONVOLUTION_V2], 1))
    assert all(torch.equal(loaded[key], published[key]) for key in report.loaded)


# --------------------------------------------------------------------------------------------------------- VM-UNet


@pytest.fixture(scope="module")
def pristine():
    """A VM-UNet of the published settings and its initial values, built once."""
    torch.manual_seed(0)
    network = VMUNet(3, 2)
    return network, copy_of(network)


@pytest.fixture
def network(pristine):
    """It again, as it was."""
    pristine[0].load_state_dict(pristine[1])
    return pristine[0]


def as_the_authors_load(network, file):
    """The state dict after their two passes: keys of the encoder as they are, then `layers.X` as `layers_up.(3-X)`.

    A key counts if their network has it.  Written with their names on purpose, to be held against ours.
    """
    shapes = golden.shapes("vm_unet")
    theirs = dict(zip(shapes, remap_authors_state_dict("vm_unet", dict.fromkeys(shapes))))
    assert set(theirs.values()) == set(network)
    loaded = dict(network)
    for key, value in file.items():
        renamed = key.replace(f"layers.{key[7]}", f"layers_up.{3 - int(key[7])}") if key.startswith("layers.") else key
        for name in {key, renamed} & theirs.keys():
            loaded[theirs[name]] = value
    return loaded


@small_or_tiny
def test_vm_unet_loads_what_the_authors_load_and_nothing_else(network, pristine, save, state_dict, record):
    file = state_dict(record.name)
    report = load_imagenet_weights(network, save({"model": file}))
    assert same(network.state_dict(), as_the_authors_load(pristine[1], file))
    encoder = [key for key in report.loaded if not key.startswith("decoder.")]
    assert (len(encoder), len(report.loaded), report.adapted) == (117, 208, ())
    assert (report.variant, report.missing, report.unexpected) == (record.name, (), ())


def test_the_report_names_what_was_cut_off(network, caplog, saved):
    caplog.set_level(logging.INFO)
    report = load_imagenet_weights(network, saved(SMALL.name))
    cut = {tuple(key.split(".")[:4]) for key in report.left_out_by_design if key not in CLASSIFIER}
    assert cut == {("layers", "2", "blocks", str(block)) for block in range(2, 27)}
    assert len(report.left_out_by_design) == 25 * PER_BLOCK + len(CLASSIFIER)
    assert len(report.kept) == 14
    assert not any(".blocks." in key for key in report.kept)
    assert "\n" not in report.summary()
    assert report.summary().endswith(
        "117 of 117 encoder tensors and 91 of 105 decoder tensors loaded; left out by design: layers.2.blocks.2 to 26, "
        "norm.weight, norm.bias, head.weight, head.bias"
    )
    assert report.summary() in caplog.text


def test_a_decoder_deeper_than_the_encoder_takes_blocks_the_encoder_does_not(save, state_dict):
    """So do the defaults of the authors' class; what the file does not have keeps its initial values."""
    network = VMUNet(3, 2, depths=(1, 1, 1, 1), depths_decoder=(3, 4, 1, 1))
    file = state_dict(TINY.name)
    report = load_imagenet_weights(network, save({"model": file}))
    loaded = network.state_dict()
    assert torch.equal(loaded["decoder.stages.1.blocks.3.ln_1.bias"], file["layers.2.blocks.3.ln_1.bias"])
    assert "layers.2.blocks.3.ln_1.bias" not in report.left_out_by_design
    assert "layers.2.blocks.4.ln_1.bias" in report.left_out_by_design
    assert "decoder.stages.0.blocks.2.ln_1.bias" in report.kept
    assert loaded["decoder.stages.0.blocks.2.ln_1.bias"].eq(0).all()


@small_or_tiny
def test_the_file_the_user_points_at_may_be_either(monkeypatch, record, saved):
    path = saved(record.name, "mine.pth")
    assert ensure_weights("vm_unet", path).path == path
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(path))
    assert ensure_weights("vm_unet").record is record


@pytest.mark.parametrize("name", SMALL.file_names)
def test_small_is_found_in_a_folder_and_tiny_beside_it_is_not_looked_at(name, saved):
    saved(TINY.name, TINY.file_name, cache_folder())
    path = saved(SMALL.name, name, cache_folder())
    assert ensure_weights("vm_unet").path == path


def test_tiny_in_a_folder_is_not_taken_silently(monkeypatch, saved):
    path = saved(TINY.name, TINY.file_name)
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(path.parent))
    facts = (SMALL.name, SMALL.url, "nnUNetTrainerVMUNetScratch", TINY.title, TINY.file_name)
    with raises(WeightsNotFoundError, *facts, f"serves instead if {locate.ENVIRONMENT_VARIABLE}"):
        ensure_weights("vm_unet", scratch_trainer="nnUNetTrainerVMUNetScratch")


# ------------------------------------------------------------------------------------------------------- the report


def test_the_report_is_one_line_and_plain_data(file, build):
    report = load_imagenet_weights(build(SwinUMambaD, 1), file)
    assert "\n" not in report.summary()
    assert_names(report.summary(), file, report.sha256[:16], "vmamba_mini", CONVOLUTION, "head.bias")
    restored = json.loads(json.dumps(report.to_dict()))
    assert restored == report.to_dict()
    assert tuple(restored["loaded"]) == report.loaded


def test_a_range_of_one_block_and_two_stages():
    left_out = ("layers.0.blocks.3.a", "layers.0.blocks.3.b", "layers.2.blocks.5.a", "layers.2.blocks.6.a", "norm.bias")
    report = LoadReport("file", "ab" * 32, "x", ("a",), (), left_out, (), ())
    assert report.summary().endswith("by design: layers.0.blocks.3, layers.2.blocks.5 to 6, norm.bias")


# ------------------------------------------------------------------------------------------ the network, and refusals


def test_wrappers_of_compile_and_ddp_are_looked_through(file, weights, build):
    class Alone(DistributedDataParallel):  # without a process group
        def __init__(self, module):
            nn.Module.__init__(self)
            self.module = module

    network = build(SwinUMambaD)
    load_imagenet_weights(Alone(torch.compile(network, backend="eager")), file)
    assert torch.equal(network.imagenet_encoder.state_dict()[CONVOLUTION], weights[CONVOLUTION])


def test_parameters_stay_the_optimisers(file, build):
    network = build(SwinUMambaD)
    before = [(name, each.data_ptr(), each.requires_grad) for name, each in network.named_parameters()]
    load_imagenet_weights(network, file)
    assert [(name, each.data_ptr(), each.requires_grad) for name, each in network.named_parameters()] == before


@pytest.mark.parametrize(
    ("network_class", "name", "facts"),
    [
        (SwinUMambaV2, "vmamba_tiny_v0", ("is VMamba-Tiny (first", "expected VMamba-Tiny (second")),
        (SwinUMambaDV2, "vmamba_small_v2", ("is VMamba-Small (second", "expected VMamba-Tiny (second")),
        (SwinUMambaD, "vmamba_tiny_v2", ("is VMamba-Tiny (second", "expected VMamba-Tiny (first")),
        (SwinUMambaD, "vmamba_small_v0", ("is VMamba-Small (first", "expected VMamba-Tiny (first")),
    ],
)
def test_the_wrong_vmamba_is_named_and_changes_nothing(network_class, name, facts, saved):
    """As a file, and as what was read of it for another network."""
    path, network = saved(name), blank(network_class, 1, 2)
    for weights in (path, ensure_weights(name, path)):
        refused_unchanged(network, weights, CheckpointError, path, *facts)


def test_base_is_too_wide_and_says_so_in_one_sentence(network, saved):
    path = saved(BASE.name)
    facts = ("too wide for a network of width 96", SMALL.title, SMALL.file_name, TINY.title, TINY.file_name)
    with raises(CheckpointError, *facts) as caught:
        ensure_weights("vm_unet", path)
    assert str(caught.value).startswith(f"{path} is VMamba-Base")
    assert "\n" not in str(caught.value)
    refused_unchanged(network, path, CheckpointError, *facts)


def test_a_file_that_lacks_a_tensor_changes_nothing(network, save, state_dict):
    file = state_dict(SMALL.name)
    del file["layers.2.blocks.20.ln_1.bias"]  # even of a block that is cut off
    refused_unchanged(network, save(file), CheckpointError, "1 missing: layers.2.blocks.20.ln_1.bias")


def test_what_was_examined_and_found_faulty_changes_nothing(save, weights, build):
    found = examine_checkpoint(save(weights | {"norm.bias": torch.zeros(1), "layers.0.extra": torch.zeros(1)}))
    refused_unchanged(build(SwinUMambaD), found, CheckpointError, found.path, "1 unexpected: layers.0.extra")


def test_an_encoder_with_more_than_the_file_or_of_another_shape_changes_nothing(file, build):
    network, other = build(SwinUMambaD), build(SwinUMambaD)
    network.imagenet_encoder.register_buffer("extra", torch.zeros(1))
    refused_unchanged(network, file, CheckpointError, "SwinUMambaD", "missing ['extra']")
    other.imagenet_encoder.patch_embed.norm.weight = nn.Parameter(torch.ones(15))
    refused_unchanged(other, file, CheckpointError, "SwinUMambaD", "shape ['patch_embed.norm.weight']")


def test_an_encoder_nobody_published_weights_for_is_told(file, build):
    others = [{"width": 20}, {"depths": (1, 2)}, {"depths": (1, 1, 1), "depths_decoder": (1, 1, 1)}]
    for network in (*(build(VMUNet, **settings) for settings in others), SwinUMambaD(3, 2, depths=(1,), width=16)):
        refused_unchanged(network, file, TypeError, type(network).__name__, "nobody", "depths 1")
    refused_unchanged(nn.Linear(2, 2), file, TypeError, "Linear", "imagenet_encoder")
