"""Checkpoints for another number of channels, as nnU-Net's own loader of pretrained weights takes them."""

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import cli, trainers
from swin_umamba_nnunet.models import adapt_checkpoint
from swin_umamba_nnunet.models.building import modern_plans
from swin_umamba_nnunet.models.checkpoints import ModelError
from tests.commands import printed
from tests.models.conftest import DATASET, old_plans

NAMES = ["nnUNetTrainerSwinUMambaScratch", "nnUNetTrainerSwinUMambaD", "nnUNetTrainerUMambaBot", "nnUNetTrainerVMUNet"]


def network_of(name: str, channels: int, heads: int = 4) -> torch.nn.Module:
    manager = PlansManager(modern_plans(old_plans((32, 32), 4), "here"))
    torch.manual_seed(0)
    build = getattr(trainers, name).build_network_architecture
    return build(manager, manager.get_configuration("2d"), channels, heads, False).eval()


@pytest.fixture
def checkpoint(tmp_path):
    """A function (trainer, channels) -> (network, file) of a training."""

    def write(name: str, channels: int = 1, **changes):
        network = network_of(name, channels)
        dataset = {**DATASET, "channel_names": {str(i): "MR" for i in range(channels)}}
        content = {
            "network_weights": network.state_dict(), "trainer_name": name,
            "init_args": {"plans": old_plans((32, 32), 4), "configuration": "2d", "dataset_json": dataset},
        }  # fmt: skip
        torch.save(content | changes, tmp_path / "old.pth")
        return network, tmp_path / "old.pth"

    return write


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1)])
def test_the_same_picture_in_every_channel_gives_the_same_output(name, before, after, checkpoint, tmp_path):
    network, file = checkpoint(name, before)
    done = adapt_checkpoint(file, after, tmp_path / "new.pth")
    assert (done.channels, done.heads, done.trainer) == ((before, after), 4, name)
    assert len(done.adapted) == sum(
        a.shape != b.shape
        for a, b in zip(network.state_dict().values(), network_of(name, after).state_dict().values(), strict=True)
    )
    new = network_of(name, after, heads=7)
    load_pretrained_weights(new, str(tmp_path / "new.pth"))  # nnU-Net's; another number of classes does not matter
    new.decoder.seg_layers = network.decoder.seg_layers
    new.num_classes = 4
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        ours, theirs = (net(image.expand(-1, n, -1, -1)) for net, n in ((new, after), (network, before)))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_refusals(checkpoint, tmp_path):
    _, file = checkpoint("nnUNetTrainerSwinUMambaD")
    for channels, match in ((1, "for images of 1 channels already"), (0, "at least one channel")):
        with pytest.raises(ModelError, match=match):
            adapt_checkpoint(file, channels, tmp_path / "new.pth")
    checkpoint("nnUNetTrainerSwinUMambaD", trainer_name="nnUNetTrainer")
    with pytest.raises(ModelError, match="no trainer called 'nnUNetTrainer'"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")
    checkpoint("nnUNetTrainerSwinUMambaD", network_weights={"a": torch.zeros(1)})
    with pytest.raises(ModelError, match="does not fit the network"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")
    network, _ = checkpoint("nnUNetTrainerSwinUMambaD")
    weights, key = network.state_dict(), "encoder.patch_embed.norm.bias"
    for odd in (torch.full((96,), torch.nan), torch.zeros(96, dtype=torch.int64), torch.zeros(96, device="meta")):
        checkpoint("nnUNetTrainerSwinUMambaD", network_weights=weights | {key: odd})
        with pytest.raises(ModelError, match=f"{file} holds .*{key}"):
            adapt_checkpoint(file, 3, tmp_path / "new.pth")
    torch.save({"network_weights": {"a": torch.zeros(1)}}, file)
    with pytest.raises(ModelError, match="not from an nnU-Net training"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")
    assert not (tmp_path / "new.pth").exists()


@pytest.fixture
def own_trainers(tmp_path, monkeypatch):
    """A folder of the user's, with the trainers that README shows how to write."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "my_adapted_trainers.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "from torch.nn import BatchNorm2d\n"
        "from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaD\n"
        "class nnUNetTrainerMine(nnUNetTrainerSwinUMambaD):\n"
        "    network_settings = {'width': 48}\n"
        "class nnUNetTrainerWithBatchNorm(nnUNetTrainerSwinUMambaD):\n"
        "    @staticmethod\n"
        "    def build_network_architecture(*arguments):\n"
        "        network = nnUNetTrainerSwinUMambaD.build_network_architecture(*arguments)\n"
        "        network.bn = BatchNorm2d(5)\n"
        "        return network\n"
        "class nnUNetTrainerOfAnotherKind(nnUNetTrainer):\n"
        "    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return folder


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
def test_trainers_of_the_users_own(own_trainers, checkpoint, tmp_path):
    trainer = type("nnUNetTrainerMine", (trainers.nnUNetTrainerSwinUMambaD,), {"network_settings": {"width": 48}})
    manager = PlansManager(modern_plans(old_plans((32, 32), 4), "here"))
    network = trainer.build_network_architecture(manager, manager.get_configuration("2d"), 1, 4, False)
    settings = {"network_weights": network.state_dict(), "trainer_name": "nnUNetTrainerMine"}
    _, file = checkpoint("nnUNetTrainerSwinUMambaD", **settings)
    done = adapt_checkpoint(file, 3, tmp_path / "new.pth")
    assert (done.trainer, done.channels) == ("nnUNetTrainerMine", (1, 3))
    weights = torch.load(done.output, weights_only=True)["network_weights"]
    assert weights["encoder.patch_embed.proj.weight"].shape == (48, 3, 4, 4)
    checkpoint("nnUNetTrainerSwinUMambaD", trainer_name="nnUNetTrainerOfAnotherKind")
    with pytest.raises(ModelError, match=r"old.pth: this package has no trainer called 'nnUNetTrainerOfAnotherKind'"):
        adapt_checkpoint(file, 3, tmp_path / "other.pth")
    (own_trainers / "a_broken_one.py").write_text("def :\n")
    checkpoint("nnUNetTrainerSwinUMambaD", trainer_name="nnUNetTrainerNowhere")
    with pytest.raises(ModelError, match=r"'nnUNetTrainerNowhere'.*a_broken_one.py, line 1"):
        adapt_checkpoint(file, 3, tmp_path / "other.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
def test_counters_of_the_users_own_network(own_trainers, checkpoint, tmp_path):
    """BatchNorm counts batches in int64; what is no counter in the network may still be no integer."""
    network = network_of("nnUNetTrainerSwinUMambaD", 1)
    network.bn = torch.nn.BatchNorm2d(5)
    network.bn.num_batches_tracked += 7
    weights, name = network.state_dict(), "nnUNetTrainerWithBatchNorm"
    _, file = checkpoint("nnUNetTrainerSwinUMambaD", trainer_name=name, network_weights=weights)
    done = adapt_checkpoint(file, 3, tmp_path / "new.pth")
    kept = torch.load(done.output, weights_only=True)["network_weights"]["bn.num_batches_tracked"]
    assert (kept.item(), kept.dtype) == (7, torch.int64)
    odd = {"bn.num_batches_tracked": torch.tensor(7.0), "bn.weight": torch.ones(5, dtype=torch.int64)}
    for key, tensor in odd.items():
        checkpoint("nnUNetTrainerSwinUMambaD", trainer_name=name, network_weights=weights | {key: tensor})
        with pytest.raises(ModelError, match=f"{file} holds {key} as a tensor of {tensor.dtype}"):
            adapt_checkpoint(file, 3, tmp_path / "other.pth")


@pytest.mark.parametrize("name", [torch.zeros(3), None, 3, ["nnUNetTrainerSwinUMambaD"], torch.ones(()).expand(10**9)])
def test_a_trainer_that_is_no_name(name, checkpoint, tmp_path):
    _, file = checkpoint("nnUNetTrainerSwinUMambaD", trainer_name=name)
    with pytest.raises(ModelError, match=f"{file} names its trainer by a {type(name).__name__}"):
        adapt_checkpoint(file, 3, tmp_path / "new.pth")


def test_the_verb_never_overwrites(checkpoint, tmp_path, capsys):
    _, file = checkpoint("nnUNetTrainerSwinUMambaD")
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
