"""One step of a run in a child process: one of nnU-Net's commands, seeded and measured, or this package's evaluation:

    python -m swin_umamba_nnunet.benchmark.steps --record training.json --seed 0 -- nnUNetv2_train 901 2d 0
    python -m swin_umamba_nnunet.benchmark.steps -- swin-umamba evaluate -gt references -pred predictions

What comes after -- is what one would type.  It ends when the process that started it is gone.

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
import importlib.metadata
import os
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet.benchmark.process import end_with_parent
from swin_umamba_nnunet.benchmark.runs import OURS, TRAIN


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and complete the record; exits as the command does."""
    parser = argparse.ArgumentParser(prog="steps", description="one step of a run, seeded and measured")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0)
    given = list(sys.argv[1:] if arguments is None else arguments)
    at = given.index("--") if "--" in given else len(given)
    settings, command = parser.parse_args(given[:at]), given[at + 1 :]
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
    from swin_umamba_nnunet.benchmark import hooks
    from swin_umamba_nnunet.benchmark.files import read_json, write_json

    if name == TRAIN:
        hooks.install(hooks.Settings(**vars(settings)))
        os.environ["SWIN_UMAMBA_SEED"] = str(settings.seed)  # for this package's trainers
    hooks.seed_everything(settings.seed)
    began = time.monotonic()
    run()
    seconds = time.monotonic() - began
    if name == TRAIN:
        write_json(settings.record, {**(read_json(settings.record) or {}), "finished": True})
    else:
        write_json(settings.record, {"seconds": seconds, **hooks.peak_memory(command[command.index("-device") + 1])})


if __name__ == "__main__":
    main()
