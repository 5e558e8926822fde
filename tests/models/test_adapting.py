"""Checkpoints for another number of channels, as nnU-Net's own loader of pretrained weights takes them."""

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from swin_umamba_nnunet import cli, trainers
from swin_umamba_nnunet.models import adapt_checkpoint
from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.networks import SwinUMambaD
from tests.commands import printed
from tests.messages import raises
from tests.models.conftest import CHECKPOINT, DATASET, network_of, old_plans

D = "nnUNetTrainerSwinUMambaD"
NAMES = ["nnUNetTrainerSwinUMambaScratch", "nnUNetTrainerSwinUMambaD", "nnUNetTrainerUMambaBot", "nnUNetTrainerVMUNet"]

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture
def checkpoint(trained):
    """A function (trainer, channels, **changes) -> (network, file) of a training."""

    def write(name=D, channels=1, **changes):
        network, folder = trained(name, channels, **changes)
        return network, folder / CHECKPOINT

    return write


@pytest.fixture
def refused(checkpoint, tmp_path):
    """A function (*facts, channels=, **changes): such a checkpoint is refused, by its name, and nothing is written."""

    def refused(*facts, channels=3, **changes):
        _, file = checkpoint(**changes)
        with raises(ModelError, *facts, file if channels else ""):
            adapt_checkpoint(file, channels, tmp_path / "refused.pth")
        assert not (tmp_path / "refused.pth").exists()

    return refused


@pytest.mark.parametrize(
    ("name", "before", "after"), [*((name, 1, 2) for name in NAMES), (D, 2, 4), (D, 4, 1), (NAMES[-1], 4, 1)]
)
def test_the_same_picture_in_every_channel_gives_the_same_output(name, before, after, checkpoint, tmp_path):
    network, file = checkpoint(name, before)
    done = adapt_checkpoint(file, after, tmp_path / "new.pth")
    assert (done.channels, done.trainer) == ((before, after), name)
    assert len(done.adapted) == sum(
        a.shape != b.shape
        for a, b in zip(network.state_dict().values(), network_of(name, after).state_dict().values(), strict=True)
    )
    new = network_of(name, after, heads=7)
    load_pretrained_weights(new, str(tmp_path / "new.pth"))  # nnU-Net's; another number of classes does not matter
    new.decoder.seg_layers = network.decoder.seg_layers
    new.num_classes = 4
    image = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        ours, theirs = (net(image.expand(-1, n, -1, -1)) for net, n in ((new, after), (network, before)))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_refusals(refused, checkpoint, tmp_path):
    refused("for images of 1 channels already", channels=1)
    refused("at least one channel", channels=0)
    refused(" nnUNetTrainer ", "swin-umamba list", trainer_name="nnUNetTrainer")
    refused("does not fit the SwinUMambaD", "encoder.", network_weights={"a": torch.zeros(1)})
    cascade = old_plans((32, 40), 4)
    cascade["configurations"]["2d"]["previous_stage"] = "2d_lowres"
    arguments = {"plans": cascade, "configuration": "2d", "dataset_json": DATASET}
    refused("masks of 2d_lowres", "adapt a checkpoint of 2d_lowres", init_args=arguments)
    network, file = checkpoint()
    weights, key = network.state_dict(), "encoder.patch_embed.norm.bias"
    zeros = torch.zeros_like(weights[key])
    for odd in (zeros + torch.nan, zeros.to(torch.int64), zeros.to("meta")):
        refused(" holds ", key, network_weights=weights | {key: odd})
    torch.save({"network_weights": {"a": torch.zeros(1)}}, file)
    with raises(ModelError, "not from an nnU-Net training"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")


OWN_TRAINERS = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import ones
from torch.nn import BatchNorm2d, Parameter
from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaD
class nnUNetTrainerMine(nnUNetTrainerSwinUMambaD):
    network_settings = {'width': 48}
class nnUNetTrainerWithBatchNorm(nnUNetTrainerSwinUMambaD):
    @staticmethod
    def build_network_architecture(*arguments):
        network = nnUNetTrainerSwinUMambaD.build_network_architecture(*arguments)
        network.bn = BatchNorm2d(5)
        return network
class nnUNetTrainerWithAScalePerChannel(nnUNetTrainerSwinUMambaD):
    @staticmethod
    def build_network_architecture(*arguments):
        network = nnUNetTrainerSwinUMambaD.build_network_architecture(*arguments)
        network.scale = Parameter(ones(arguments[2]))
        return network
class nnUNetTrainerOfAnotherKind(nnUNetTrainer):
    pass
"""


@pytest.fixture
def own_trainers(tmp_path, monkeypatch):
    """A folder of the user's, with the trainers that README shows how to write."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "my_adapted_trainers.py").write_text(OWN_TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return folder


def test_trainers_of_the_users_own(own_trainers, refused, checkpoint, tmp_path):
    network = SwinUMambaD(1, 4, **{**trainers.nnUNetTrainerSwinUMambaD.network_settings, "width": 48})
    _, file = checkpoint(network_weights=network.state_dict(), trainer_name="nnUNetTrainerMine")
    done = adapt_checkpoint(file, 3, tmp_path / "new.pth")
    assert (done.trainer, done.channels) == ("nnUNetTrainerMine", (1, 3))
    weights = torch.load(done.output, weights_only=True)["network_weights"]
    assert weights["encoder.patch_embed.proj.weight"].shape == (48, 3, 4, 4)
    other = "nnUNetTrainerOfAnotherKind"
    refused(other, "swin-umamba list", trainer_name=other)
    (own_trainers / "a_broken_one.py").write_text("def :\n")
    nowhere = "nnUNetTrainerNowhere"
    refused(nowhere, "a_broken_one.py, line 1", trainer_name=nowhere)


def test_counters_of_the_users_own_network(own_trainers, refused, checkpoint, tmp_path):
    """BatchNorm counts batches in int64; what is no counter in the network may still be no integer."""
    network = network_of(D)
    network.bn = torch.nn.BatchNorm2d(5)
    network.bn.num_batches_tracked += 7
    weights, name = network.state_dict(), "nnUNetTrainerWithBatchNorm"
    _, file = checkpoint(trainer_name=name, network_weights=weights)
    done = adapt_checkpoint(file, 3, tmp_path / "new.pth")
    kept = torch.load(done.output, weights_only=True)["network_weights"]["bn.num_batches_tracked"]
    assert (kept.item(), kept.dtype) == (7, torch.int64)
    odd = {"bn.num_batches_tracked": torch.tensor(7.0), "bn.weight": torch.ones(5, dtype=torch.int64)}
    for key, tensor in odd.items():
        changed = weights | {key: tensor}
        refused(f" holds {key} as a tensor of {tensor.dtype}", trainer_name=name, network_weights=changed)


def test_a_number_per_channel_cannot_be_adapted(own_trainers, checkpoint, tmp_path):
    weights = network_of(D).state_dict() | {"scale": torch.ones(1)}
    name = "nnUNetTrainerWithAScalePerChannel"
    _, file = checkpoint(trainer_name=name, network_weights=weights)
    with raises(ModelError, name, "3 channels", "(scale)"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")


@pytest.mark.parametrize("name", [torch.zeros(3), None, 3, ["nnUNetTrainerSwinUMambaD"], torch.ones(()).expand(10**9)])
def test_a_trainer_that_is_no_name(name, refused):
    refused(f" names its trainer by a {type(name).__name__}", trainer_name=name)


def test_the_verb_never_overwrites(checkpoint, tmp_path, capsys):
    _, file = checkpoint()
    tmp_path = tmp_path / "it's here"
    command = ["model", "adapt", str(file), "--channels", "3", "-o", str(tmp_path / "new.pth")]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "-pretrained_weights" in text
    (train,) = printed(text, "nnUNetv2_train")
    assert (train.configuration, train.tr) == ("2d", "nnUNetTrainerSwinUMambaD")
    assert train.pretrained_weights == str(tmp_path / "new.pth")
    before = (tmp_path / "new.pth").read_bytes()
    assert cli.main(command) == 2
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "new.pth").read_bytes() == before
