"""Second-generation checkpoints: recognised, checked, loaded; and the first generation's in other sizes."""


import pytest
import torch
from torch.nn.functional import layer_norm, linear

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2
from swin_umamba_nnunet.pretrained import (
    CheckpointError,
    adapt_input_convolution,
    load_imagenet_weights,
)
from swin_umamba_nnunet.pretrained.registry import RECORDS
from tests import golden

SECOND_GENERATION = [record for record in RECORDS if record.generation == 2]
CLASSIFIER = tuple(f"classifier.{part}.{leaf}" for part in ("norm", "head") for leaf in ("weight", "bias"))
CONVOLUTION = "patch_embed.0.weight"
LINEAR = ("op.in_proj.weight", "op.out_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
SMALL = {"depths": (2, 2, 27, 2)}
BASE = {"depths": (2, 2, 27, 2), "width": 128}


def test_the_golden_class_scores_through_the_real_path(golden_state_dict, save):
    """File, checks, encoder of the segmentation network; then the file's own norm and head."""
    case, weights = golden.case("vmamba_tiny_v2"), golden_state_dict("vmamba_tiny_v2")
    network = SwinUMambaDV2(3, 2).eval()
    report = load_imagenet_weights(network, save({"model": weights}))
    assert (report.variant, len(report.loaded), report.adapted) == ("vmamba_tiny_v2", 272, ())
    assert report.left_out_by_design == CLASSIFIER
    assert "272 of 272 encoder tensors" in report.summary()
    norm_weight, norm_bias, head_weight, head_bias = (weights[key] for key in CLASSIFIER)
    with torch.no_grad():
        last = network.imagenet_encoder(case.image)[-1].permute(0, 2, 3, 1)
        scores = linear(layer_norm(last, last.shape[-1:], norm_weight, norm_bias).mean((1, 2)), head_weight, head_bias)
    assert golden.relative_error(scores, case.outputs[0]) < golden.OUTPUT


@pytest.mark.parametrize("as_convolutions", [False, True])
@pytest.mark.parametrize("network_class", [SwinUMambaV2, SwinUMambaDV2])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_tensor_of_the_encoder_is_loaded(network_class, channels, as_convolutions, save, state_dict):
    """In both networks and for any image: the stem sees the image, so its first convolution is adapted."""
    published = state_dict("vmamba_tiny_v2")
    stored = {
        key: value[..., None, None] if as_convolutions and key.endswith(LINEAR) else value
        for key, value in published.items()
    }
    network = network_class(channels, 2)
    others = {key: value.clone() for key, value in network.decoder.state_dict().items()}
    report = load_imagenet_weights(network, save({"model": stored}))
    assert report.adapted == (() if channels == 3 else (CONVOLUTION,))
    assert len(report.loaded) + len(report.adapted) == 272
    assert (report.left_out_by_design, report.kept, report.missing, report.unexpected) == (CLASSIFIER, (), (), ())
    loaded = network.imagenet_encoder.state_dict()
    assert torch.equal(loaded[CONVOLUTION], adapt_input_convolution(published[CONVOLUTION], channels))
    assert all(torch.equal(loaded[key], published[key]) for key in report.loaded)
    assert all(torch.equal(value, others[key]) for key, value in network.decoder.state_dict().items())


def test_small_of_the_second_generation_fits_its_encoder(save, state_dict):
    network = SwinUMambaDV2(1, 2, depths=(2, 2, 15, 2), expand=2)
    report = load_imagenet_weights(network, save({"model": state_dict("vmamba_small_v2")}))
    assert (report.variant, len(report.loaded) + len(report.adapted)) == ("vmamba_small_v2", 398)


@pytest.mark.parametrize(("settings", "name"), [(SMALL, "vmamba_small_v0"), (BASE, "vmamba_base_v0")])
@pytest.mark.parametrize(("network_class", "loaded", "adapted"), [(SwinUMamba, 439, 0), (SwinUMambaD, 441, 1)])
def test_first_generation_of_other_sizes(network_class, loaded, adapted, settings, name, save, state_dict):
    report = load_imagenet_weights(network_class(1, 2, **settings), save({"model": state_dict(name)}))
    assert (report.variant, len(report.loaded), len(report.adapted)) == (name, loaded, adapted)
    assert (report.missing, report.unexpected) == ((), ())


@pytest.mark.parametrize("network_class", [SwinUMamba, SwinUMambaD])
def test_a_control_without_scans_loads_what_the_network_loads(network_class, save, state_dict):
    """The tensors that only the scan reads too, so that the file is accounted for and the networks stay comparable."""
    path = save({"model": state_dict()})
    network, control = network_class(1, 2), network_class(1, 2, mixing="skip")
    assert load_imagenet_weights(control, path).loaded == load_imagenet_weights(network, path).loaded
    scans, skips = (each.imagenet_encoder.state_dict() for each in (network, control))
    name = "layers.2.blocks.4.self_attention.A_logs"
    assert torch.equal(scans[name], skips[name])


@pytest.mark.parametrize(
    ("network_class", "name", "message"),
    [
        (SwinUMambaV2, "vmamba_tiny_v0", r"is VMamba-Tiny \(first release\).*expected VMamba-Tiny \(second"),
        (SwinUMambaDV2, "vmamba_small_v2", r"is VMamba-Small \(second generation\).*expected VMamba-Tiny \(second"),
        (SwinUMambaD, "vmamba_tiny_v2", r"is VMamba-Tiny \(second generation\).*expected VMamba-Tiny \(first"),
    ],
)
def test_the_wrong_vmamba_is_named_and_changes_nothing(network_class, name, message, save, state_dict):
    network = network_class(1, 2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_imagenet_weights(network, save({"model": state_dict(name)}))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
