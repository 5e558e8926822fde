"""Whole networks: a training step, and inference."""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from swin_umamba_nnunet.ops import resolve_backend
from tests.speed.clock import Clock
from tests.speed.materialised import networks_in
from tests.speed.models import CHANNELS, build_network, scanned
from tests.speed.record import (
    COMPILED,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    STEP,
    Figure,
)
from tests.speed.scans import STATES, autocast, dtype_name

STEP_CONVENTION = (
    "A training step is forward with deep supervision, the mean square of every head's logits for a loss, backward, "
    "and SGD with Nesterov momentum; no data loading, no gradient scaler.  Inference is one forward pass without "
    "gradients, one head; no mirroring."
)
GRADIENT_CLIP = 12.0  # nnU-Net's
ALLOWED_ERROR = 0.02  # of a CUDA graph's logits, relative L2, against the network's own


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        network: one of `models.NETWORKS`.
        batch, size: images, and (H, W) of them in pixels.
        dtype: of autocast; float32 for none.
        passes: `STEP` or `INFERENCE`.
        pipeline: `FUSED`, `OWN` or `MAMBA_SSM` of `record.py`.
        mode: `EAGER`, `COMPILED` or `GRAPH`.
    """

    network: str
    batch: int
    size: tuple[int, int]
    dtype: torch.dtype
    passes: str
    pipeline: str = FUSED
    mode: str = EAGER

    def figure(self, **numbers: Any) -> Figure:
        """A figure of this setting."""
        return Figure(self.network, self.pipeline, self.mode, self.passes, dtype_name(self.dtype), self.batch,
                      self.size, **numbers)  # fmt: skip

    @property
    def makes_sense(self) -> bool:
        """U-Mamba's scans have one direction, nothing to write out; a U-Net has none; a training step is no graph."""
        several_directions = not self.network.startswith(("UMamba", "PlainConv"))
        return (several_directions or self.pipeline == FUSED) and (self.mode != GRAPH or self.passes == INFERENCE)


@dataclass
class Builder:
    """The last network that was built, kept because the next figure is often of the same one."""

    build: Callable[[str, tuple[int, int]], nn.Module] = build_network
    _key: tuple[Any, ...] | None = None
    _network: nn.Module | None = None
    _scanned: tuple[int, int] = field(default=(0, 0))

    def get(self, name: str, size: tuple[int, int], device: str) -> tuple[nn.Module, tuple[int, int]]:
        """(network on the device, (state-steps, E) per image)."""
        if (name, size, device) != self._key or self._network is None:
            self._key = self._network = None
            gc.collect()
            network = self.build(name, size).to(device)
            self._scanned = scanned(network.eval(), size, device)
            self._key, self._network = (name, size, device), network
        self._network.zero_grad(set_to_none=True)
        return self._network, self._scanned


def measure(clock: Clock, setting: Setting, builder: Builder) -> Figure:
    """The time and memory of one setting.

    Raises:
        RuntimeError: what torch raises, or a CUDA graph that computes something else.
    """
    network, (steps, elements) = builder.get(setting.network, setting.size, clock.device)
    network.train(setting.passes == STEP)
    network.decoder.deep_supervision = setting.passes == STEP  # type: ignore[union-attr, assignment]
    images = torch.randn(setting.batch, CHANNELS, *setting.size, device=clock.device)
    run: Callable[[Tensor], Any] = network
    if setting.mode == COMPILED:
        torch._dynamo.reset()  # earlier settings must not count towards the limit of recompilations
        run = torch.compile(network, dynamic=False)
    with networks_in(network, setting.pipeline) as calls:
        if setting.passes == STEP:
            timing = clock.time(training_step(network, run, images, clock.device, setting.dtype))
        elif setting.mode == GRAPH:
            timing = clock.time(captured(network, images, setting.dtype))
        else:
            timing = clock.time(inference(run, images, clock.device, setting.dtype))
        if not calls:
            raise RuntimeError(f"{setting.network} computed no scan in the form asked for ({setting.pipeline})")
    passes = "forward" if setting.passes == INFERENCE else "forward+backward"
    bound = clock.percent_of_bound(timing.milliseconds, setting.batch * elements, STATES, passes)
    backend = "mamba_ssm" if setting.pipeline == MAMBA_SSM else resolve_backend(None, clock.device)
    return setting.figure(
        backend=backend if steps else None, milliseconds=timing.milliseconds, spread=timing.spread,
        peak_mebibytes=None if setting.mode == GRAPH else timing.peak_mebibytes,
        giga_state_steps=setting.batch * steps / timing.milliseconds / 1e6 if steps else None,
        percent_of_exp_bound=bound if elements else None,
    )  # fmt: skip


def set_up_like_nnunet(device: str) -> None:
    """cuDNN may try its algorithms while warming up, as in nnU-Net's commands."""
    if device == "cuda":
        torch.backends.cudnn.benchmark = True


def training_step(
    network: nn.Module, run: Callable[[Tensor], Any], images: Tensor, device: str, dtype: torch.dtype
) -> Callable[[], None]:
    """See `STEP_CONVENTION`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99, nesterov=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            outputs = run(images)
            heads = outputs if isinstance(outputs, list | tuple) else [outputs]
            loss = torch.stack([logits.float().square().mean() for logits in heads]).sum()
        loss.backward()
        optimizer.step()

    return step


def inference(run: Callable[[Tensor], Any], images: Tensor, device: str, dtype: torch.dtype) -> Callable[[], Any]:
    """One forward pass as nnU-Net's predictor makes it."""

    @torch.inference_mode()
    def predict() -> Any:
        with autocast(device, dtype):
            return run(images)

    return predict


def captured(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A forward pass as one CUDA graph: copy the images to where it reads them, replay it.  Checked on other images.

    Raises:
        RuntimeError: the graph's logits are not the network's.
    """
    static = images.clone()

    @torch.no_grad()
    def forward(x: Tensor) -> Tensor:
        with autocast("cuda", dtype, cache_enabled=False):  # a cached cast would be outside the graph
            return network(x)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            forward(static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward(static)

    def replay() -> Tensor:
        static.copy_(images)
        graph.replay()
        return logits

    others = torch.randn_like(images)
    expected = forward(others).float()
    static.copy_(others)
    graph.replay()
    error = ((logits.float() - expected).norm() / expected.norm()).item()
    if not error < ALLOWED_ERROR:
        raise RuntimeError(f"the CUDA graph's logits differ from the network's, relative error {error:.1e}")
    return replay


def stays_finite(device: str, dtype: torch.dtype, iterations: int, size: int = 128, batch: int = 2) -> tuple[bool, str]:
    """Dagger on random images and labels at learning rate 1e-2, the setting in which others became NaN.

    SGD with Nesterov momentum 0.99, cross-entropy, gradients clipped and under float16 scaled as nnU-Net does.

    Returns:
        (whether every loss was finite, what happened).
    """
    network = build_network("SwinUMambaD", (size, size)).to(device).train()
    network.decoder.deep_supervision = False  # type: ignore[union-attr, assignment]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, nesterov=True)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    first = last = 0.0
    for iteration in range(iterations):
        images = torch.randn(batch, CHANNELS, size, size, device=device)
        labels = torch.randint(0, 14, (batch, size, size), device=device)
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        last = loss.item()
        first = first if iteration else last
        if not math.isfinite(last):
            layer = _first_not_finite(network, images, device, dtype)
            return False, f"{dtype_name(dtype)}: loss {last} in iteration {iteration + 1}, first not finite in {layer}"
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
        scaler.step(optimizer)
        scaler.update()
    what = f"{iterations} iterations, {dtype_name(dtype)}, learning rate 1e-2, loss {first:.3g} to {last:.3g}"
    return True, what


def _first_not_finite(network: nn.Module, images: Tensor, device: str, dtype: torch.dtype) -> str:
    """Name of the first module whose output is not finite."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not found and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [part.register_forward_hook(look(name)) for name, part in network.named_modules() if name]
    with torch.no_grad(), autocast(device, dtype):
        network(images)
    for handle in handles:
        handle.remove()
    return found[0] if found else "the loss"
