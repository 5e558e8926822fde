"""The scan alone, SS2D's core and the SS2D block at the shapes of a network's stages, their memory, and other code.

What autograd keeps between forward and backward is counted without computing anything: a forward pass runs on torch's
fake tensors at one image and at two; the difference is what an image costs, without the parameters and their
half-precision copies.  Every block of memory counts once, however many views are kept of it.  The shapes and dtypes are
the device's own, so the figure holds for it; no GPU is needed for those of a GPU's, except that the norm and gate fused
behind the scan (backend `triton`) are only there with it.
"""

import importlib
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
from swin_umamba_nnunet.ops._selftest import DIRECTIONS, QUEUES, core_arguments
from tests.speed.jobs import Job, MissingPackageError
from tests.speed.materialised import ShapesOfExtension, core, mamba_ssm_2d, pipelines
from tests.speed.measure import WARM_UP, Clock, autocast, interleaved
from tests.speed.record import (
    BACKWARD,
    BLOCK,
    BOTH,
    CORE,
    FORWARD,
    FUSED,
    KERNELS,
    LAUNCHES,
    LOOP,
    MAMBA_SSM,
    MAMBAPY,
    OWN,
    PLAIN_GLUE,
    SAVED,
    SCAN,
    SEQUENCE,
    STAGES,
    Figure,
)

PROGRAMS = (4, 8, 12, 16, 24)  # warps of a multiprocessor, and
REGISTERS = (None, 128, 160, 255)  # registers of a thread, that launches are tried with
CALLS = 12  # of a kernel, the first of which warm up
OF_SEQUENCE = (1, 384, 400, 16)  # batch, channels, steps, states of the comparison with other code


def stages(batch: int, side: int, dtype: str = "float16", what: str = CORE) -> list[Figure]:
    """One for each stage of a network, of square images with so many pixels a side."""
    shape = {"dtype": dtype, "batch": batch, "size": (side, side)}
    return [Figure(what, **shape, stride=stride, channels=channels) for stride, channels in STAGES]


def stage_jobs(clock: Clock, stage: Figure, backend: str | None = None) -> list[Job]:
    """The scan alone, and the core in every pipeline that runs here, or on one backend."""
    stage = replace(stage, backend=backend)
    cores = [replace(stage, what=CORE, pipeline=p) for p in (pipelines(clock.device) if backend is None else [FUSED])]
    alone = [replace(stage, what=SCAN, passes=passes) for passes in (FORWARD, BACKWARD)]
    both = [replace(core, passes=passes) for core in cores for passes in (FORWARD, BOTH)]
    return [Job(f, partial(scan_alone, clock, f)) for f in alone] + [
        Job(f, partial(scan_with_projections, clock, f)) for f in both
    ]


def block_jobs(clock: Clock, stage: Figure) -> list[Job]:
    """The SS2D block, with norm and gate fused behind the scan and with separate ones."""
    forms = [replace(stage, what=BLOCK, pipeline=p, passes=q) for p in (FUSED, PLAIN_GLUE) for q in (FORWARD, BOTH)]
    return [Job(form, partial(block, clock, form)) for form in forms]


def saved_jobs(device: str) -> list[Job]:
    """What each stage of a network keeps for backward, in the setting of the targets; nothing is computed for it."""
    kept = [replace(stage, passes=SAVED) for stage in stages(12, 320)]
    return [Job(stage, partial(saved_figures, device, stage), 2.0) for stage in kept]


def kernel_jobs(clock: Clock, registers: Sequence[int | None] = ()) -> list[Job]:
    """Each kernel at each stage as it is launched, or at every number of programs and these numbers of registers."""
    settings = [f"fused, {given or 'free'} registers" for given in registers] or [FUSED]
    forms = [
        (replace(stage, pipeline=setting, passes=passes), given)
        for setting, given in zip(settings, registers or [None])
        for stage in stages(12, 320, what=LAUNCHES)
        for passes in (FORWARD, BACKWARD)
    ]
    return [
        Job(form, partial(kernels, clock, form, PROGRAMS if registers else (), given), 5.0) for form, given in forms
    ]


def _timed(clock: Clock, figure: Figure, call: Callable[[], Any], **known: Any) -> Figure:
    elements = prod(figure.shape)
    known = {"backend": figure.backend or resolve_backend(None, clock.device)} | known
    return clock.time(figure, call, elements=elements, steps=DIRECTIONS * elements * figure.states, **known)


def scan_alone(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """The directional scan, given step sizes, B and C: forward or backward."""
    inputs, cotangent = scan_inputs(clock.device, figure)
    settings = (True, figure.backend or resolve_backend(None, clock.device))
    if figure.passes == FORWARD:
        with torch.no_grad():
            yield _timed(clock, figure, lambda: scan(*inputs, *settings))
        return
    leaves = tuple(t.detach().requires_grad_() for t in inputs)
    y = scan(*leaves, *settings)
    yield _timed(clock, figure, lambda: torch.autograd.grad(y, leaves, cotangent, retain_graph=True))


def scan_with_projections(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """SS2D's core from x to the sum over directions: forward, or forward and backward."""
    x, *weights = (t.to(clock.device) for t in core_arguments(figure.shape, figure.states))
    leaves = [t.requires_grad_() for t in (x.to(getattr(torch, figure.dtype)), *weights)]
    function = partial(core(figure.pipeline, figure.backend), out_dtype=torch.float32)
    yield _one_of_both(clock, figure, function, leaves)


def block(clock: Clock, figure: Figure) -> Iterator[Figure]:
    """A whole SS2D block: projections, convolution, norm and gate included, fused behind the scan or not."""
    module = SS2D(figure.shape[3] // 2, d_state=figure.states).to(clock.device)
    x = torch.randn(*figure.shape[:3], figure.shape[3] // 2, device=clock.device)
    leaves = [x.requires_grad_(), *module.parameters()]
    with mock.patch.dict(os.environ, SWIN_UMAMBA_FUSED_GLUE="0" if figure.pipeline == PLAIN_GLUE else "1"):
        yield _one_of_both(clock, figure, lambda image, *_: module(image), leaves)


def _one_of_both(clock: Clock, figure: Figure, function: Callable[..., Tensor], leaves: list[Tensor]) -> Figure:
    known = {"backend": "mamba_ssm"} if figure.pipeline == MAMBA_SSM else {}

    def forward():
        with autocast(clock.device, figure.dtype):
            return function(*leaves)

    with torch.no_grad():
        cotangent = torch.randn_like(forward())
        if figure.passes == FORWARD:
            return _timed(clock, figure, forward, **known)
    return _timed(clock, figure, lambda: torch.autograd.grad(forward(), leaves, cotangent), **known)


def kernels(clock: Clock, figure: Figure, programs: Sequence[int], registers: int | None) -> Iterator[Figure]:
    """Each Triton kernel of the scan's forward or backward pass by events of its own, for every number of programs.

    Args:
        clock: of a GPU.
        figure: which pass, at which shape.
        programs: warps of a multiprocessor that the work is cut for; none for the numbers in `ops/_triton.py`.
        registers: of a thread (`maxnreg`), with `programs`; None to leave it to the assembler.
    """
    from swin_umamba_nnunet.ops import _triton

    inputs, cotangent = scan_inputs(clock.device, figure)
    _, states = _triton.forward(*inputs, True, True)
    call = partial(_triton.forward, *inputs, True, True)
    if figure.passes == BACKWARD:
        call = partial(_triton.backward, cotangent.float(), *inputs, states, True)
    for warps in programs or (None,):
        changed = {name: warps or getattr(_triton, name) for name in ("FORWARD_WARPS", "BACKWARD_WARPS")}
        setting = f"{figure.pipeline}, {warps} warps" if warps else figure.pipeline
        options = {"maxnreg": registers} if warps else {}
        with mock.patch.multiple(_triton, **changed), launches(options) as seen:
            for _ in range(CALLS):
                torch.cuda._sleep(QUEUES[0])
                call()
            torch.cuda.synchronize()
        for kernel, timed in seen.items():
            (*_, steps) = timed[-1]
            taken = statistics.median(begin.elapsed_time(end) for begin, end, _ in timed[WARM_UP:])
            numbers = {"milliseconds": taken, "giga_state_steps": steps / taken / 1e6}
            yield replace(figure, what=kernel, pipeline=setting, backend="triton", **numbers)


@contextmanager
def launches(options: Mapping[str, Any]) -> Iterator[dict[str, list[tuple[Any, Any, int]]]]:
    """Inside, launches of the scan's kernels have these options (None: not that one) and are kept.

    Yields a dict that gets, for each kernel, (event before, event behind, state-steps) of every launch.
    """
    from swin_umamba_nnunet.ops import _triton, _triton_kernels

    seen: dict[str, list[tuple[Any, Any, int]]] = {}

    class Timed:
        def __init__(self, name):
            self.name, self.kernel = name, getattr(_triton_kernels, name)

        def __getitem__(self, grid):
            def launch(*arguments, **given):
                at = dict(zip(self.kernel.arg_names, arguments))
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                self.kernel[grid](*arguments, **{k: v for k, v in {**given, **options}.items() if v is not None})
                end.record()
                one = at["chunk_windows"] * _triton.WINDOW
                # those that find what enters a chunk leave out the last one, or the first
                walked = {"state_kernel": (at["chunks"] - 1) * one, "adjoint_kernel": at["L"] - one}
                steps = walked.get(self.name, at["L"]) * at["batch"] * at["D"] * given["K"] * given["N"]
                seen.setdefault(self.name, []).append((begin, end, steps))

            return launch

    with mock.patch.multiple(_triton_kernels, **{name: Timed(name) for name in KERNELS}):
        yield seen


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
