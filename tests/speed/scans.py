"""The scan alone, SS2D's core and the SS2D block at the shapes of a network's stages."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.ops import resolve_backend
from swin_umamba_nnunet.ops._scan import scan
from tests.speed.clock import Clock, Timing
from tests.speed.materialised import core
from tests.speed.record import BLOCK, CORE, EAGER, FUSED, MAMBA_SSM, Figure

STATES = 16
STAGES = ((4, 192), (8, 384), (16, 768), (32, 1536))  # stride, d_inner of VMamba-tiny's stages
PLAIN_GLUE = "fused, plain glue"
GLUE_VARIABLE = "SWIN_UMAMBA_FUSED_GLUE"


@dataclass(frozen=True)
class Stage:
    """The shape at which a scan is measured: that of one stage of a network.

    Attributes:
        batch: images.
        size: (H, W) of an image in pixels.
        stride: pixels per position.
        channels: d_inner.
        dtype: of x, step sizes, B and C; of autocast for the core and the block.
    """

    batch: int
    size: tuple[int, int]
    stride: int
    channels: int
    dtype: torch.dtype

    @property
    def height(self) -> int:
        """Positions."""
        return -(-self.size[0] // self.stride)

    @property
    def width(self) -> int:
        """Positions."""
        return -(-self.size[1] // self.stride)

    @property
    def elements(self) -> int:
        """E = batch * L * D."""
        return self.batch * self.height * self.width * self.channels

    def autocast(self, device: str) -> Any:
        """What a network of this precision runs in."""
        return autocast(device, self.dtype)

    def figure(self, what: str, pipeline: str, passes: str, **numbers: Any) -> Figure:
        """A figure of this stage."""
        return Figure(what, pipeline, EAGER, passes, dtype_name(self.dtype), self.batch, self.size, self.stride,
                      self.channels, **numbers)  # fmt: skip

    def timed(self, clock: Clock, what: str, pipeline: str, passes: str, backend: str, timing: Timing) -> Figure:
        """The same with a time and what follows from it."""
        milliseconds = timing.milliseconds
        return self.figure(
            what, pipeline, passes, backend=backend, milliseconds=milliseconds, spread=timing.spread,
            peak_mebibytes=timing.extra_mebibytes,
            giga_state_steps=4 * self.elements * STATES / milliseconds / 1e6,
            percent_of_exp_bound=clock.percent_of_bound(milliseconds, self.elements, STATES, passes),
        )  # fmt: skip


def scan_alone(clock: Clock, stage: Stage) -> Iterator[Figure]:
    """The directional scan, given step sizes, B and C: forward, then backward."""
    inputs, cotangent = scan_inputs(clock.device, stage)
    backend = resolve_backend(None, clock.device)
    settings: Any = (True, backend)
    with torch.no_grad():
        timing = clock.time(lambda: scan(*inputs, *settings))
    yield stage.timed(clock, "scan", FUSED, "forward", backend, timing)
    leaves: Any = tuple(t.detach().requires_grad_() for t in inputs)
    y = scan(*leaves, *settings)
    timing = clock.time(lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True))
    yield stage.timed(clock, "scan", FUSED, "backward", backend, timing)


def scan_with_projections(clock: Clock, stage: Stage, pipeline: str) -> Iterator[Figure]:
    """SS2D's core from x to the sum over directions: forward, then forward and backward."""
    device = clock.device
    x = torch.randn(stage.batch, stage.height, stage.width, stage.channels, device=device).to(stage.dtype)
    leaves = [t.to(device).requires_grad_() for t in (x, *core_weights(stage.channels))]
    function = partial(core(pipeline), out_dtype=torch.float32)
    yield from _both_passes(clock, stage, CORE, pipeline, function, leaves)


def block(clock: Clock, stage: Stage, pipeline: str) -> Iterator[Figure]:
    """A whole SS2D block, projections, convolution, norm and gate included; with what is fused behind the scan or not.

    Args:
        pipeline: `FUSED`, or `PLAIN_GLUE` for norm and gate in separate operations.
    """
    from swin_umamba_nnunet.blocks import SS2D

    module = SS2D(stage.channels // 2, d_state=STATES).to(clock.device)
    x = torch.randn(stage.batch, stage.height, stage.width, stage.channels // 2, device=clock.device)
    leaves = [x.requires_grad_(), *module.parameters()]
    with glue(pipeline != PLAIN_GLUE):
        yield from _both_passes(clock, stage, BLOCK, pipeline, lambda image, *_: module(image), leaves)


def _both_passes(
    clock: Clock, stage: Stage, what: str, pipeline: str, function: Callable[..., Tensor], leaves: list[Tensor]
) -> Iterator[Figure]:
    backend = "mamba_ssm" if pipeline == MAMBA_SSM else resolve_backend(None, clock.device)

    def forward() -> Tensor:
        with stage.autocast(clock.device):
            return function(*leaves)

    with torch.no_grad():
        cotangent = torch.randn_like(forward())
        timing = clock.time(forward)
    yield stage.timed(clock, what, pipeline, "forward", backend, timing)
    timing = clock.time(lambda: torch.autograd.grad(forward(), leaves, cotangent))
    yield stage.timed(clock, what, pipeline, "forward+backward", backend, timing)


def cuts(clock: Clock, stage: Stage) -> Iterator[Figure]:
    """The scan for every way to cut the sequence into chunks: what the constants in `ops/_triton.py` should be."""
    from swin_umamba_nnunet.ops import _triton

    inputs, cotangent = scan_inputs(clock.device, stage)
    windows = -(-stage.height * stage.width // _triton.WINDOW)
    chosen = _triton._chunks
    settings: Any = (True, True)
    y, states = _triton.forward(*inputs, *settings)
    rest: Any = (states, True)
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("forward", lambda: _triton.forward(*inputs, *settings)),
        ("backward", lambda: _triton.backward(cotangent.float(), *inputs, *rest)),
    )
    try:
        for chunk_windows in sorted({-(-windows // chunks) for chunks in (1, 2, 3, 4, 6, 8, 12, 16, 25, 50, 100)}):
            cut = (-(-windows // chunk_windows), chunk_windows)
            _triton._chunks = lambda *_, cut=cut, **__: cut  # type: ignore[assignment]
            for passes, call in calls:
                yield stage.timed(clock, "scan", f"fused, {cut[0]} chunks", passes, "triton", clock.time(call))
    finally:
        _triton._chunks = chosen


@contextmanager
def glue(fused: bool) -> Iterator[None]:
    """Inside, norm and gate behind the scan are fused with it (where the backend can) or separate."""
    before = os.environ.get(GLUE_VARIABLE)
    os.environ[GLUE_VARIABLE] = "1" if fused else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[GLUE_VARIABLE]
        else:
            os.environ[GLUE_VARIABLE] = before


def autocast(device: str, dtype: torch.dtype, **settings: Any) -> Any:
    """torch.autocast, or nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype, **settings)


def dtype_name(dtype: torch.dtype) -> str:
    """ "float16" for torch.float16."""
    return str(dtype).removeprefix("torch.")


def scan_inputs(device: str, stage: Stage) -> tuple[Any, Tensor]:
    """x, dt, Bs, Cs, A, Ds, dt_bias of `ops._scan.scan`, and a gradient of its output."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    image = (stage.batch, stage.height, stage.width)
    sequences = [random(*image, stage.channels), random(4, *image, stage.channels)]
    sequences += [random(*image, 4, STATES) for _ in range(2)]
    decay = -torch.arange(1.0, STATES + 1, device=device).expand(4, stage.channels, STATES).contiguous()
    parameters = decay, random(4, stage.channels), random(4, stage.channels) - 4
    return (*(t.to(stage.dtype) for t in sequences), *parameters), random(*image, stage.channels).to(stage.dtype)


def core_weights(channels: int) -> list[Tensor]:
    """The parameters of `selective_scan_2d` in float32, as autocast finds them, with VMamba's initial decays."""
    rank = -(-channels // 32)
    return [
        torch.randn(4, rank + 2 * STATES, channels) / channels**0.5, torch.randn(4, channels, rank) / rank**0.5,
        torch.randn(4, channels) - 4, torch.arange(1.0, STATES + 1).log().repeat(4 * channels, 1),
        torch.ones(4 * channels),
    ]  # fmt: skip
