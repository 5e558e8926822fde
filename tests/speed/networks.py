"""Whole networks: 1 image channel and 14 classes, as in the papers' AbdomenMR; a training step, and inference.

Those that nnU-Net's plans shape (U-Mamba and nnU-Net's own U-Net) get the stages its planner makes for patches of the
size, and need nnU-Net; the others run on a bare GPU machine, which has none.
"""

import functools
from dataclasses import replace

import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.blocks.mamba import Mamba
from swin_umamba_nnunet.ops import resolve_backend
from tests.speed.materialised import networks_in
from tests.speed.measure import autocast, interleaved
from tests.speed.record import BASELINE, COMPILED, FUSED, GRAPH, INFERENCE, MAMBA_SSM, STEP, WITHOUT

CHANNELS, CLASSES = 1, 14
# those that nnU-Net's plans shape -> their trainers
TRAINERS = {"UMambaBot": "nnUNetTrainerUMambaBot", "UMambaEnc": "nnUNetTrainerUMambaEnc", BASELINE: "nnUNetTrainer"}
NETWORKS = ("SwinUMambaD", "SwinUMamba", "VMUNet", *TRAINERS)


def build_network(name, size):
    """A network of `NETWORKS` in float32 on the CPU, random weights, seeded.

    Args:
        name: which.
        size: (H, W) of its images in pixels.
    """
    torch.manual_seed(0)
    if name not in TRAINERS:
        return getattr(networks, name)(CHANNELS, CLASSES, True)
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from swin_umamba_nnunet.cost.tasks import task_of_shape
    from swin_umamba_nnunet.trainers.finding import find_trainer

    task = task_of_shape((CHANNELS, *size), CLASSES)
    plans = PlansManager(task.plans)
    return find_trainer(TRAINERS[name]).build_network_architecture(plans, task.settings, CHANNELS, CLASSES, True)


@functools.lru_cache(maxsize=1)
def built(name, size, device):
    """The network on the device; the last one is kept, for the next figure often is of it."""
    return build_network(name, size).to(device)


def measure(clock, figure):
    """The time and memory of one network, as a figure says that has no numbers yet.

    Raises:
        RuntimeError: what torch raises.
    """
    if figure.pipeline == WITHOUT:
        return controls(figure, 8 * clock.seconds)
    network = built(figure.what, figure.size, clock.device)
    network.zero_grad(set_to_none=True)
    images = torch.randn(figure.batch, CHANNELS, *figure.size, device=clock.device)
    set_up(network, figure.passes)
    run = network
    if figure.mode == COMPILED:
        torch._dynamo.reset()  # earlier figures must not count towards the limit of recompilations
        run = torch.compile(network, dynamic=False)
    with networks_in(network, figure.pipeline) as calls:
        if figure.mode == GRAPH:  # a cached cast would be outside the graph
            with torch.no_grad(), autocast(clock.device, figure.dtype, cache_enabled=False):
                run = torch.cuda.make_graphed_callables(lambda x: network(x), (images,))
        call = (training_step if figure.passes == STEP else inference)(network, run, images, figure.dtype)
        timed = clock.time(figure, call, whole=True)
        if not calls:
            raise RuntimeError(f"{figure.what} computed no scan in the form asked for ({figure.pipeline})")
    backend = None
    if any(isinstance(part, SS2D | Mamba) for part in network.modules()):
        backend = "mamba_ssm" if figure.pipeline == MAMBA_SSM else resolve_backend(None, clock.device)
    known = {"peak_mebibytes": None} if figure.mode == GRAPH else {}
    return [replace(timed, backend=backend, **known)]


def controls(figure, seconds):
    """A network without scans (`mixing="skip"`) in turns with itself with them: training steps, then inference.

    Predictions follow each other as they do in use: behind a training step one finds memory and caches full of that.
    """
    images = torch.randn(figure.batch, CHANNELS, *figure.size)
    both = {}
    for pipeline, mixing in ((FUSED, "scan"), (WITHOUT, "skip")):
        torch.manual_seed(0)
        both[pipeline] = getattr(networks, figure.what)(CHANNELS, CLASSES, True, mixing=mixing)
    found = []
    for passes, prepare in ((STEP, training_step), (INFERENCE, inference)):
        calls = {}
        for pipeline, network in both.items():
            set_up(network, passes)
            calls[replace(figure, pipeline=pipeline, passes=passes)] = prepare(network, network, images, "float32")
        found += interleaved(calls, seconds / 2)
    return found


def set_up(network, passes):
    """For training with deep supervision, or for inference."""
    network.train(passes == STEP)
    network.decoder.deep_supervision = passes == STEP


def training_step(network, run, images, dtype):
    """Forward with deep supervision, the mean square of every head's logits for a loss, backward, SGD with momentum.

    No data loading, no gradient scaler.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99, nesterov=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with autocast(images.device.type, dtype):
            outputs = run(images)
            heads = outputs if isinstance(outputs, list | tuple) else [outputs]
            loss = torch.stack([logits.float().square().mean() for logits in heads]).sum()
        loss.backward()
        optimizer.step()

    return step


def inference(network, run, images, dtype):
    """One forward pass without gradients as nnU-Net's predictor makes it: one head; no mirroring."""

    @torch.inference_mode()
    def predict():
        with autocast(images.device.type, dtype):
            return run(images)

    return predict
