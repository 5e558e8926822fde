import dataclasses
import json
import logging

import pytest
import torch
from torch import nn
from torch.nn.functional import layer_norm, linear
from torch.nn.parallel import DistributedDataParallel

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
from swin_umamba_nnunet.pretrained import CheckpointError, WeightsNotFoundError, load_imagenet_weights
from swin_umamba_nnunet.pretrained.adapt import adapt_input_convolution
from swin_umamba_nnunet.pretrained.checkpoint import sha256_of
from swin_umamba_nnunet.pretrained.variants import inventory
from tests.messages import naming

CLASSIFIER = ("norm.weight", "norm.bias", "head.weight", "head.bias")
CONVOLUTION = "patch_embed.proj.weight"
PATCH = (CONVOLUTION, "patch_embed.proj.bias", "patch_embed.norm.weight")
LATER_SPELLING = (
    ("patch_embed.proj.", "patch_embed.0."),
    ("patch_embed.norm.", "patch_embed.2."),
    (".ln_1.", ".norm."),
    (".self_attention.", ".op."),
    ("downsample.norm.", "downsample.1."),
    ("downsample.reduction.", "downsample.2."),
)


def copy_of(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture
def build(mini):
    """Small networks: the encoder is the mini VMamba's."""
    return lambda network, channels=3: network(channels, 2, depths=mini.depths, width=mini.width).eval()


@pytest.fixture
def weights(mini):
    """Random weights of the mini VMamba, at the scale of trained ones."""
    generator = torch.Generator().manual_seed(0)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in inventory(mini).items()}


def test_d_gives_the_golden_class_scores(golden_state_dict, save, manifest):
    """Through the real path: file, checks, remap, encoder; then the file's own norm and head."""
    numpy = pytest.importorskip("numpy")
    case, weights = manifest["vmamba_tiny_v0"], golden_state_dict("vmamba_tiny_v0")
    path = save({"model": weights})
    network = SwinUMambaD(3, 2).eval()
    report = load_imagenet_weights(network, path)
    assert (report.source, report.variant) == (str(path), "vmamba_tiny_v0")
    assert (len(report.loaded), report.adapted, report.left_out_by_design) == (208, (), CLASSIFIER)
    assert "208 of 208" in report.summary()
    image = golden_state_dict.recipe.golden_input(case["input_name"], tuple(case["input_shape"]), case["seed"])
    with torch.no_grad():
        last = network.imagenet_encoder(torch.from_numpy(image))[-1].permute(0, 2, 3, 1)
        pooled = layer_norm(last, last.shape[-1:], weights["norm.weight"], weights["norm.bias"], 1e-5).mean(dim=(1, 2))
        scores = linear(pooled, weights["head.weight"], weights["head.bias"])
    with numpy.load(golden_state_dict.folder / "vmamba_tiny_v0.npz") as file:
        expected = torch.from_numpy(file["output0"])
    assert torch.linalg.vector_norm(scores - expected) < 1e-4 * torch.linalg.vector_norm(expected)


def test_swin_umamba_loads_the_authors_205(save, state_dict):
    network = SwinUMamba(1, 2)
    before = copy_of(network)
    report = load_imagenet_weights(network, save({"model": state_dict()}))
    assert (len(report.loaded), report.adapted, report.left_out_by_design) == (205, (), PATCH + CLASSIFIER)
    assert "patch_embed.norm.bias" in report.loaded
    assert "205 of 208" in report.summary()
    loaded = network.imagenet_encoder.state_dict()
    assert all(torch.equal(loaded[key], state_dict()[key]) for key in report.loaded)
    prefix = next(name for name, module in network.named_modules() if module is network.imagenet_encoder)
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {f"{prefix}.{key}" for key in report.loaded}


def test_d_with_three_channels_loads_everything(save, weights, build):
    path = save({"model": weights})
    network = build(SwinUMambaD)
    before = copy_of(network.decoder)
    report = load_imagenet_weights(network, path)
    assert report.loaded == tuple(key for key in weights if key not in CLASSIFIER)
    assert (report.adapted, report.missing, report.unexpected) == ((), (), ())
    assert report.left_out_by_design == CLASSIFIER
    assert (report.variant, report.sha256) == ("vmamba_mini", sha256_of(path))
    loaded = network.imagenet_encoder.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())
    assert same(before, network.decoder.state_dict())


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_d_with_other_channels_adapts_the_convolution_and_loads_everything(save, weights, build, channels):
    network = build(SwinUMambaD, channels)
    report = load_imagenet_weights(network, save({"model": weights}))
    assert report.adapted == (CONVOLUTION,)
    assert set(report.loaded) == set(weights) - {CONVOLUTION, *CLASSIFIER}
    assert report.left_out_by_design == CLASSIFIER
    loaded = network.imagenet_encoder.state_dict()
    assert torch.equal(loaded[CONVOLUTION], adapt_input_convolution(weights[CONVOLUTION], channels))
    assert all(torch.equal(loaded[key], weights[key]) for key in report.loaded)


@pytest.mark.parametrize("channels", [1, 3])
def test_swin_umambas_patch_embedding_stays_out_for_any_image(save, weights, build, channels):
    report = load_imagenet_weights(build(SwinUMamba, channels), save({"model": weights}))
    assert (report.adapted, report.left_out_by_design) == ((), PATCH + CLASSIFIER)


def test_both_spellings_load_the_same(save, weights, build):
    later = {}
    for key, value in weights.items():
        name = f"classifier.{key}" if key in CLASSIFIER else key
        for first, second in LATER_SPELLING:
            name = name.replace(first, second)
        later[name] = value
    assert not set(later) & set(weights)
    network, other = build(SwinUMambaD, 1), build(SwinUMambaD, 1)
    report = load_imagenet_weights(network, save({"model": weights}))
    assert load_imagenet_weights(other, save(later, "later.pth")).loaded == report.loaded
    assert same(network.imagenet_encoder.state_dict(), other.imagenet_encoder.state_dict())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_grey_image_gives_what_it_gives_as_rgb(save, weights, build, channels):
    path = save(weights)
    image = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    maps = []
    for count in (channels, 3):
        network = build(SwinUMambaD, count)
        load_imagenet_weights(network, path)
        with torch.no_grad():
            maps.append(network.imagenet_encoder(image.expand(-1, count, -1, -1))[-1])
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-5)


def test_the_report_is_one_line_and_plain_data(save, weights, build, caplog):
    caplog.set_level(logging.INFO)
    path = save({"model": weights})
    report = load_imagenet_weights(build(SwinUMambaD, 1), path)
    assert "\n" not in report.summary()
    for part in (str(path), report.sha256[:16], "vmamba_mini", CONVOLUTION, "head.bias"):
        assert part in report.summary()
    assert report.summary() in caplog.text
    restored = json.loads(json.dumps(report.to_dict()))
    assert restored == report.to_dict()
    assert tuple(restored["loaded"]) == report.loaded
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.variant = "other"


def test_the_report_can_be_stored_in_a_checkpoint_read_with_weights_only(save, weights, build, tmp_path):
    report = load_imagenet_weights(build(SwinUMambaD), save({"model": weights}))
    torch.save({"report": report.to_dict()}, tmp_path / "trained.pth")
    assert torch.load(tmp_path / "trained.pth", weights_only=True)["report"]["sha256"] == report.sha256


def test_wrappers_of_compile_and_ddp_are_looked_through(save, weights, build):
    class Alone(DistributedDataParallel):  # without a process group
        def __init__(self, module):
            nn.Module.__init__(self)
            self.module = module

    network = build(SwinUMambaD)
    load_imagenet_weights(Alone(torch.compile(network, backend="eager")), save({"model": weights}))
    assert torch.equal(network.imagenet_encoder.state_dict()[CONVOLUTION], weights[CONVOLUTION])


def test_parameters_stay_the_optimisers(save, weights, build):
    network = build(SwinUMambaD)
    before = [(name, parameter.data_ptr(), parameter.requires_grad) for name, parameter in network.named_parameters()]
    load_imagenet_weights(network, save({"model": weights}))
    after = [(name, parameter.data_ptr(), parameter.requires_grad) for name, parameter in network.named_parameters()]
    assert before == after


def test_a_wrong_file_changes_nothing(save, state_dict, build):
    network = build(SwinUMambaD)
    before = copy_of(network)
    with pytest.raises(CheckpointError, match="is VMamba-Small.*expected VMamba-Mini"):
        load_imagenet_weights(network, save({"model": state_dict("vmamba_small_v0")}))
    assert same(before, network.state_dict())


def test_an_encoder_with_more_than_the_file_changes_nothing(save, weights, build):
    network = build(SwinUMambaD)
    network.imagenet_encoder.register_buffer("extra", torch.zeros(1))
    before = copy_of(network)
    with pytest.raises(CheckpointError, match=naming("SwinUMambaD", "missing ['extra']")):
        load_imagenet_weights(network, save({"model": weights}))
    assert same(before, network.state_dict())


def test_an_encoder_of_another_shape_changes_nothing(save, weights, build):
    network = build(SwinUMambaD)
    network.imagenet_encoder.patch_embed.norm.weight = nn.Parameter(torch.ones(15))
    before = copy_of(network)
    with pytest.raises(CheckpointError, match=naming("SwinUMambaD", "shape ['patch_embed.norm.weight']")):
        load_imagenet_weights(network, save({"model": weights}))
    assert same(before, network.state_dict())


def test_an_encoder_nobody_published_weights_for_is_told():
    with pytest.raises(TypeError, match=naming("SwinUMambaD", "nobody", "depths 1,1, width 16")):
        load_imagenet_weights(SwinUMambaD(3, 2, depths=(1, 1), width=16))
    with pytest.raises(TypeError, match=naming("Linear", "imagenet_encoder")):
        load_imagenet_weights(nn.Linear(2, 2))


def test_without_weights_it_says_what_to_do_and_names_the_scratch_trainer(build):
    with pytest.raises(WeightsNotFoundError, match="use nnUNetTrainerSwinUMambaDScratch"):
        load_imagenet_weights(build(SwinUMambaD), scratch_trainer="nnUNetTrainerSwinUMambaDScratch")
