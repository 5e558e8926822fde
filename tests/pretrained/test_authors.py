import pytest
import torch

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden
from tests.messages import naming

NETWORKS = {"swin_umamba": SwinUMamba, "swin_umamba_d": SwinUMambaD}


def authors(network: str, channels: int = 1, classes: int = 4) -> dict[str, torch.Tensor]:
    """Empty tensors under the authors' names, for that many channels and classes."""
    shapes = golden.shapes(network)
    first = {
        "swin_umamba": ("stem.0.weight", "encoder1.layer.conv1.conv.weight", "encoder1.layer.conv3.conv.weight"),
        "swin_umamba_d": ("vssm_encoder.patch_embed.proj.weight",),
    }[network]
    for key, shape in shapes.items():
        if key in first:
            shapes[key] = (shape[0], channels, *shape[2:])
        elif key.startswith(("out_layers.", "decoder.seg_layers.")):
            shapes[key] = (classes, *shape[1:])
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize(("channels", "classes"), [(1, 4), (3, 2), (5, 14)])
def test_ours_exactly(network, channels, classes):
    theirs = authors(network, channels, classes)
    with torch.device("meta"):
        ours = NETWORKS[network](channels, classes).state_dict()
    remapped = remap_authors_state_dict(network, theirs)
    assert remapped.keys() == ours.keys()
    assert {key: value.shape for key, value in remapped.items()} == {key: value.shape for key, value in ours.items()}
    assert [id(value) for value in remapped.values()] == [id(value) for value in theirs.values()]


def test_an_image_as_wide_as_the_stem_has_no_shortcut():
    theirs = authors("swin_umamba", channels=48)
    del theirs["encoder1.layer.conv3.conv.weight"]
    with torch.device("meta"):
        ours = SwinUMamba(48, 4).state_dict()
    assert remap_authors_state_dict("swin_umamba", theirs).keys() == ours.keys()


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_missing_key(network):
    theirs = authors(network)
    del theirs["vssm_encoder.layers.2.blocks.8.ln_1.bias"]
    with pytest.raises(
        ValueError, match=r"1 \(vssm_encoder\.layers\.2\.blocks\.8\.ln_1\.bias\) missing and none unexp"
    ):
        remap_authors_state_dict(network, theirs)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_an_unexpected_key(network):
    theirs = authors(network) | {f"extra.{i}": torch.empty(0) for i in range(7)}
    with pytest.raises(ValueError, match=r"none missing and 7 \(extra\.0, .*extra\.4, \.\.\.\) unexpected"):
        remap_authors_state_dict(network, theirs)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_our_own_keys(network):
    with pytest.raises(ValueError, match="own keys"):
        remap_authors_state_dict(network, remap_authors_state_dict(network, authors(network)))
    mixed = authors(network)
    ours, tensor = next(iter(remap_authors_state_dict(network, mixed).items()))
    with pytest.raises(ValueError, match=r"1 \(encoder\..*unexpected.*own keys"):
        remap_authors_state_dict(network, mixed | {ours: tensor})


def test_the_other_network():
    with pytest.raises(ValueError, match=naming("swin_umamba:", "decoder.stages.0")):
        remap_authors_state_dict("swin_umamba", authors("swin_umamba_d"))


def test_a_whole_checkpoint():
    with pytest.raises(ValueError, match='"network_weights"'):
        remap_authors_state_dict("swin_umamba", {"network_weights": {}})


def test_an_unknown_network():
    with pytest.raises(ValueError, match=naming("'swin_unet'", "swin_umamba, swin_umamba_d")):
        remap_authors_state_dict("swin_unet", {})
