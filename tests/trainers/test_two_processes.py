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

from tests.trainers.conftest import DATASET, make_batch, make_folders, make_plans, tiny

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "pretrained": ("nnUNetTrainerSwinUMambaD", {"num_epochs": 4, "frozen_epochs": 2}),
    "scratch": ("nnUNetTrainerSwinUMambaDScratch", {"num_epochs": 4}),
}

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch build has no gloo")


def batch_of(trainer, epoch, part):
    """Four patches per epoch, of which `part` is this process's."""
    data, target = make_batch(trainer, epoch, images=4).values()
    return {"data": data[part], "target": [t[part] for t in target] if isinstance(target, list) else target[part]}


def on_the_cpu(base, world, compiled=False):
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


def joined(rank, world, folder):
    """Process `rank` as one of `world`, which meet in a folder."""
    stack = contextlib.ExitStack()
    if world > 1:
        store = distributed.FileStore(str(folder / "store"), world)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
        stack.callback(distributed.destroy_process_group)
    return stack


def train(rank, case, world, folder, compiled, resume_at, start):
    """Four epochs of one step; stopped and continued from its checkpoint before epoch `resume_at`.

    With `start`, a checkpoint of another training, only the epochs that are left of it.
    """
    from torch.nn.parallel import DistributedDataParallel

    name, settings = CASES[case]

    trainer_class = on_the_cpu(tiny(name, **settings), world, compiled)
    if compiled:
        compile_, torch.compile = torch.compile, lambda network: compile_(network, backend="aot_eager")

    def new():
        torch.manual_seed(0)
        trainer = trainer_class(make_plans(batch_size=4), "2d", 0, DATASET, torch.device("cpu"))
        trainer.initialize()
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
        # cross-entropy is a mean over patches; nnU-Net's Dice gathers the sums of all processes itself
        loss = torch.tensor(float(trainer.train_step(batch_of(trainer, epoch, part))["loss"]))
        if world > 1:
            distributed.all_reduce(loss)
        losses.append(loss.item() / world)
    trainer.save_checkpoint(str(folder / "end.pth"))
    return losses


def main(rank, world, folder, **settings):
    place = Path(folder)
    with joined(rank, world, place):
        losses = train(rank, world=world, folder=place, **settings)
    if rank == 0:
        (place / "losses.json").write_text(json.dumps(losses))


def run_ranks(python, module, world, variables, **job):
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


def run(python, case, world, folder, compiled=False, resume_at=None, start=""):
    """(losses, checkpoint) of `world` processes of `python`."""
    settings = {"case": case, "compiled": compiled, "resume_at": resume_at, "start": start}
    run_ranks(python, __name__, world, make_folders(folder), folder=str(folder), **settings)
    return json.loads((folder / "losses.json").read_text()), torch.load(folder / "end.pth", weights_only=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, warm_python):
    """A function case -> (losses, checkpoint) of one process; run once per case."""
    return functools.cache(lambda case: run(warm_python, case, 1, tmp_path_factory.mktemp(case)))


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
    losses_alone, one = alone(case)
    losses, two = run(warm_python, case, 2, tmp_path, compiled, resume_at)
    if resume_at == 1:  # what two processes left, one continues
        rest, _ = run(warm_python, case, 1, tmp_path / "later", start=str(tmp_path / f"{case}.pth"))
        assert rest == pytest.approx(losses_alone[resume_at:], rel=2e-3)
    assert losses == pytest.approx(losses_alone, rel=2e-3)
    assert list(one["network_weights"]) == list(two["network_weights"])
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
