"""U-Mamba's checkpoints: the authors' names to ours."""

import pytest
import torch

from swin_umamba_nnunet.networks import UMambaBot, UMambaEnc
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden
from tests.networks.test_umamba import PLANNED, papers, planned

NETWORKS = ("umamba_bot", "umamba_enc", "umamba_bot_2024_01", "umamba_enc_2024_01")
MAMBA_LAYER = {
    "umamba_bot": "mamba_layer.norm.bias",
    "umamba_enc": "encoder.mamba_layers.3.norm.bias",
    "umamba_bot_2024_01": "ln.bias",
    "umamba_enc_2024_01": "encoder.mamba_layers.3.norm.bias",
}


def authors(network: str, case: str | None = None) -> dict[str, torch.Tensor]:
    """Empty tensors under the authors' names."""
    return {key: torch.empty(shape, device="meta") for key, shape in golden.shapes(case or network).items()}


def ours(network: str, channels: int, classes: int, **settings) -> torch.nn.Module:
    cls = UMambaBot if "bot" in network else UMambaEnc
    with torch.device("meta"):
        return cls(channels, classes, release="2024-01" if "2024_01" in network else "2024-03", **settings)


def as_planned(case: str) -> tuple[int, int, dict]:
    """Channels, classes and settings of a golden network."""
    entry = golden.manifest()[case]
    settings = {key: entry[key] for key in PLANNED} | {"patch_size": entry["input_shape"][2:]}
    return entry["in_channels"], entry["num_classes"], settings


@pytest.mark.parametrize("case", [*NETWORKS, "umamba_enc_7_stages"])
def test_ours_exactly(case):
    network = case.removesuffix("_7_stages")
    theirs = authors(network, case)
    channels, classes, settings = as_planned(case)
    expected = ours(network, channels, classes, **settings).state_dict()
    remapped = remap_authors_state_dict(network, theirs)
    assert {key: value.shape for key, value in remapped.items()} == {k: v.shape for k, v in expected.items()}
    assert [id(value) for value in remapped.values()] == [id(value) for value in theirs.values()]


@pytest.mark.parametrize("network", NETWORKS)
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
    with pytest.raises(ValueError, match=r"1 \(decoder\.encoder\.stages\.2\..*missing and none unexpected"):
        remap_authors_state_dict(network, twice)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "settings",
    [
        papers((64, 64), 4) | {"n_conv_per_stage": [1, 3, 4, 6], "n_conv_per_stage_decoder": [1, 1, 1]},
        planned((16, 32, 32), (8, 8, 16), [[1, 1, 1], [1, 2, 2], [2, 2, 2]]),
    ],
    ids=["other blocks", "3D"],
)
def test_other_plans(network, settings):
    """Files of other plans than the golden ones: made from our names, backwards."""
    expected = ours(network, 1, 3, **settings).state_dict()
    last = settings["n_stages"] - 1
    theirs = {backwards(network, key, last): value for key, value in expected.items()}
    assert remap_authors_state_dict(network, theirs) == expected


def backwards(network: str, key: str, last: int) -> str:
    if network == "umamba_bot":
        return key.replace(f"encoder.mamba_layers.{last}.", "mamba_layer.")
    if network == "umamba_bot_2024_01":
        key = key.replace(f"encoder.mamba_layers.{last}.norm.", "ln.").replace(f"encoder.mamba_layers.{last}.", "")
    return key.replace("decoder.upsample_layers.", "decoder.transpconvs.") if "2024_01" in network else key


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("missing", ["decoder.seg_layers.1.bias", "mamba", "stem"])
def test_a_missing_key(network, missing):
    theirs = authors(network)
    key = {"mamba": MAMBA_LAYER[network], "stem": next(iter(theirs))}.get(missing, missing)
    del theirs[key]
    with pytest.raises(
        ValueError, match=rf"authors' {network}: 1 \({key.replace('.', '[.]')}\) missing and none unexp"
    ):
        remap_authors_state_dict(network, theirs)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_unexpected_key(network):
    with pytest.raises(ValueError, match=r"none missing and 1 \(extra\) unexpected"):
        remap_authors_state_dict(network, authors(network) | {"extra": torch.empty(0)})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("other", NETWORKS)
def test_the_other_network(network, other):
    if network != other:
        with pytest.raises(ValueError, match=f"{network}:"):
            remap_authors_state_dict(network, authors(other))


def test_nothing_like_it():
    with pytest.raises(ValueError, match=r"umamba_enc: .*1 \(x\) unexpected"):
        remap_authors_state_dict("umamba_enc", {"x": torch.empty(0)})
    with pytest.raises(ValueError, match='"network_weights"'):
        remap_authors_state_dict("umamba_bot", {"network_weights": {}})


def test_our_own_keys():
    channels, classes, settings = as_planned("umamba_bot")
    with pytest.raises(ValueError, match="own keys"):
        remap_authors_state_dict("umamba_bot", ours("umamba_bot", channels, classes, **settings).state_dict())
