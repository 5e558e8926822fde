"""nnU-Net's plans made to fit a stated GPU memory for a trainer whose network it did not plan for, or a patch.

nnU-Net chooses patch and batch for the memory of its own U-Net.  Here its patch is kept and the batch made smaller,
down to two patches (nnU-Net's own minimum); if that is not enough, the patch is made smaller along its longest axis.
A patch that is asked for has its stages worked out anew by nnU-Net's planner.  Spacing and normalisation stay, so the
preprocessed data serve the new plans as they are.
"""

import copy
import functools
import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet._text import by, byte_size
from swin_umamba_nnunet.cost.network import Shape
from swin_umamba_nnunet.cost.step_memory import STEP_CONVENTION, StepMemory, step_memory
from swin_umamba_nnunet.cost.tasks import Task, build_network, find_planner, plan_patch
from swin_umamba_nnunet.trainers.base import RECOMPUTE, NetworkTrainer

SMALLEST_BATCH = 2  # nnU-Net's
SMALLEST_MAP = 4  # positions a side of the coarsest map, nnU-Net's
LARGEST_SHARE = 0.05  # of the dataset's voxels in one batch, nnU-Net's
FIXED_BYTES = 2**30  # CUDA context, libraries, workspaces of kernels
FRAGMENTATION = 1.1  # of torch's allocator
RECORD = "swin_umamba_plan"  # key of the new plans under which it is written down how they came about

MARGIN_CONVENTION = (
    f"Needed on the GPU = {FRAGMENTATION} x that peak (fragmentation) + {FIXED_BYTES / 2**30:g} GiB (CUDA context, "
    "libraries, workspaces of kernels); the margin is a choice, not a measurement."
)


@dataclass(frozen=True)
class Fit:
    """Plans that fit.

    Attributes:
        task: the changed plans, and the configuration in them.
        memory: of a training step with them.
        planned: patch and batch as nnU-Net planned them.
        gpu_bytes: what they had to fit.
    """

    task: Task
    memory: StepMemory
    planned: tuple[Shape, int]
    gpu_bytes: int

    @property
    def record(self) -> dict[str, Any]:
        """How they came about, for the plans."""
        return {
            "gpu_bytes": self.gpu_bytes,
            "needed_bytes": needed_bytes(self.memory),
            "peak_bytes": self.memory.peak_bytes,
            "convention": f"{STEP_CONVENTION} {MARGIN_CONVENTION}",
        }

    @property
    def changed(self) -> bool:
        """Whether patch or batch differ from what nnU-Net planned."""
        return (self.memory.patch_size, self.memory.batch_size) != self.planned


def needed_bytes(memory: StepMemory) -> int:
    """What a GPU must have for a training step, see `MARGIN_CONVENTION`."""
    return int(FRAGMENTATION * memory.peak_bytes) + FIXED_BYTES


def fit_plans(
    trainer: type[nnUNetTrainer],
    task: Task,
    gpu_bytes: int,
    *,
    largest_batch: int | None = None,
    recompute: bool = False,
    progress: Callable[[StepMemory], object] = lambda memory: None,
) -> Fit:
    """`task` with patch and batch that `trainer` can train within `gpu_bytes`.

    Args:
        trainer: whose network has to fit.
        task: nnU-Net's plans.
        gpu_bytes: memory of the GPU.
        largest_batch: let the batch grow up to this; None for the planned one.
        recompute: switch gradient checkpointing on, in the plans.
        progress: called after each estimate.

    Raises:
        ValueError: nothing fits, a configuration in a cascade, or a trainer that cannot recompute.
    """
    if recompute and not issubclass(trainer, NetworkTrainer):
        raise ValueError(
            f"{trainer.__name__} is none of this package's trainers, so it has no gradient checkpointing to switch on; "
            "leave out --gradient-checkpointing"
        )
    _refuse_cascade(task)
    planned = tuple(int(side) for side in task.settings.patch_size), task.batch_size
    if recompute:
        task = _changed(task, {RECOMPUTE: True})

    @functools.cache
    def measure(patch: Shape, batch: int) -> StepMemory:
        memory = step_memory(trainer, _changed(task, {"patch_size": list(patch)}), batch)
        progress(memory)
        return memory

    smallest, most = min(SMALLEST_BATCH, planned[1]), max(planned[1], largest_batch or 0)

    def fits(patch: Shape) -> bool:
        return needed_bytes(measure(patch, smallest)) <= gpu_bytes

    patches = smaller_patches(planned[0], _stride(trainer, task))
    if not (fits(patches[0]) or fits(patches[-1])):
        raise ValueError(_nothing_fits(trainer, measure(patches[-1], smallest), gpu_bytes, task))
    patch = patches[0 if fits(patches[0]) else bisect_left(patches, True, key=fits)]
    batch = _largest_batch(lambda n: needed_bytes(measure(patch, n)), smallest, most, gpu_bytes)
    changed = _changed(task, {"patch_size": list(patch), "batch_size": batch})
    return Fit(changed, measure(patch, batch), planned, gpu_bytes)


def with_patch(task: Task, patch: Sequence[int], batch: int) -> Task:
    """`task` with this patch and batch, and the stages that the planner of these plans makes of the patch.

    Args:
        task: nnU-Net's plans.
        patch: in pixels or voxels, (H, W) or (D, H, W).
        batch: patches per training step.

    Raises:
        ValueError: a patch or batch that makes no sense, a planner that is not found, a configuration in a cascade.
    """
    _refuse_cascade(task)
    settings, asked = task.settings, by(patch)
    if len(patch) != len(settings.patch_size):
        raise ValueError(
            f"--patch-size {asked}: a patch of {task.configuration!r} has {len(settings.patch_size)} sides"
        )
    if batch < SMALLEST_BATCH:
        raise ValueError(
            f"--batch-size {batch}: {SMALLEST_BATCH} is the least that nnU-Net plans (it would never see to it that a "
            "single patch has foreground)"
        )
    if min(patch) < 2 * SMALLEST_MAP:
        raise ValueError(f"--patch-size {asked}: give at least {2 * SMALLEST_MAP} a side, or there is nothing to pool")
    name = task.plans.get("experiment_planner_used", "ExperimentPlanner")
    plan = plan_patch(find_planner(name), task.channels, task.classes, [*patch], settings.spacing)
    recursive_fix_for_json_export(plan)
    if [*plan["patch_size"]] != [*patch]:
        raise ValueError(
            f"--patch-size {asked}: nnU-Net plans no such patches, but would take {by(plan['patch_size'])}; give that "
            "size instead"
        )
    median = settings.median_image_size_in_voxels
    strides = [prod(steps) for steps in zip(*plan["architecture"]["arch_kwargs"]["strides"])]
    largest = [ceil(side / stride) * stride for side, stride in zip(median, strides)]
    if any(side > most for side, most in zip(patch, largest)):
        raise ValueError(
            f"--patch-size {asked} is larger than the images, of median size {by(map(round, median))}; give at most "
            f"{by(largest)}"
        )
    return _changed(task, {"patch_size": [*patch], "batch_size": batch, "architecture": plan["architecture"]})


def _refuse_cascade(task: Task) -> None:
    if task.settings.previous_stage_name is not None:
        raise ValueError(
            f"{task.configuration!r} is the second stage of a cascade, which needs the plans of the first one "
            "unchanged; choose another configuration with -c"
        )


def _largest_batch(needed: Callable[[int], int], low: int, high: int, available: int) -> int:
    """The largest batch up to `high` that fits, given that `low` does.

    A peak is the largest of many sums, each linear in the batch, so the straight line between two batches is never
    below it: what fits by the line fits.
    """
    if needed(high) <= available:
        return high
    while high - low > 1:
        slope = (needed(high) - needed(low)) / (high - low)
        guess = min(max(low + int((available - needed(low)) / slope), low + 1), high - 1)
        if needed(guess) > available:
            high = guess
        elif guess + 1 == high or needed(guess + 1) > available:
            return guess
        else:
            low = guess + 1
    return low


def smaller_patches(patch: Sequence[int], stride: Sequence[int]) -> list[Shape]:
    """The patch and ever smaller ones: always the longest axis that may shrink, to the next multiple of its stride.

    No axis gets shorter than `SMALLEST_MAP` strides.
    """
    patches = [tuple(patch)]
    while True:
        size = list(patches[-1])
        free = [axis for axis, step in enumerate(stride) if size[axis] > SMALLEST_MAP * step]
        if not free:
            return patches
        axis = max(free, key=lambda each: size[each])
        size[axis] = (size[axis] - 1) // stride[axis] * stride[axis]
        patches.append(tuple(size))


def batch_by_share(task: Task) -> int:
    """The largest batch that nnU-Net would plan for a dataset: `LARGEST_SHARE` of its voxels."""
    median = [float(side) for side in task.settings.median_image_size_in_voxels]
    if len(median) == 2:  # of a slice
        median.append(float(task.plans["original_median_shape_after_transp"][0]))
    return round(LARGEST_SHARE * prod(median) * task.cases / prod(task.settings.patch_size))


def check_name(folder: Path, name: str) -> Path:
    """File of new plans called `name`, which must not exist.

    Raises:
        ValueError: it exists, or nnU-Net could not use the name.
    """
    if not name or name != Path(name).name or name.endswith(".json") or "__" in name:
        raise ValueError(
            f"{name!r} cannot be the name of plans: expected a bare name such as nnUNetPlans_12G, without folder, "
            ".json or double underscore (nnU-Net separates trainer, plans and configuration by it)"
        )
    path = folder / f"{name}.json"
    if path.exists():
        raise ValueError(f"{path} already exists; give another name with -o, or delete it first")
    return path


def write_plans(task: Task, path: Path, record: dict[str, Any]) -> None:
    """Write the plans of `task`, with only its configuration in them, complete or not at all.

    Args:
        task: the plans.
        path: of the file; the plans' name is that of the file.
        record: how they came about.

    Raises:
        ValueError: the file exists, or cannot be written.
    """
    check_name(path.parent, path.stem)
    name = task.configuration
    configuration = dict(task.settings.configuration)  # with what it inherits
    configuration.pop("inherits_from", None)
    configuration.pop("next_stage", None)  # a cascade is not among them
    plans = copy.deepcopy(task.plans) | {"plans_name": path.stem, "configurations": {name: configuration}}
    plans[RECORD] = record
    try:
        write_text(path, json.dumps(plans, indent=4))
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error})") from error


def _changed(task: Task, changes: dict[str, Any]) -> Task:
    plans = copy.deepcopy(task.plans)
    plans["configurations"][task.configuration].update(changes)
    return replace(task, plans=plans)


def _stride(trainer: type[nnUNetTrainer], task: Task) -> Shape:
    """Pixels per position of the network's coarsest map, per axis."""
    stride = getattr(build_network(trainer, task), "stride", None)
    axes = len(task.settings.patch_size)
    if isinstance(stride, int):
        return (stride,) * axes
    if stride is not None:
        return tuple(stride)
    return tuple(prod(steps) for steps in zip(*task.settings.pool_op_kernel_sizes))


def _nothing_fits(trainer: type[nnUNetTrainer], least: StepMemory, gpu_bytes: int, task: Task) -> str:
    recomputing = task.settings.configuration.get(RECOMPUTE, False)
    remedy = "" if recomputing or not issubclass(trainer, NetworkTrainer) else "add --gradient-checkpointing, "
    return (
        f"{trainer.__name__} does not fit into {byte_size(gpu_bytes)}: the smallest patch worth training, "
        f"{by(least.patch_size)}, in batches of {least.batch_size} needs an estimated "
        f"{byte_size(needed_bytes(least))}; {remedy}choose a smaller network (see: swin-umamba list) or a larger GPU"
    )
