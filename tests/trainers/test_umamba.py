"""U-Mamba's trainers: networks from plans, nnU-Net's recipe untouched."""

import copy

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.blocks import Mamba
from swin_umamba_nnunet.catalogue import LengthRecord
from swin_umamba_nnunet.networks import UMambaBot, UMambaEnc
from swin_umamba_nnunet.trainers.generated import make_length_variant
from tests.messages import naming
from tests.trainers.conftest import DATASET, make_plans

LEAVES = {
    "nnUNetTrainerUMambaBot": (UMambaBot, 1),
    "nnUNetTrainerUMambaEnc": (UMambaEnc, 2),
    "nnUNetTrainerUMambaBotPaper": (UMambaBot, 1),
    "nnUNetTrainerUMambaEncPaper": (UMambaEnc, 3),
    "nnUNetTrainerUMambaBotNoMamba": (UMambaBot, 0),
    "nnUNetTrainerUMambaEncNoMamba": (UMambaEnc, 0),
}  # network, Mamba layers of three 2D stages
UNET = "dynamic_network_architectures.architectures.unet."
STRIDES = {2: [[1, 1], [2, 2], [2, 2]], 3: [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}


def plans_of_a_unet(patch=(32, 32), configuration="2d", **changes) -> dict:
    """Plans as nnU-Net's planner writes them, for three narrow stages."""
    axes = len(patch)
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[3] * axes] * 3,
        "strides": STRIDES[axes],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    } | changes
    plans = make_plans()
    plans["configurations"][configuration] |= {
        "patch_size": list(patch),
        "architecture": {
            "network_class_name": UNET + "PlainConvUNet",
            "arch_kwargs": {key: value for key, value in kwargs.items() if value != "absent"},
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return plans


@pytest.fixture
def trainer_of(nnunet_folders):
    """A function (name or class, plans=, configuration=) -> trainer on a CPU, initialised."""

    def make(trainer, plans=None, configuration="2d"):
        trainer_class = getattr(trainers, trainer) if isinstance(trainer, str) else trainer
        plans = plans or plans_of_a_unet()
        made = trainer_class(plans, configuration, 0, DATASET, torch.device("cpu"))
        made.initialize()
        return made

    return make


@pytest.mark.parametrize("name", LEAVES)
def test_network_and_recipe(name, trainer_of):
    cls, layers = LEAVES[name]
    trainer = trainer_of(name)
    assert type(trainer.network) is cls
    assert sum(isinstance(part, Mamba) for part in trainer.network.modules()) == layers
    assert trainer.network.decoder.deep_supervision
    (group,) = trainer.optimizer.param_groups
    assert type(trainer.optimizer) is torch.optim.SGD
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (1e-2, 0.99, True, 3e-5)
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.network.parameters()}
    assert type(trainer.lr_scheduler) is PolyLRScheduler
    assert (trainer.num_epochs, trainer.lr_scheduler.max_steps) == (1000, 1000)
    stock = nnUNetTrainer(plans_of_a_unet(), "2d", 0, DATASET, torch.device("cpu"))
    stock.initialize()
    assert isinstance(trainer.loss, DeepSupervisionWrapper)
    assert trainer.loss.weight_factors == pytest.approx(stock.loss.weight_factors)
    assert trainer._get_deep_supervision_scales() == [list(map(float, s)) for s in stock._get_deep_supervision_scales()]


@pytest.mark.parametrize("name", LEAVES)
def test_a_step_changes_every_weight_that_has_a_gradient(name, trainer_of, batch):
    trainer = trainer_of(name)
    before = copy.deepcopy(trainer.network.state_dict())
    result = trainer.train_step(batch(trainer))
    assert np.isfinite(result["loss"])
    for key, parameter in trainer.network.named_parameters():
        if key.startswith("decoder.seg_layers.0."):  # nnU-Net's weight of the coarsest head is 0
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, key
        assert torch.equal(parameter, before[key]) == (not parameter.grad.any() and not before[key].any()), key
    with torch.no_grad():
        assert len(trainer.validation_step(batch(trainer, 1))["tp_hard"]) == 2


@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize(("patch", "configuration"), [((32, 32), "2d"), ((8, 16, 16), "3d_fullres")])
def test_plans_are_read_only(name, patch, configuration, trainer_of):
    plans = plans_of_a_unet(patch, configuration)
    before = copy.deepcopy(plans)
    trainer = trainer_of(name, plans, configuration)
    before.pop("continue_training")  # which nnU-Net takes out
    assert plans == before
    assert trainer.plans_manager.plans == before


@pytest.mark.parametrize("name", LEAVES)
def test_three_dimensions(name, trainer_of, batch):
    trainer = trainer_of(name, plans_of_a_unet((8, 16, 16), "3d_fullres"), "3d_fullres")
    assert trainer._get_deep_supervision_scales() == [[1, 1, 1], [1, 0.5, 0.5]]
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])


@pytest.mark.parametrize(
    ("patch", "configuration"), [((33, 50), "2d"), ((1, 7), "2d"), ((5, 17, 12), "3d_fullres"), ((64, 32), "2d")]
)
@pytest.mark.parametrize("name", ["nnUNetTrainerUMambaEnc", "nnUNetTrainerUMambaBotPaper"])
def test_targets_have_the_size_of_the_logits(name, patch, configuration, nnunet_folders, batch):
    plans = plans_of_a_unet(patch, configuration)
    trainer = getattr(trainers, name)(plans, configuration, 0, DATASET, torch.device("cpu"))
    scales = trainer._get_deep_supervision_scales()  # before there is a network
    trainer.initialize()
    assert scales == trainer._get_deep_supervision_scales()
    targets = batch(trainer)["target"]
    with torch.no_grad():
        logits = trainer.network(torch.zeros(1, 1, *patch))
    assert [t.shape[2:] for t in targets] == [y.shape[2:] for y in logits]


@pytest.mark.parametrize("name", LEAVES)
def test_the_network_of_a_prediction_takes_the_weights_of_a_training(name, trainer_of):
    trainer = trainer_of(name)
    plans = PlansManager(plans_of_a_unet())
    build = getattr(trainers, name).build_network_architecture
    network = build(plans, plans.get_configuration("2d"), 1, 3, enable_deep_supervision=False)
    network.load_state_dict(trainer.network.state_dict())
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), trainer.network(x)[0])


def test_without_deep_supervision_the_idle_heads_ask_for_no_gradient(trainer_of, batch):
    class Single(trainers.nnUNetTrainerUMambaBot):
        enable_deep_supervision = False

    trainer = trainer_of(Single)
    trainer.train_step(batch(trainer))
    assert [n for n, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["nnUNetTrainerUMambaBot", "nnUNetTrainerUMambaEncPaper"])
def test_plans_of_a_residual_encoder(name, trainer_of):
    """Their blocks count as U-Mamba's; the release of March 2024 has one in half of the stages all the same."""
    plans = plans_of_a_unet(n_conv_per_stage="absent", n_blocks_per_stage=[1, 3, 4], n_conv_per_stage_decoder=[1, 1])
    encoder = trainer_of(name, plans).network.encoder
    paper = name.endswith("Paper")
    assert [len(stage.blocks if paper else stage) for stage in encoder.stages] == ([1, 3, 4] if paper else [1, 3, 1])


def test_plans_for_another_network(trainer_of):
    plans = plans_of_a_unet(strides="absent", n_conv_per_stage="absent")
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "somewhere.MedNeXt"
    facts = naming("nnUNetTrainerUMambaEnc", "somewhere.MedNeXt", "strides, n_conv_per_stage", "use plans")
    with pytest.raises(ValueError, match=facts):
        trainer_of("nnUNetTrainerUMambaEnc", plans)


def test_a_checkpoint_of_enc_belongs_to_its_patch_size(trainer_of):
    """The last of 8 channels has 4 positions in patches of 8x8, so channels are the tokens, and 64 in 32x32."""
    small, large = (trainer_of("nnUNetTrainerUMambaEnc", plans_of_a_unet((n, n))).network for n in (8, 32))
    assert (small.tied_to_patch, large.tied_to_patch) == (True, False)
    with pytest.raises(RuntimeError, match="size mismatch for encoder.mamba_layers.2"):
        large.load_state_dict(small.state_dict())
    paper = [trainer_of("nnUNetTrainerUMambaEncPaper", plans_of_a_unet((n, n))).network for n in (8, 32)]
    paper[1].load_state_dict(paper[0].state_dict())


@pytest.mark.parametrize(("stops_early", "until"), [(False, 7), (True, 1000)])
def test_lengths(stops_early, until, trainer_of):
    """The polynomial falls to its end in a scaled variant, and over the whole length in one that stops early."""
    length = LengthRecord("_7epochs", 7, stops_early, "a test's")
    variant = make_length_variant(trainers.nnUNetTrainerUMambaBot, length, __name__, 1000)
    trainer = trainer_of(variant)
    assert (trainer.num_epochs, trainer.lr_scheduler.max_steps) == (7, until)
    trainer.current_epoch = 6
    trainer.on_train_epoch_start()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * (1 - 6 / until) ** 0.9)


def test_refuses_other_patches(trainer_of):
    plans = make_plans()
    plans["configurations"]["2d"]["patch_size"] = [8, 8, 8, 8]
    with pytest.raises(ValueError, match=naming("nnUNetTrainerUMambaBot", "2D and 3D", "4D", "(8, 8, 8, 8)")):
        trainer_of("nnUNetTrainerUMambaBot", plans)
