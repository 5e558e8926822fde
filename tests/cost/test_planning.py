"""Plans that fit a stated memory: which patch and batch are chosen, and whether the estimate is what a step takes."""

import json
from dataclasses import replace

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.profiler import ProfilerActivity, profile

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.cost import planning
from swin_umamba_nnunet.cost.planning import fit_plans, needed_bytes, smaller_patches
from swin_umamba_nnunet.cost.step_memory import StepMemory, step_memory
from swin_umamba_nnunet.cost.tasks import task_of_shape
from tests.messages import raises

GIB = 2**30


class Tiny(trainers.nnUNetTrainerSwinUMambaDScratch):
    """Quick to estimate."""

    network_settings = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}
    enable_deep_supervision = True


class TinyAdam(nnUNetTrainer):
    """A user's trainer with an optimiser of its own."""

    def configure_optimizers(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def task():
    """Patches of 192x256 in batches of 12."""
    task = task_of_shape((1, 192, 256), 3)
    task.plans["configurations"]["2d"]["batch_size"] = 12
    return task


def made_up(patch, batch, size=None):
    """A step of that size in bytes, by default 1 KiB for each pixel of the batch."""
    return StepMemory(batch, patch, 0, 0, 0, 0, patch[0] * patch[1] * batch * 1024 if size is None else size)


@pytest.fixture
def linear(monkeypatch):
    """A memory that is made up instead of the estimate, and the list of what was asked."""
    asked = []

    def memory(trainer, task, batch_size, half=True):
        asked.append((tuple(task.settings.patch_size), batch_size))
        return made_up(*asked[-1])

    monkeypatch.setattr(planning, "step_memory", memory)
    return asked


def gpu(patch, batch):
    """Bytes in which just that fits, with the memory of `linear`."""
    return needed_bytes(made_up(patch, batch))


def chosen(fit):
    settings = fit.task.settings
    assert fit.memory.patch_size == tuple(settings.patch_size)
    assert fit.memory.batch_size == settings.batch_size
    return fit.memory.patch_size, fit.memory.batch_size


@pytest.mark.parametrize("batch", [2, 3, 7, 11])
def test_the_batch_is_reduced_first(task, linear, batch):
    fit = fit_plans(Tiny, task, gpu((192, 256), batch))
    assert chosen(fit) == ((192, 256), batch)
    assert fit.changed
    assert len(linear) <= 6


@pytest.mark.parametrize(
    ("memory", "largest", "patch", "batch"),
    [
        (gpu((192, 224), 2), None, (192, 224), 2),  # then the patch by its longest axis
        (gpu((160, 192), 2), None, (160, 192), 2),
        (gpu((128, 128), 2), None, (128, 128), 2),
        (gpu((192, 256), 5) - 1, None, (192, 256), 4),  # one byte too few is too few
        (gpu((192, 256), 2) - 1, None, (192, 224), 2),
        (gpu((192, 256), 20), None, (192, 256), 12),  # the batch grows only where asked
        (gpu((192, 256), 20), 16, (192, 256), 16),
        (gpu((192, 256), 20), 100, (192, 256), 20),
        (gpu((192, 256), 20), 3, (192, 256), 12),
    ],
)
def test_patch_and_batch(task, linear, memory, largest, patch, batch):
    assert chosen(fit_plans(Tiny, task, memory, largest_batch=largest)) == (patch, batch)


def test_a_peak_that_bends_with_the_batch(task, monkeypatch):
    """The largest batch is found although the memory is the larger of two straight lines."""

    def memory(trainer, task, batch_size, half=True):
        size = max(100 + batch_size, 40 + 9 * batch_size) * 2**20
        return made_up(tuple(task.settings.patch_size), batch_size, size)

    monkeypatch.setattr(planning, "step_memory", memory)
    for batch in range(2, 12):
        available = needed_bytes(memory(None, task, batch))
        assert chosen(fit_plans(Tiny, task, available))[1] == batch
        assert chosen(fit_plans(Tiny, task, available + 2**19))[1] == batch


def test_what_never_fits_is_said_with_a_remedy(task, linear):
    with pytest.raises(ValueError, match=r"128 x 128.* 2 .*GiB.* --gradient-checkpointing"):
        fit_plans(Tiny, task, gpu((128, 128), 2) - 1)
    with raises(ValueError, "GiB; choose a smaller"):
        fit_plans(nnUNetTrainer, task, GIB)


def test_patches():
    assert smaller_patches((33, 50), (32, 32)) == [(33, 50)]
    assert smaller_patches((150, 129), (32, 32)) == [(150, 129), (128, 129), (128, 128)]
    assert smaller_patches((40, 32), (4, 16)) == [(40, 32), *((side, 32) for side in range(36, 15, -4))]


def test_plans_know_about_recomputation(task):
    plain = step_memory(Tiny, task, 2)
    fit = fit_plans(Tiny, task, 80 * GIB, recompute=True)
    less = step_memory(Tiny, fit.task, 2)
    assert less.forward_bytes < 0.8 * plain.forward_bytes
    assert less.peak_bytes < plain.peak_bytes
    arguments = (PlansManager(fit.task.plans), fit.task.settings, 1, 3)
    assert Tiny.build_network_architecture(*arguments).encoder.layers[0].gradient_checkpointing
    own = type("Own", (Tiny,), {"network_settings": {**Tiny.network_settings, "gradient_checkpointing": False}})
    assert not own.build_network_architecture(*arguments).encoder.layers[0].gradient_checkpointing
    with raises(ValueError, "--gradient-checkpointing"):
        fit_plans(nnUNetTrainer, task, 80 * GIB, recompute=True)


@pytest.mark.parametrize("name", ["SwinUMamba", "VMUNet", "SwinUMambaDV2", "UMambaEnc", "UMambaBotPaper"])
def test_every_network_takes_the_setting_from_the_plans(name):
    trainer = getattr(trainers, f"nnUNetTrainer{name}")
    task = task_of_shape((1, 64, 64), 2)
    task.plans["configurations"]["2d"]["gradient_checkpointing"] = True
    with torch.device("meta"):
        network = trainer.build_network_architecture(PlansManager(task.plans), task.settings, 1, 2)
    parts = [module for module in network.modules() if hasattr(module, "gradient_checkpointing")]
    assert parts
    assert all(part.gradient_checkpointing for part in parts)


def test_states_of_the_optimiser(task):
    small = replace(task, plans=task_of_shape((1, 32, 32), 3).plans)
    sgd, adam, mamba = (step_memory(trainer, small, 1) for trainer in (nnUNetTrainer, TinyAdam, Tiny))
    assert sgd.optimizer_bytes == sgd.gradient_bytes == sgd.parameter_bytes
    assert adam.optimizer_bytes == 2 * adam.gradient_bytes
    assert mamba.optimizer_bytes == 2 * mamba.gradient_bytes
    assert adam.peak_bytes - sgd.peak_bytes == sgd.gradient_bytes


def test_half_precision_and_heads_count(task):
    single, full = step_memory(Tiny, task, 2), step_memory(Tiny, task, 2, half=False)
    assert 0.4 * full.forward_bytes < single.forward_bytes < full.forward_bytes
    unsupervised = type("Unsupervised", (Tiny,), {"enable_deep_supervision": False})
    assert step_memory(unsupervised, task, 2).forward_bytes < single.forward_bytes
    with raises(ValueError, "at least 1"):
        step_memory(Tiny, task, 0)


# What a scan's kernel allocates for itself is not estimated; in a network this small, recomputing, it is a fifth.
@pytest.mark.parametrize(("recompute", "tolerance"), [(False, 0.1), (True, 0.25)])
def test_the_estimate_is_what_a_step_on_the_cpu_takes(recompute, tolerance):
    """Against what torch's allocator is asked for during a real step, as the profiler records it."""
    task = task_of_shape((1, 96, 64), 3)
    task.plans["configurations"]["2d"]["gradient_checkpointing"] = recompute
    estimate = step_memory(Tiny, task, 2, half=False)
    network = Tiny.build_network_architecture(PlansManager(task.plans), task.settings, 1, 3)
    image = torch.zeros(2, 1, 96, 64)
    network(image)[0].sum().backward()  # what happens once only
    network.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        outputs = network(image)
        loss = torch.stack([y.square().mean() for y in outputs]).sum()
        del outputs
        loss.backward()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    without_states = estimate.peak_bytes - estimate.parameter_bytes - estimate.optimizer_bytes
    assert without_states == pytest.approx(peak, rel=tolerance)


def test_the_share_of_a_dataset(task):
    plans = {**task.plans, "original_median_shape_after_transp": [10, 384, 512]}
    plans["configurations"]["2d"]["median_image_size_in_voxels"] = [384.0, 512.0]
    assert planning.batch_by_share(replace(task, plans=plans, cases=20)) == round(0.05 * 20 * 10 * 4)


def test_a_cascade_is_refused(task):
    plans = json.loads(json.dumps(task.plans))
    plans["configurations"]["2d"]["previous_stage"] = "3d_lowres"
    with raises(ValueError, "cascade"):
        fit_plans(Tiny, replace(task, plans=plans), GIB)
