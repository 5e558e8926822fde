"""What nnU-Net asks of a trainer, and the recipe."""

import inspect
import math

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.blocks.ss2d import SS2D
from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.ops import BackendUnavailableError, _select
from swin_umamba_nnunet.trainers.base import target_scales
from tests.trainers.conftest import DATASET, make_plans, tiny

LEAVES = [
    "nnUNetTrainerSwinUMamba",
    "nnUNetTrainerSwinUMambaD",
    "nnUNetTrainerSwinUMambaScratch",
    "nnUNetTrainerSwinUMambaDScratch",
]


@pytest.mark.parametrize("name", LEAVES)
def test_one_adamw_group_with_every_parameter(name, make_trainer):
    trainer = make_trainer(tiny(name))
    trainer.initialize()
    (group,) = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (1e-4, (0.9, 0.999), 1e-5, 0.05)
    assert {id(p) for p in group["params"]} == {id(p) for p in trainer.network.parameters()}


def test_learning_rate_is_set_when_an_epoch_starts(make_trainer):
    trainer = make_trainer(tiny("nnUNetTrainerSwinUMambaDScratch"))
    trainer.initialize()
    trainer.current_epoch = 250
    trainer.on_train_epoch_start()
    expected = 1e-6 + (1e-4 - 1e-6) * (1 + math.cos(math.pi / 4)) / 2
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
    assert trainer.logger.get_value("lrs", step=-1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LEAVES)
def test_deep_supervision_is_on_but_for_dagger_from_scratch(name, make_trainer):
    trainer = make_trainer(tiny(name))
    trainer.initialize()
    on = name != "nnUNetTrainerSwinUMambaDScratch"
    assert trainer.enable_deep_supervision is on
    assert trainer.network.decoder.deep_supervision is on
    assert isinstance(trainer.loss, DeepSupervisionWrapper) is on
    if on:
        assert trainer.loss.weight_factors == pytest.approx((4 / 7, 2 / 7, 1 / 7, 0))


def test_heads_without_a_loss_ask_for_no_gradient(make_trainer, batch):
    trainer = make_trainer(tiny("nnUNetTrainerSwinUMambaDScratch"))
    trainer.initialize()
    trainer.train_step(batch(trainer))
    waiting = [n for n, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert waiting == []  # DistributedDataParallel would wait for these
    assert not any(p.requires_grad for p in trainer.network.decoder.seg_layers[0].parameters())
    assert all(p.requires_grad for p in trainer.network.decoder.seg_layers[-1].parameters())


@pytest.mark.parametrize(("name", "strides"), [(LEAVES[0], (1, 2, 4, 8)), (LEAVES[1], (1, 4, 8, 16))])
@pytest.mark.parametrize("patch", [(64, 32), (33, 50), (1, 7), (100, 1)])
def test_targets_have_the_size_of_the_logits(name, strides, patch, make_trainer, batch):
    trainer = make_trainer(tiny(name), patch)
    scales = trainer._get_deep_supervision_scales()  # before there is a network
    trainer.initialize()
    assert scales == trainer._get_deep_supervision_scales()
    targets = batch(trainer)["target"]
    assert [tuple(t.shape[2:]) for t in targets] == [tuple(-(-n // s) for n in patch) for s in strides]
    with torch.no_grad():
        logits = trainer.network(torch.zeros(1, 1, *patch))
    assert [t.shape[2:] for t in targets] == [y.shape[2:] for y in logits]
    if min(patch) > 8:
        assert torch.isfinite(trainer.loss(trainer.network(torch.zeros(2, 1, *patch)), targets))


def test_scales_are_exact_where_the_stride_divides_the_patch():
    assert target_scales((64, 96), (1, 2, 8)) == [[1, 1], [0.5, 0.5], [0.125, 0.125]]


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16, 32])
def test_scales_give_the_heads_size_for_every_patch_size(stride):
    for size in range(1, 700):
        ((factor, _),) = target_scales((size, size), (stride,))
        assert round(size * factor) == math.ceil(size / stride)


def test_validation_step_takes_an_odd_patch(make_trainer, batch):
    trainer = make_trainer(tiny(LEAVES[1]), (33, 50))
    trainer.initialize()
    with torch.no_grad():
        result = trainer.validation_step(batch(trainer))
    assert len(result["tp_hard"]) == 2


def test_class_attributes_take_precedence_over_nnunets_values(make_trainer):
    settings = {
        "num_epochs": 3, "num_iterations_per_epoch": 7, "num_val_iterations_per_epoch": 2, "save_every": 1,
        "initial_lr": 5e-4, "weight_decay": 0.5,
    }  # fmt: skip
    trainer = make_trainer(tiny(LEAVES[3], **settings))
    assert {key: getattr(trainer, key) for key in settings} == settings
    assert make_trainer(tiny(LEAVES[3])).num_iterations_per_epoch == 250
    assert make_trainer(tiny(LEAVES[3])).num_epochs == 1000


def test_assigning_after_init_works_as_in_nnunets_own_trainers(make_trainer):
    class Mine(tiny(LEAVES[3])):
        def __init__(self, plans, configuration, fold, dataset_json, device=None):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = 20

    trainer = make_trainer(Mine)
    trainer.initialize()
    assert trainer.lr_scheduler.num_epochs == 20


@pytest.mark.parametrize("name", trainers.__all__)
def test_signatures_are_nnunets(name):
    trainer = getattr(trainers, name)
    assert list(inspect.signature(trainer.__init__).parameters) == list(
        inspect.signature(nnUNetTrainer.__init__).parameters
    )
    assert list(inspect.signature(trainer.build_network_architecture).parameters) == list(
        inspect.signature(nnUNetTrainer.build_network_architecture).parameters
    )


def test_init_arguments_are_kept_for_the_checkpoint(make_trainer):
    kept = make_trainer(tiny(LEAVES[3])).my_init_kwargs
    assert sorted(kept) == ["configuration", "dataset_json", "device", "fold", "plans"]
    assert kept["configuration"] == "2d"


def test_the_network_is_built_on_the_class_and_touches_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIN_UMAMBA_WEIGHTS", str(tmp_path / "not there"))
    monkeypatch.chdir(tmp_path)
    plans = PlansManager(make_plans())
    build = tiny(LEAVES[0]).build_network_architecture
    network = build(plans, plans.get_configuration("2d"), 3, 5, enable_deep_supervision=False)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)
    assert len(build(plans, plans.get_configuration("2d"), 3, 5)(torch.zeros(1, 3, 32, 32))) == 4
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="3D patches"):
        build(plans, plans.get_configuration("3d_fullres"), 3, 5)


@pytest.mark.parametrize(
    ("patch", "configuration", "message"),
    [
        ((32, 32), "3d_fullres", r"'3d_fullres' has 3D patches \(16, 32, 32\); choose a 2D configuration"),
        ((0, 32), "2d", r"patch size of the configuration '2d' is \(0, 32\)"),
    ],
)
def test_refuses_a_configuration_before_writing(patch, configuration, message, make_trainer, nnunet_folders):
    with pytest.raises(ValueError, match=message):
        make_trainer(trainers.nnUNetTrainerSwinUMamba, patch, configuration)
    assert list((nnunet_folders / "nnUNet_results").iterdir()) == []


@pytest.mark.parametrize(("device", "gpu"), [("cuda", "torch.cuda"), ("mps", "torch.backends.mps")])
def test_refuses_a_device_that_is_not_there(device, gpu, make_trainer, nnunet_folders, monkeypatch):
    monkeypatch.setattr(f"{gpu}.is_available", lambda: False)
    with pytest.raises(RuntimeError, match=f"-device {device}.*add -device cpu"):
        make_trainer(trainers.nnUNetTrainerSwinUMambaDScratch, device=device)
    assert list((nnunet_folders / "nnUNet_results").iterdir()) == []


def test_refuses_a_backend_that_cannot_run(make_trainer, nnunet_folders, monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "triton")
    monkeypatch.setattr(_select, "unavailable_reason", lambda name, device: "no GPU")
    with pytest.raises(BackendUnavailableError, match="triton"):
        make_trainer(trainers.nnUNetTrainerSwinUMambaDScratch)
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "no such thing")
    with pytest.raises(ValueError, match="no such thing"):
        make_trainer(trainers.nnUNetTrainerSwinUMambaDScratch)
    assert list((nnunet_folders / "nnUNet_results").iterdir()) == []


def test_refuses_a_backend_in_the_settings_that_cannot_run(make_trainer, nnunet_folders, monkeypatch):
    monkeypatch.setattr(_select, "unavailable_reason", lambda name, device: "no GPU" if name == "triton" else None)
    for backend, error in (("triton", BackendUnavailableError), ("no such thing", ValueError)):
        with pytest.raises(error, match=backend):
            make_trainer(tiny(LEAVES[3], network_settings={"backend": backend}))
    assert list((nnunet_folders / "nnUNet_results").iterdir()) == []


@pytest.mark.parametrize("in_settings", [False, True])
@pytest.mark.parametrize("backend", ["numba", "portable", "reference"])
def test_the_backend_is_in_nnunets_log(backend, in_settings, make_trainer, monkeypatch):
    other = "reference" if backend == "numba" else "numba"
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", other if in_settings else backend)
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    trainer_class = tiny(LEAVES[3])
    if in_settings:  # they win over the environment
        trainer_class.network_settings["backend"] = backend
    trainer = make_trainer(trainer_class)
    trainer.on_train_start()
    trainer.initialize()
    assert {part.backend or backend for part in trainer.network.modules() if isinstance(part, SS2D)} == {backend}
    with open(trainer.log_file) as file:
        log = file.read()
    assert log.count(f"Selective scan backend on cpu: {backend}") == 1
    assert ("hundreds of times slower" in log) is (backend != "numba")


def test_deep_supervision_is_switched_in_a_compiled_network(make_trainer):
    trainer = make_trainer(tiny(LEAVES[1]))
    trainer.initialize()
    bare = trainer.network
    trainer.network = torch.compile(bare, backend="eager")
    assert unwrap(trainer.network) is bare
    trainer.set_deep_supervision_enabled(False)
    assert bare.decoder.deep_supervision is False
    assert trainer._get_deep_supervision_scales()[0] == [1, 1]


def test_regions_and_more_channels(nnunet_folders):
    dataset = {
        **DATASET,
        "channel_names": {"0": "r", "1": "g", "2": "b"},
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
    }
    trainer = tiny(LEAVES[0])(make_plans(), "2d", 0, dataset, torch.device("cpu"))
    trainer.initialize()
    assert trainer.network(torch.zeros(1, 3, 32, 32))[0].shape == (1, 2, 32, 32)


@pytest.mark.parametrize(
    ("parent", "kept"),
    [("nnUNetTrainerSwinUMambaDNoScan", {"mixing": "skip"}), ("nnUNetTrainerUMambaEncNoMamba", {"mamba": False}),
     ("nnUNetTrainerUMambaBotPaper", {"release": "2024-01"}), ("nnUNetTrainerSwinUMambaD", {})],
)  # fmt: skip
def test_a_subclass_keeps_the_settings_of_its_parent(parent, kept):
    base = getattr(trainers, parent)
    mine = type("Mine", (base,), {"network_settings": {"gradient_checkpointing": True}})
    assert mine.all_network_settings() == {**base.all_network_settings(), "gradient_checkpointing": True}
    assert kept.items() <= mine.all_network_settings().items()
    assert mine.scans() is base.scans()


def test_a_control_without_scans_needs_no_backend(make_trainer, monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "triton")
    monkeypatch.setattr(_select, "unavailable_reason", lambda name, device: "no GPU")
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)
    trainer = make_trainer(tiny("nnUNetTrainerSwinUMambaDNoScanScratch"))
    trainer.on_train_start()
    with open(trainer.log_file) as file:
        assert "it is a control" in file.read()
