"""One of nnU-Net's commands in a child process, seeded and measured:

    python -m swin_umamba_nnunet.benchmark.seeded --record training.json --seed 0 -- nnUNetv2_train 901 2d 0

What a seed fixes: everything drawn in the training process (the network's initial weights, dropout and DropPath), and
with `nnUNet_n_proc_DA=0` also patches and augmentation, which are then made in that process.  What it does not fix:

- patches and augmentation made by background workers (nnU-Net's default), which seed themselves from the operating
  system and hand in their batches in whatever order they finish;
- on a GPU, nnU-Net's own choice of kernels (cudnn.benchmark) and the order in which some of them add;
- a training that was interrupted and continued, which draws other numbers than one that was not.

So seeds are repetitions from different starting points, not replays.
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet.benchmark.watchdog import end_with_parent

TRAIN, PREDICT = "nnUNetv2_train", "nnUNetv2_predict"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and complete the record; exits as the command does."""
    settings, command = _parse(list(sys.argv[1:] if arguments is None else arguments))
    end_with_parent()
    from swin_umamba_nnunet.benchmark import hooks
    from swin_umamba_nnunet.benchmark.files import read_json, write_json

    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=command[0])
    run = entry.load()
    if command[0] == TRAIN:
        hooks.install(hooks.Settings(settings.record, settings.seed, settings.validation, settings.checkpoint_minutes))
    hooks.seed_everything(settings.seed)
    sys.argv = list(command)
    began = time.monotonic()
    run()
    seconds = time.monotonic() - began
    if command[0] == TRAIN:
        write_json(settings.record, {**(read_json(settings.record) or {}), "finished": True})
    else:
        memory, what = hooks.peak_memory(command[command.index("-device") + 1])
        write_json(settings.record, {"seconds": seconds, "peak_memory_bytes": memory, "peak_memory_what": what})


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="seeded", description="one of nnU-Net's commands, seeded and measured")
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[split + 1 :]
    settings = parser.parse_args(arguments[:split])
    if not command or command[0] not in (TRAIN, PREDICT):
        parser.error(f"after -- one of {TRAIN} and {PREDICT} was expected with its arguments, found {command}")
    return settings, command


if __name__ == "__main__":
    main()
