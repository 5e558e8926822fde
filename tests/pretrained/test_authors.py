"""The authors' segmentation checkpoints: their names to ours."""

import pytest
import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden
from tests.messages import raises
from tests.plans import planned

UMAMBA = ["umamba_bot", "umamba_enc", "umamba_bot_2024_01", "umamba_enc_2024_01"]
NETWORKS = ["swin_umamba", "swin_umamba_d", "vm_unet", *UMAMBA]


def authors(case):
    """Empty tensors under the authors' names."""
    return {key: torch.empty(shape, device="meta") for key, shape in golden.shapes(case).items()}


def ours(cls, channels, **settings):
    """State dict of our network; that the golden files give it exactly is held where they are loaded, in `networks`."""
    with torch.device("meta"):
        return getattr(networks, cls)(channels, 4, **settings).state_dict()


def test_an_image_as_wide_as_the_stem_has_no_shortcut():
    theirs = authors("swin_umamba") | {"encoder1.layer.conv1.conv.weight": torch.empty(48, 48, 3, 3)}
    del theirs["encoder1.layer.conv3.conv.weight"]
    assert remap_authors_state_dict("swin_umamba", theirs).keys() == ours("SwinUMamba", 48).keys()


@pytest.mark.parametrize("case", ["vm_unet", "vm_unet_deep"])
def test_vm_unets_prefix_wrapping_and_profiling_counters_are_passed_over(case):
    theirs = authors(case)
    expected = remap_authors_state_dict("vm_unet", theirs)
    prefixed = {f"vmunet.{key}": value for key, value in theirs.items()}
    counters = dict.fromkeys(("total_ops", "vmunet.layers.0.total_ops", "vmunet.layers.0.total_params"), torch.zeros(1))
    for file in (prefixed, counters | prefixed, {"epoch": 1, "model_state_dict": theirs, "optimizer_state_dict": {}}):
        assert remap_authors_state_dict("vm_unet", file) == expected


@pytest.mark.parametrize("network", UMAMBA)
def test_the_decoders_second_copy_of_the_encoder(network):
    """Files of the fork have it; the golden inventory leaves it out."""
    theirs = authors(network)
    twice = theirs | {f"decoder.{key}": value for key, value in theirs.items() if key.startswith("encoder.")}
    if "enc" not in network:
        twice = {key: value for key, value in twice.items() if "decoder.encoder.mamba_layers." not in key}
    remapped, expected = remap_authors_state_dict(network, twice), remap_authors_state_dict(network, theirs)
    assert remapped.keys() == expected.keys()
    assert all(remapped[key] is expected[key] for key in expected)
    first_block = "blocks.0.conv1.conv" if "2024_01" in network else "0.conv1"
    del twice[f"decoder.encoder.stages.2.{first_block}.weight"]
    with raises(ValueError, "1 missing (decoder.encoder.stages.2.", "0 unexpected"):
        remap_authors_state_dict(network, twice)


@pytest.mark.parametrize("network", UMAMBA)
@pytest.mark.parametrize(
    "settings",
    [
        planned((64, 64), (32, 64, 128, 256))
        | {"n_conv_per_stage": [1, 3, 4, 6], "n_conv_per_stage_decoder": [1, 1, 1]},
        planned((16, 32, 32), (8, 8, 16), [[1, 1, 1], [1, 2, 2], [2, 2, 2]]),
        planned((32, 32), (8, 16, 16), [[1, 1], [1, 1], [2, 2]]),
    ],
    ids=["other blocks", "3D", "new widths without a stride"],
)
def test_other_plans(network, settings):
    """Files of other plans than the golden ones: made from our names, backwards."""
    release = "2024-01" if "2024_01" in network else "2024-03"
    expected = ours("UMambaBot" if "bot" in network else "UMambaEnc", 1, release=release, **settings)
    layer = f"encoder.mamba_layers.{settings['n_stages'] - 1}."
    backwards = {"decoder.upsample_layers.": "decoder.transpconvs."} if "2024_01" in network else {}
    if network == "umamba_bot":
        backwards = {layer: "mamba_layer."}
    elif network == "umamba_bot_2024_01":
        backwards |= {f"{layer}norm.": "ln.", layer: ""}
    theirs = {}
    for key, value in expected.items():
        for name, old in backwards.items():
            key = key.replace(name, old)
        theirs[key] = value
    assert remap_authors_state_dict(network, theirs) == expected


@pytest.mark.parametrize(
    ("network", "key"),
    [
        *((network, "vssm_encoder.layers.2.blocks.8.ln_1.bias") for network in ("swin_umamba", "swin_umamba_d")),
        *(("vm_unet", f"layers{part}.bias") for part in ("_up.3.blocks.0.ln_1", ".1.blocks.1.ln_1")),
        *((network, "decoder.seg_layers.1.bias") for network in UMAMBA),
        *((network, "stem") for network in UMAMBA),
        ("umamba_bot", "mamba_layer.norm.bias"),
        ("umamba_bot_2024_01", "ln.bias"),
        *((network, "encoder.mamba_layers.3.norm.bias") for network in ("umamba_enc", "umamba_enc_2024_01")),
    ],
)
def test_a_missing_key(network, key):
    theirs = authors(network)
    key = next(iter(theirs)) if key == "stem" else key
    del theirs[key]
    facts = (f"{network}: 1 missing ({key})", "0 unexpected", f"of {len(theirs) + 1} expected")
    with raises(ValueError, *facts):
        remap_authors_state_dict(network, theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_unexpected_keys(network):
    theirs = authors(network)
    with raises(ValueError, "0 missing", "7 unexpected (extra.0", " 3 more"):
        remap_authors_state_dict(network, theirs | {f"extra.{i}": torch.empty(0) for i in range(7)})


@pytest.mark.parametrize("network", ["swin_umamba", "swin_umamba_d", "umamba_bot"])
def test_our_own_keys(network):
    theirs = authors(network)
    renamed = remap_authors_state_dict(network, theirs)
    name, tensor = next((key, value) for key, value in reversed(renamed.items()) if key not in theirs)
    for file in (renamed, theirs | {name: tensor}):
        with raises(ValueError, "own keys"):
            remap_authors_state_dict(network, file)


@pytest.mark.parametrize("network", NETWORKS)
def test_no_other_network(network):
    for other in NETWORKS:
        if other != network:
            with pytest.raises(ValueError, match=f"authors' {network}: [1-9]"):
                remap_authors_state_dict(network, authors(other))
    with raises(ValueError, f"{network}:", "1 unexpected (x)"):
        remap_authors_state_dict(network, {"x": torch.empty(0)})
    with raises(ValueError, '"network_weights"'):
        remap_authors_state_dict(network, {"network_weights": {}})


def test_no_file_makes_a_huge_network():
    """Numbers of stages and blocks are a file's to claim."""
    for key in ("layers.0.blocks.{}.ln_1.bias", "encoder.stages.{}.blocks.0.conv1", "encoder.stages.{}.0.conv1"):
        for network in NETWORKS:
            with raises(ValueError, f"{network}:"):
                remap_authors_state_dict(network, {key.format(i): torch.empty(0) for i in range(10**4, 10**4 + 100)})


def test_an_unknown_network():
    with raises(ValueError, "'swin_unet'", *NETWORKS):
        remap_authors_state_dict("swin_unet", {})
