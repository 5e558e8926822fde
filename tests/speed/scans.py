"""The scan alone, SS2D's core and the SS2D block at the shapes of a network's stages, their memory, and other code.

What autograd keeps between forward and backward is counted without computing anything: a forward pass runs on torch's
fake tensors at one image and at two; the difference is what an image costs, without the parameters and their
half-precision copies.  Every block of memory counts once, however many views are kept of it.  The shapes and dtypes are
the device's own, so the figure holds for it; no GPU is needed for those of a GPU's, except that the norm and gate fused
behind the scan (backend `triton`) are only there with it.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import softplus

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import resolve_backend, selective_scan
from swin_umamba_nnunet.ops._scan import scan
from swin_umamba_nnunet.ops._selftest import DIRECTIONS, core_arguments
from tests.speed.materialised import ShapesOfExtension, core, mamba_ssm_2d, pipelines
from tests.speed.measure import Clock, Job, MissingPackageError, autocast, interleaved
from tests.speed.record import (
    BACKWARD,
    BLOCK,
    BOTH,
    CORE,
    FORWARD,
    FUSED,
    LOOP,
    MAMBA_SSM,
    MAMBAPY,
    OWN,
    PLAIN_GLUE,
    SAVED,
    SCAN,
    SEQUENCE,
    Figure,
)

STAGES = ((4, 192), (8, 384), (16, 768), (32, 1536))  # stride, d_inner of VMamba-tiny's stages
OF_SEQUENCE = (1, 384, 400, 16)  # batch, channels, steps, states of the comparison with other code


def stages(batch: int, side: int, dtype: str = "float16", what: str = CORE) -> list[Figure]:
    """One for each stage of a network, of square images with so many pixels a side."""
    shape = {"dtype": dtype, "batch": batch, "size": (side, side)}
    return [Figure(what, **shape, stride=stride, channels=channels) for stride, channels in STAGES]


def stage_jobs(clock: Clock, stage: Figure, backend: str | None = None) -> list[Job]:
    """The scan alone, and the core in every pipeline that runs here, or on one backend."""
    stage = replace(stage, backend=backend)
    cores = [replace(stage, what=CORE, pipeline=p) for p in (pipelines(clock.device) if backend is None else [FUSED])]
    jobs = [Job(alone := replace(stage, what=SCAN), partial(scan_alone, clock, alone))]
    return [*jobs, *(Job(each, partial(scan_with_projections, clock, each)) for each in cores)]


def block_jobs(clock: Clock, stage: Figure) -> list[Job]:
    """The SS2D block, with norm and gate fused behind the scan and with separate ones."""
    forms = [replace(stage, what=BLOCK, pipeline=pipeline) for pipeline in (FUSED, PLAIN_GLUE)]
    return [Job(form, partial(block, clock, form)) for form in forms]


def saved_jobs(device: str) -> list[Job]:
    """What each stage of a network keeps for backward, in the setting of the targets; nothing is computed for it."""
    kept = [replace(stage, passes=SAVED) for stage in stages(12, 320)]
    return [Job(stage, partial(saved_figures, device, stage), 2.0) for stage in kept]


def sweep_jobs(clock: Clock) -> list[Job]:
    """The scan for every way to cut the sequence, one image and twelve."""
    return [Job(s, partial(cuts, clock, s)) for batch in (12, 1) for s in stages(batch, 320, what=SCAN)]


def _timed(clock: Clock, figure: Figure, passes: str, call: Callable[[], Any], **known: Any) -> Figure:
    elements = prod(figure.shape)
    known = {"backend": figure.backend or resolve_backend(None, clock.device)} | known
    return clock.time(
        replace(figure, passes=passes), call, elements=elements, steps=DIRECTIONS * elements * figure.states, **known
    )


def scan_alone(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """The directional scan, given step sizes, B and C: forward, then backward."""
    inputs, cotangent = scan_inputs(clock.device, figure)
    settings = (True, figure.backend or resolve_backend(None, clock.device))
    with torch.no_grad():
        yield _timed(clock, figure, FORWARD, lambda: scan(*inputs, *settings))
    leaves = tuple(t.detach().requires_grad_() for t in inputs)
    y = scan(*leaves, *settings)
    yield _timed(clock, figure, BACKWARD, lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True))


def scan_with_projections(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """SS2D's core from x to the sum over directions: forward, then forward and backward."""
    x, *weights = (t.to(clock.device) for t in core_arguments(figure.shape, figure.states))
    leaves = [t.requires_grad_() for t in (x.to(getattr(torch, figure.dtype)), *weights)]
    function = partial(core(figure.pipeline, figure.backend), out_dtype=torch.float32)
    yield from _both_passes(clock, figure, function, leaves)


def block(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """A whole SS2D block: projections, convolution, norm and gate included, fused behind the scan or not."""
    module = SS2D(figure.shape[3] // 2, d_state=figure.states).to(clock.device)
    x = torch.randn(*figure.shape[:3], figure.shape[3] // 2, device=clock.device)
    leaves = [x.requires_grad_(), *module.parameters()]
    with mock.patch.dict(os.environ, SWIN_UMAMBA_FUSED_GLUE="0" if figure.pipeline == PLAIN_GLUE else "1"):
        yield from _both_passes(clock, figure, lambda image, *_: module(image), leaves)


def _both_passes(
    clock: Clock, figure: Figure, function: Callable[..., Tensor], leaves: list[Tensor]
) -> Iterator[Figure]:
    known = {"backend": "mamba_ssm"} if figure.pipeline == MAMBA_SSM else {}

    def forward():
        with autocast(clock.device, figure.dtype):
            return function(*leaves)

    with torch.no_grad():
        cotangent = torch.randn_like(forward())
        yield _timed(clock, figure, FORWARD, forward, **known)
    yield _timed(clock, figure, BOTH, lambda: torch.autograd.grad(forward(), leaves, cotangent), **known)


def cuts(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """The scan for every way to cut the sequence into chunks: what the constants in `ops/_triton.py` should be."""
    from swin_umamba_nnunet.ops import _triton

    inputs, cotangent = scan_inputs(clock.device, figure)
    windows = -(-prod(figure.shape[1:3]) // _triton.WINDOW)
    settings = (True, True)
    y, states = _triton.forward(*inputs, *settings)
    rest = (states, True)
    calls = {
        FORWARD: lambda: _triton.forward(*inputs, *settings),
        BACKWARD: lambda: _triton.backward(cotangent.float(), *inputs, *rest),
    }
    for chunk_windows in sorted({-(-windows // chunks) for chunks in (1, 2, 3, 4, 6, 8, 12, 16, 25, 50, 100)}):
        cut = (-(-windows // chunk_windows), chunk_windows)
        with mock.patch.object(_triton, "_chunks", lambda *_, cut=cut, **__: cut):
            for passes, call in calls.items():
                yield _timed(clock, replace(figure, pipeline=f"fused, {cut[0]} chunks"), passes, call, backend="triton")


def scan_inputs(device: str, figure: Figure) -> tuple[Any, Tensor]:
    """x, dt, Bs, Cs, A, Ds, dt_bias of `ops._scan.scan`, and a gradient of its output."""
    *image, channels = figure.shape
    states = figure.states
    random = partial(torch.randn, device=device)
    sequences = [random(*image, channels), random(4, *image, channels)]
    sequences += [random(*image, 4, states) for _ in range(2)]
    decay = -torch.arange(1.0, states + 1, device=device).expand(4, channels, states).contiguous()
    parameters = decay, random(4, channels), random(4, channels) - 4
    dtype = getattr(torch, figure.dtype)
    return (*(t.to(dtype) for t in sequences), *parameters), random(*image, channels).to(dtype)


def saved_figures(device: str, figure: Figure) -> list[Figure]:
    """What SS2D's core and a whole SS2D block keep for backward, in each pipeline, on a device of that type."""
    forms = [replace(figure, what=what, pipeline=p) for what in (CORE, BLOCK) for p in (FUSED, OWN, MAMBA_SSM)]
    bytes_of = [[saved_bytes(partial(_forward, device, replace(form, batch=n))) for n in (1, 2)] for form in forms]
    return [
        replace(form, saved_mebibytes=figure.batch * (two - one) / 2**20) for form, (one, two) in zip(forms, bytes_of)
    ]


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps after `forward`, everything it is given included."""
    storages = {}  # kept, so that no address comes up twice

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in storages.values())


def _forward(device: str, figure: Figure) -> Tensor:
    # the shapes of mamba_ssm's extension, which need not be here
    mamba_ssm = partial(mamba_ssm_2d, extension=ShapesOfExtension())
    function = mamba_ssm if figure.pipeline == MAMBA_SSM else core(figure.pipeline)
    if figure.what == BLOCK:
        with torch.device(device):
            module = SS2D(figure.shape[3] // 2, scan=None if figure.pipeline == FUSED else function)
            x = torch.empty(*figure.shape[:3], figure.shape[3] // 2, requires_grad=True)
        with autocast(device, figure.dtype):
            return module(x)
    x, *weights = (t.to(device) for t in core_arguments(figure.shape))
    leaves = [t.requires_grad_() for t in (x.to(getattr(torch, figure.dtype)), *weights)]
    with autocast(device, figure.dtype):
        return function(*leaves, out_dtype=torch.float32)


def plain_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """The form of mamba_ssm's `selective_scan_ref`: decays of all steps at once, then a loop over the steps."""
    delta = softplus(delta + delta_bias[:, None])
    decays = torch.exp(delta[..., None] * A[:, None])  # (batch, dim, L, N)
    inputs = (delta * u)[..., None] * B.transpose(1, 2)[:, None]
    state = torch.zeros_like(decays[:, :, 0])
    outputs = []
    for step in range(u.shape[2]):
        state = decays[:, :, step] * state + inputs[:, :, step]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, step]))
    return torch.stack(outputs, dim=2) + D[:, None] * u


def parallel_scan(pscan: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The same function around mambapy's `pscan(decays, inputs)`, both (batch, L, dim, N), as mambapy calls it."""

    def scan(u, delta, A, B, C, D, delta_bias):
        u, delta, B, C = (t.transpose(1, 2) for t in (u, delta, B, C))
        delta = softplus(delta + delta_bias)
        states = pscan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None])
        return ((states @ C[..., None]).squeeze(3) + D * u).transpose(1, 2)

    return scan


def others(seconds: float) -> Iterator[Figure]:
    """What people run on a CPU, on the same sequence in turns with the scan here.

    Raises:
        MissingPackageError: mambapy is not installed; the other figures come before.
    """
    batch, channels, length, states = OF_SEQUENCE

    def here(u, delta, A, B, C, D, delta_bias):
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=True)

    functions = {FUSED: here, LOOP: plain_loop}
    with suppress(ImportError):
        functions[MAMBAPY] = parallel_scan(importlib.import_module("mambapy.pscan").pscan)
    leaves = [
        torch.randn(batch, channels, length),
        torch.randn(batch, channels, length),
        -torch.arange(1.0, states + 1).expand(channels, states).contiguous(),
        torch.randn(batch, states, length),
        torch.randn(batch, states, length),
        torch.ones(channels),
        torch.randn(channels) - 4,
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    cotangent = torch.randn(batch, channels, length)
    calls = {}
    for name, function in functions.items():
        figure = Figure(SEQUENCE, name, batch=batch, size=(length,), stride=1, channels=channels, states=states)
        calls[figure] = torch.no_grad()(partial(function, *leaves))
        calls[replace(figure, passes=BOTH)] = partial(_both, function, leaves, cotangent)
    yield from interleaved(calls, seconds)
    if MAMBAPY not in functions:
        raise MissingPackageError("mambapy is not installed; pip install --no-deps mambapy")


def _both(function: Callable[..., Any], leaves: list[Tensor], cotangent: Tensor) -> Any:
    return torch.autograd.grad(function(*leaves), leaves, cotangent)
