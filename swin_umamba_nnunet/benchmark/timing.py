"""A few training iterations on made-up images, timed in a child process: what a dry run's estimate is made of.

    python -m swin_umamba_nnunet.benchmark.timing DATASET ROW.json DEVICE ITERATIONS ANSWER.json

The trainer's own network, loss and optimiser at the planned batch and patch; loading and augmenting data is not in it.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.files import read_json, write_json
from swin_umamba_nnunet.benchmark.hooks import peak_memory
from swin_umamba_nnunet.benchmark.probe import trainer_of
from swin_umamba_nnunet.benchmark.watchdog import end_with_parent

WARM_UP = 3  # iterations that do not count: in the first, code is compiled, kernels are chosen and memory is taken


def time_iterations(dataset: str, row: Mapping[str, str], device: str, iterations: int) -> dict[str, Any]:
    """Seconds per training and per validation iteration, and the peak memory of both.

    Args:
        dataset: full name.
        row: "name", "plans", "configuration", "key".
        device: "cpu", "cuda" or "mps".
        iterations: how many are timed, after `WARM_UP`.
    """
    import torch

    from swin_umamba_nnunet.trainers.finding import find_trainer

    torch.set_num_threads((os.cpu_count() or 1) if device == "cpu" else 1)  # as nnUNetv2_train does
    with trainer_of(find_trainer(row["name"]), dataset, row, device) as trainer:
        trainer.initialize()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        batch = _batch(trainer)
        trainer.network.train()
        training = _seconds(lambda: trainer.train_step(batch), iterations, device)
        trainer.network.eval()
        with torch.no_grad():
            validation = _seconds(lambda: trainer.validation_step(batch), iterations, device)
        memory, what = peak_memory(device)
    return {
        "seconds_per_iteration": training,
        "seconds_per_validation_iteration": validation,
        "peak_memory_bytes": memory,
        "peak_memory_what": what,
    }


def _batch(trainer: Any) -> dict[str, Any]:
    """Noise with empty targets, in the shapes that nnU-Net's data loaders give."""
    import torch

    patch = trainer.configuration_manager.patch_size
    scales = trainer._get_deep_supervision_scales() or [[1] * len(patch)]
    labels = trainer.label_manager
    channels = len(labels.foreground_regions) + labels.has_ignore_label if labels.has_regions else 1
    dtype = torch.float32 if labels.has_regions else torch.int16
    targets = [
        torch.zeros(trainer.batch_size, channels, *(round(p * s) for p, s in zip(patch, scale)), dtype=dtype)
        for scale in scales
    ]
    return {
        "data": torch.randn(trainer.batch_size, trainer.num_input_channels, *patch),
        "target": targets if trainer.enable_deep_supervision else targets[0],
    }


def _seconds(step: Callable[[], Any], iterations: int, device: str) -> float:
    """Median over the iterations after the warm-up: what else the machine does should not count."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    seconds = []
    for _ in range(WARM_UP + iterations):
        wait()
        began = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Time one row and write the answer."""
    dataset, row, device, iterations, answer = sys.argv[1:] if arguments is None else arguments
    end_with_parent()
    write_json(Path(answer), time_iterations(dataset, read_json(Path(row)), device, int(iterations)))


if __name__ == "__main__":
    main()
