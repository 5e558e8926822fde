"""What nnU-Net asks of a trainer, and what is refused before it starts."""

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.blocks.ss2d import SS2D
from swin_umamba_nnunet.networks._base import unwrap
from swin_umamba_nnunet.ops import BackendUnavailableError, _select
from tests.messages import raises
from tests.trainers.conftest import log_of, make_plans, tiny

SWIN, DAGGER, SCRATCH = (f"nnUNetTrainerSwinUMamba{end}" for end in ("", "D", "DScratch"))


def test_class_attributes_take_precedence_over_nnunets_values(make_trainer):
    settings = {
        "num_epochs": 3,
        "num_iterations_per_epoch": 7,
        "num_val_iterations_per_epoch": 2,
        "save_every": 1,
        "initial_lr": 5e-4,
        "weight_decay": 0.5,
    }
    trainer = make_trainer(tiny(SCRATCH, **settings))
    assert {key: getattr(trainer, key) for key in settings} == settings
    assert make_trainer(tiny(SCRATCH)).num_iterations_per_epoch == 250


def test_assigning_after_init_works_as_in_nnunets_own_trainers(make_trainer):
    class Mine(tiny(SCRATCH)):
        def __init__(self, plans, configuration, fold, dataset_json, device=None):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = 20

    trainer = make_trainer(Mine)
    trainer.initialize()
    assert trainer.lr_scheduler.num_epochs == 20


def test_the_network_is_built_on_the_class_and_touches_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWIN_UMAMBA_WEIGHTS", str(tmp_path / "not there"))
    monkeypatch.chdir(tmp_path)
    plans = PlansManager(make_plans())
    build = tiny(SWIN).build_network_architecture
    network = build(plans, plans.get_configuration("2d"), 3, 5, enable_deep_supervision=False)
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)
    assert len(build(plans, plans.get_configuration("2d"), 3, 5)(torch.zeros(1, 3, 32, 32))) == 4
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []
    with raises(ValueError, "3D patches"):
        build(plans, plans.get_configuration("3d_fullres"), 3, 5)


@pytest.mark.parametrize(
    ("name", "patch", "configuration", "facts"),
    [
        (SWIN, (16, 32, 32), "3d_fullres", ("'3d_fullres' has 3D patches (16, 32, 32)", "choose a 2D")),
        ("nnUNetTrainerVMUNet", (16, 32, 32), "3d_fullres", ("3D patches", "nnUNetv2_train DATASET 2d FOLD")),
        (SWIN, (0, 32), "2d", ("patch size", "'2d' is (0, 32)")),
        ("nnUNetTrainerUMambaBot", (8, 8, 8, 8), "2d", ("2D and 3D", "4D", "(8, 8, 8, 8)")),
    ],
)
def test_refuses_a_configuration_before_writing(name, patch, configuration, facts, make_trainer, writes_nothing):
    with raises(ValueError, *facts):
        make_trainer(getattr(trainers, name), patch, configuration)


@pytest.mark.parametrize(("device", "gpu"), [("cuda", "torch.cuda"), ("mps", "torch.backends.mps")])
def test_refuses_a_device_that_is_not_there(device, gpu, make_trainer, writes_nothing, monkeypatch):
    monkeypatch.setattr(f"{gpu}.is_available", lambda: False)
    with pytest.raises(RuntimeError, match=f"-device {device}.*add -device cpu"):
        make_trainer(trainers.nnUNetTrainerSwinUMambaDScratch, device=device)


in_settings_or_environment = pytest.mark.parametrize("in_settings", [False, True])


@in_settings_or_environment
@pytest.mark.parametrize(("backend", "error"), [("triton", BackendUnavailableError), ("no such thing", ValueError)])
def test_refuses_a_backend_that_cannot_run(backend, error, in_settings, make_trainer, writes_nothing, monkeypatch):
    monkeypatch.setattr(_select, "unavailable_reason", lambda name, device: "no GPU" if name == "triton" else None)
    if not in_settings:
        monkeypatch.setenv("SWIN_UMAMBA_BACKEND", backend)
    with pytest.raises(error, match=backend):
        make_trainer(tiny(SCRATCH, network_settings={"backend": backend} if in_settings else {}))


@in_settings_or_environment
@pytest.mark.parametrize("backend", ["numba", "portable", "reference"])
def test_the_backend_is_in_nnunets_log(backend, in_settings, make_trainer, monkeypatch, no_start):
    other = "reference" if backend == "numba" else "numba"
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", other if in_settings else backend)
    trainer_class = tiny(SCRATCH)
    if in_settings:  # they win over the environment
        trainer_class.network_settings["backend"] = backend
    trainer = make_trainer(trainer_class)
    trainer.on_train_start()
    trainer.initialize()
    assert {part.backend or backend for part in trainer.network.modules() if isinstance(part, SS2D)} == {backend}
    log = log_of(trainer)
    assert log.count(f"Selective scan backend on cpu: {backend}") == 1
    assert ("hundreds of times slower" in log) is (backend != "numba")


def test_deep_supervision_is_switched_in_a_compiled_network(ready):
    trainer = ready(DAGGER)
    bare = trainer.network
    trainer.network = torch.compile(bare, backend="eager")
    assert unwrap(trainer.network) is bare
    trainer.set_deep_supervision_enabled(False)
    assert bare.decoder.deep_supervision is False
    assert trainer._get_deep_supervision_scales()[0] == [1, 1]


@pytest.mark.parametrize(
    ("parent", "kept"),
    [
        ("nnUNetTrainerSwinUMambaDNoScan", {"mixing": "skip"}),
        ("nnUNetTrainerUMambaEncNoMamba", {"mamba": False}),
        ("nnUNetTrainerUMambaBotPaper", {"release": "2024-01"}),
        ("nnUNetTrainerSwinUMambaD", {}),
    ],
)
def test_a_subclass_keeps_the_settings_of_its_parent(parent, kept):
    base = getattr(trainers, parent)
    mine = type("Mine", (base,), {"network_settings": {"gradient_checkpointing": True}})
    assert mine.all_network_settings() == {**base.all_network_settings(), "gradient_checkpointing": True}
    assert kept.items() <= mine.all_network_settings().items()
    assert mine.scans() is base.scans()


def test_a_control_without_scans_needs_no_backend(make_trainer, monkeypatch, no_start):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "triton")
    monkeypatch.setattr(_select, "unavailable_reason", lambda name, device: "no GPU")
    trainer = make_trainer(tiny("nnUNetTrainerSwinUMambaDNoScanScratch"))
    trainer.on_train_start()
    assert "it is a control" in log_of(trainer)
