"""One step of a run in a child process: one of nnU-Net's commands, seeded and measured, or this package's evaluation:

    python -m swin_umamba_nnunet.benchmark.steps --record training.json --seed 0 -- nnUNetv2_train 901 2d 0
    python -m swin_umamba_nnunet.benchmark.steps -- swin-umamba evaluate -gt references -pred predictions

What comes after -- is what one would type.  It ends when the process that started it is gone.

The trainer object is instrumented after nnU-Net has made it, so any trainer can be a row: nnU-Net's own, this
package's, a user's.  What the training computes is not changed, but for the algorithms that cuDNN takes.

A training with a trainer of this package follows from its seed, interrupted or not, see `trainers._replay`.  With any
other trainer, nnU-Net's among them, a seed fixes what is drawn in the training process (the network's initial weights,
dropout), and with `nnUNet_n_proc_DA=0` also patches and augmentation, which are then made in that process.  It does not
fix:

- patches and augmentation made by background workers (nnU-Net's default), which seed themselves from the operating
  system and hand in their batches in whatever order they finish;
- what a training draws that was interrupted and continued.

There seeds are repetitions from different starting points, not replays.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import os
import platform
import random
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.files import Record, read_json, write_json
from swin_umamba_nnunet.benchmark.process import end_with_parent
from swin_umamba_nnunet.benchmark.runs import OURS, TRAIN

LATEST = "checkpoint_latest.pth"
WORKERS = "nnUNet_n_proc_DA"  # environment variable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and complete the record; exits as the command does."""
    parser = argparse.ArgumentParser(prog="steps", description="one step of a run, seeded and measured")
    add = parser.add_argument
    add("--record", type=Path, help="JSON file that the step writes about itself")
    add("--seed", type=int, default=0, help="see `seed_everything`")
    add("--validation", action="store_true", help="let nnU-Net validate after the last epoch")
    minutes = "a training saves at least that often, at the end of an epoch"
    add("--checkpoint-minutes", type=float, default=10.0, help=minutes)
    add("command", nargs="*", help="after --: what one would type")
    settings = parser.parse_args(arguments)
    command = settings.command
    name = command[0] if command else ""
    entries = list(importlib.metadata.entry_points(group="console_scripts", name=name))
    if name != OURS and not (name.startswith("nnUNetv2_") and entries):
        parser.error(f"after -- a command of nnU-Net was expected, such as {TRAIN}, or {OURS}; found {command}")
    end_with_parent()
    sys.argv = command
    if name == OURS:  # by its module: on PYTHONPATH it has no entry point
        runpy.run_module("swin_umamba_nnunet", run_name="__main__")
        return
    run = entries[0].load()
    if settings.record is None:
        run()
        return
    if name == TRAIN:
        install(settings)
        os.environ["SWIN_UMAMBA_SEED"] = str(settings.seed)  # for this package's trainers
    seed_everything(settings.seed)
    began = time.monotonic()
    run()
    seconds = time.monotonic() - began
    if name == TRAIN:
        write_json(settings.record, {**(read_json(settings.record) or {}), "finished": True})
    else:
        write_json(settings.record, {"seconds": seconds, **peak_memory(command[command.index("-device") + 1])})


def seed_everything(*parts: int) -> None:
    """Seed Python's, numpy's and torch's generators (CUDA's too) from the numbers, which count one by one.

    One number alone is used as it is: `seed_everything(3)` is what everybody means by seed 3.
    """
    import numpy as np
    import torch

    seed = parts[0] if len(parts) == 1 else int(np.random.SeedSequence(parts).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (nnU-Net's augmentation draws from the global generator)
    torch.manual_seed(seed)


def install(settings: argparse.Namespace) -> None:
    """Have every trainer that `nnUNetv2_train` makes in this process, or in its DDP processes, instrumented.

    Args:
        settings: options of `main`, "record", "seed", "validation" and "checkpoint_minutes".
    """
    from nnunetv2.run import run_training

    make = run_training.get_trainer_from_args

    def make_instrumented(*args: Any, **kwargs: Any) -> Any:
        trainer = make(*args, **kwargs)
        instrument(trainer, settings)
        return trainer

    run_training.get_trainer_from_args = make_instrumented
    run_training.run_ddp = functools.partial(_run_rank, settings)


def _run_rank(settings: argparse.Namespace, rank: int, *args: Any) -> None:
    """One process of a training on several GPUs: a fresh interpreter in which nothing is installed yet."""
    from nnunetv2.run import run_training

    run_rank = run_training.run_ddp
    install(settings)
    seed_everything(settings.seed, rank)
    run_rank(rank, *args)


def instrument(trainer: Any, settings: argparse.Namespace) -> None:
    """Wrap the methods of one trainer object."""
    saved = time.monotonic()
    run, end_epoch, save = trainer.run_training, trainer.on_epoch_end, trainer.save_checkpoint

    def run_training() -> Any:
        if trainer.current_epoch:
            # Continued: the generators' states are not in nnU-Net's checkpoint.  Seeded with the seed alone, this part
            # would see the augmentation of the first epochs once more.
            seed_everything(settings.seed, trainer.local_rank, trainer.current_epoch)
        if trainer.device.type == "cuda":  # whose trainer it is, so that times compare
            from swin_umamba_nnunet.trainers._replay import fix_kernels

            fix_kernels()
        _write(trainer, settings, resumed=bool(trainer.current_epoch))
        return run()

    def on_epoch_end() -> None:
        nonlocal saved
        end_epoch()  # which has counted the epoch up
        due = time.monotonic() - saved >= 60 * settings.checkpoint_minutes
        if due and trainer.current_epoch < trainer.num_epochs:
            trainer.current_epoch -= 1  # what save_checkpoint expects: the epoch that was trained last
            trainer.save_checkpoint(os.path.join(trainer.output_folder, LATEST))
            trainer.current_epoch += 1
            saved = time.monotonic()
        _write(trainer, settings)

    def save_checkpoint(filename: str) -> None:
        # beside it, then renamed: a training killed while it saves keeps the checkpoint before
        partial = f"{filename}.saving"
        save(partial)
        if os.path.exists(partial):  # not on the other ranks, nor with --disable_checkpointing
            os.replace(partial, filename)

    def perform_actual_validation(*args: Any, **kwargs: Any) -> None:
        trainer.print_to_log_file("nnU-Net's own validation is left out: nnUNetv2_predict comes next on the same cases")

    trainer.run_training, trainer.on_epoch_end = run_training, on_epoch_end
    if not hasattr(trainer, "adopt_checkpoint"):  # this package's trainers do so themselves
        trainer.save_checkpoint = save_checkpoint
    if not settings.validation:
        trainer.perform_actual_validation = perform_actual_validation


def peak_memory(device: str) -> Record:
    """Bytes at most so far, and what they are: what tensors took on the GPU, or this process's resident memory.

    The latter is without the augmentation workers, and None on Windows.
    """
    if device == "cuda":
        import torch

        return {"peak_memory_bytes": torch.cuda.max_memory_allocated(), "peak_memory_what": "CUDA allocator"}
    used = None
    if sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_memory_bytes": used, "peak_memory_what": "process RSS"}


def schedule_of(trainer: Any) -> Record:
    """How long a trainer trains, and on batches of what size; the patch in pixels or voxels."""
    return {
        "epochs": trainer.num_epochs,
        "iterations_per_epoch": trainer.num_iterations_per_epoch,
        "validation_iterations_per_epoch": trainer.num_val_iterations_per_epoch,
        "batch_size": trainer.configuration_manager.batch_size,
        "patch_size": trainer.configuration_manager.patch_size,
    }


def _write(trainer: Any, settings: argparse.Namespace, resumed: bool = False) -> None:
    if trainer.local_rank != 0:
        return
    before = (read_json(settings.record) or {}) if trainer.current_epoch else {}
    memory = peak_memory(trainer.device.type)
    most = max(memory["peak_memory_bytes"] or 0, before.get("peak_memory_bytes") or 0) or None
    record = {
        "trainer": type(trainer).__name__,
        "epoch": trainer.current_epoch,
        **schedule_of(trainer),
        "mirroring_axes": trainer.inference_allowed_mirroring_axes,
        "device": trainer.device.type,
        "device_name": _device_name(trainer.device.type),
        "augmentation_workers": os.environ.get(WORKERS),
        "replays": getattr(trainer, "replays", False),
        "resumed_at_epoch": [*before.get("resumed_at_epoch", []), *([trainer.current_epoch] if resumed else [])],
        **memory,
        "peak_memory_bytes": most,
        "imagenet_weights": getattr(trainer, "imagenet_record", None),
        "curves": trainer.logger.get_checkpoint(),
        "updated": time.time(),
        "finished": False,
    }
    write_json(settings.record, record)


def _device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return processor_name() if device == "cpu" else device


def processor_name() -> str:
    """What this machine computes with if it has no GPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    from swin_umamba_nnunet.benchmark import steps  # what is sent to DDP processes is found there by its name

    steps.main()
