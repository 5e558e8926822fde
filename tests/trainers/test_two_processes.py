"""The real trainer in two processes over gloo, against one process on the same batches.

nnU-Net ties DDP to CUDA in two places, which are all that is replaced here: the choice of the device, and the device
list DistributedDataParallel is built with.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from tests.trainers.conftest import DATASET, make_batch, make_plans, tiny

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "pretrained": ("nnUNetTrainerSwinUMambaD", {"num_epochs": 4, "frozen_epochs": 2}),
    "scratch": ("nnUNetTrainerSwinUMambaDScratch", {"num_epochs": 4}),
}

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch build has no gloo")


def batch_of(trainer, epoch: int, part: slice) -> dict:
    """Four patches per epoch, of which `part` is this process's."""
    data, target = make_batch(trainer, epoch, images=4).values()
    return {"data": data[part], "target": [t[part] for t in target] if isinstance(target, list) else target[part]}


def on_the_cpu(base: type, world: int, compiled: bool = False) -> type:
    """A trainer class that trains in `world` processes over gloo."""
    from torch.nn.parallel import DistributedDataParallel

    class OnTheCPU(base):
        def __init__(self, plans, configuration, fold, dataset_json, device=None):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.device, self.grad_scaler = torch.device("cpu"), None

        def _do_i_compile(self):
            return compiled

    OnTheCPU.__name__ = "OnTheCPU"
    module = sys.modules["nnunetv2.training.nnUNetTrainer.nnUNetTrainer"]
    module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    module.device_count = lambda: world
    return OnTheCPU


def joined(rank: int, world: int, folder: Path) -> contextlib.AbstractContextManager:
    """Process `rank` as one of `world`, which meet in a folder."""
    stack = contextlib.ExitStack()
    if world > 1:
        store = distributed.FileStore(str(folder / "store"), world)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
        stack.callback(distributed.destroy_process_group)
    return stack


def train(
    rank: int, case: str, world: int, folder: Path, compiled: bool, resume_at: int | None, start: str
) -> list[float]:
    """Four epochs of one step; stopped and continued from its checkpoint before epoch `resume_at`.

    With `start`, a checkpoint of another training, only the epochs that are left of it.
    """
    from torch.nn.parallel import DistributedDataParallel
    from torch.optim import AdamW

    name, settings = CASES[case]

    trainer_class = on_the_cpu(tiny(name, **settings), world, compiled)
    if compiled:
        compile_, torch.compile = torch.compile, lambda network: compile_(network, backend="aot_eager")

    def new():
        torch.manual_seed(0)
        trainer = trainer_class(make_plans(batch_size=4), "2d", 0, DATASET, torch.device("cpu"))
        trainer.initialize()
        assert isinstance(trainer.optimizer, AdamW)
        assert isinstance(trainer.network, DistributedDataParallel) is (world > 1)
        return trainer

    trainer, losses = new(), []
    if start:
        trainer.load_checkpoint(start)
    part = slice(4 * rank // world, 4 * (rank + 1) // world)
    for epoch in range(trainer.current_epoch, 4):
        if epoch == resume_at:
            checkpoint = folder / f"{case}.pth"
            trainer.current_epoch = epoch - 1
            trainer.save_checkpoint(str(checkpoint))
            if world > 1:
                distributed.barrier()
            trainer = new()
            trainer.load_checkpoint(str(checkpoint))
            assert trainer.current_epoch == epoch
        trainer.current_epoch = epoch
        trainer.network.eval()  # no DropPath: two batches of two must be one of four
        trainer.lr_scheduler.step(epoch)
        losses.append(float(trainer.train_step(batch_of(trainer, epoch, part))["loss"]))
    trainer.save_checkpoint(str(folder / f"end_{world}.pth"))
    return losses


def main(rank: int, world: int, folder: str, **settings) -> None:
    place = Path(folder)
    with joined(rank, world, place):
        losses = train(rank, world=world, folder=place, **settings)
    (place / f"losses_{world}_{rank}.json").write_text(json.dumps(losses))


def run_ranks(python: str, module: str, world: int, variables: dict, **job) -> None:
    """`world` processes of `python -m module RANK JOB`, side by side, which all have to succeed."""
    processes = [
        subprocess.Popen(
            [python, "-m", module, str(rank), json.dumps({"world": world, **job})],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world, "\n".join(outputs)[-4000:]


def run(
    python: str, case: str, world: int, folder: Path, compiled=False, resume_at: int | None = None, start: str = ""
) -> list[list[float]]:
    """The losses of every rank, each a process of `python`."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = {}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        variables[name] = str(folder / name)
        (folder / name).mkdir(exist_ok=True)
    data = folder / "nnUNet_preprocessed" / "Dataset902_None" / "nnUNetPlans_2d"
    data.mkdir(parents=True)
    (data / "case.b2nd").touch()
    settings = {"case": case, "compiled": compiled, "resume_at": resume_at, "start": start}
    run_ranks(python, __name__, world, variables, folder=str(folder), **settings)
    return [json.loads((folder / f"losses_{world}_{rank}.json").read_text()) for rank in range(world)]


def checkpoint_of(folder: Path, world: int) -> dict:
    return torch.load(folder / f"end_{world}.pth", weights_only=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, warm_python):
    """A function case -> (losses, checkpoint) of one process; run once per case."""

    @functools.cache
    def get(case: str) -> tuple[list[float], dict]:
        folder = tmp_path_factory.mktemp(case)
        (losses,) = run(warm_python, case, 1, folder)
        return losses, checkpoint_of(folder, 1)

    return get


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "compiled", "resume_at"),
    [
        ("pretrained", True, None),
        ("pretrained", False, 1),
        ("pretrained", False, 3),
        ("scratch", False, None),
    ],
)
def test_two_processes_do_what_one_does(case, compiled, resume_at, alone, tmp_path, warm_python):
    (losses_alone, one) = alone(case)
    both = run(warm_python, case, 2, tmp_path, compiled, resume_at)
    # Cross-entropy is a mean over patches; nnU-Net's Dice gathers the sums of all processes itself.
    mean = [sum(losses) / 2 for losses in zip(*both)]
    if resume_at == 1:  # what two processes left, one continues
        (rest,) = run(warm_python, case, 1, tmp_path / "later", start=str(tmp_path / f"{case}.pth"))
        assert rest == pytest.approx(losses_alone[resume_at:], rel=2e-3)
    assert mean == pytest.approx(losses_alone, rel=2e-3)
    two = checkpoint_of(tmp_path, 2)
    assert list(one["network_weights"]) == list(two["network_weights"])
    for key, value in one["network_weights"].items():
        torch.testing.assert_close(two["network_weights"][key], value, rtol=0, atol=1e-4, msg=key)  # one step of AdamW
    states_one, states_two = one["optimizer_state"]["state"], two["optimizer_state"]["state"]
    # nnU-Net's weight of the coarsest head is 0 in one process, so that head has no state there, and 1e-6 in several.
    names = list(one["network_weights"])
    extra = {names[index] for index in states_two.keys() - states_one.keys()}
    assert extra == ({"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"} if case == "pretrained" else set())
    assert not states_one.keys() - states_two.keys()
    steps = {index: int(state["step"]) for index, state in states_one.items()}
    assert steps == {index: int(states_two[index]["step"]) for index in steps}
    assert set(steps.values()) == ({2, 4} if case == "pretrained" else {4})
    for index, state in states_one.items():
        ours, theirs = states_two[index]["exp_avg"], state["exp_avg"]
        assert (ours - theirs).norm() <= 0.02 * theirs.norm() + 1e-6


if __name__ == "__main__":
    main(int(sys.argv[1]), **json.loads(sys.argv[2]))
