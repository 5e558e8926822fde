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
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import prod
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import softplus

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import resolve_backend
from swin_umamba_nnunet.ops._scan import scan
from swin_umamba_nnunet.ops._selftest import DIRECTIONS, QUEUES, core_arguments
from tests.ops.cases import inputs_1d
from tests.speed.materialised import ShapesOfExtension, core, own_scan
from tests.speed.measure import WARM_UP, autocast, interleaved
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
    Check,
    Figure,
)

PROGRAMS = (4, 8, 12, 16, 24)  # warps of a multiprocessor that launches are tried with, at each number of
REGISTERS = {f"fused, {given or 'free'} registers": given for given in (None, 128, 160, 255)}  # of a thread (maxnreg)
CALLS = 12  # of a kernel, the first of which warm up
OF_SEQUENCE = (1, 384, 400, 16)  # batch, channels, steps, states of the comparison with other code


def stages(batch, side, dtype="float16", what=CORE, **known):
    """One for each stage of a network, of square images with so many pixels a side."""
    known |= {"dtype": dtype, "batch": batch, "size": (side, side)}
    return [Figure(what, **known, stride=stride, channels=channels) for stride, channels in STAGES]


def measure(clock, figure):
    """The numbers of a figure that has none yet; of several, where they are had together."""
    if figure.passes == SAVED:
        return saved_figures(clock.device, figure)
    if figure.what == SEQUENCE:
        return others(clock.seconds)
    if figure.what == LAUNCHES:
        return kernels(clock, figure)
    call, leaves = (alone if figure.what == SCAN else composed)(clock.device, figure)
    backend = "mamba_ssm" if figure.pipeline == MAMBA_SSM else figure.backend or resolve_backend(None, clock.device)
    glue = {"SWIN_UMAMBA_FUSED_GLUE": "0" if figure.pipeline == PLAIN_GLUE else "1"}
    with mock.patch.dict(os.environ, glue), torch.set_grad_enabled(figure.passes != FORWARD):
        y, timed = call(), call
        cotangent = torch.randn_like(y)
        if figure.passes == BACKWARD:
            timed = partial(torch.autograd.grad, y, leaves, cotangent, retain_graph=True)
        elif figure.passes == BOTH:
            timed = partial(_both, call, leaves, cotangent)
        del y  # and what is kept for its backward pass
        steps = DIRECTIONS * prod(figure.shape) * figure.states
        return [clock.time(figure, timed, steps=steps, backend=backend)]


def _both(call, leaves, cotangent):
    return torch.autograd.grad(call(), leaves, cotangent)


def alone(device, figure):
    """(call, leaves) of the directional scan, given step sizes, B and C."""
    leaves = [t.requires_grad_() for t in scan_inputs(device, figure)]
    return partial(scan, *leaves, True, figure.backend or resolve_backend(None, device)), leaves


def composed(device, figure, **known):
    """(call, leaves) of SS2D's core from x to the sum over directions, or a whole block around it.

    Args:
        device: type of one.
        figure: of what.
        known: settings of `materialised.core`.
    """
    given = None if figure.pipeline in (FUSED, PLAIN_GLUE) else core(figure.pipeline, figure.backend, **known)
    if figure.what == BLOCK:
        with torch.device(device):
            function = SS2D(figure.shape[3] // 2, d_state=figure.states, scan=given)
            x = torch.randn(*figure.shape[:3], figure.shape[3] // 2)
        arguments, leaves = [x], [x, *function.parameters()]
    else:
        x, *weights = (t.to(device) for t in core_arguments(figure.shape, figure.states))
        function = partial(given or core(FUSED, figure.backend), out_dtype=torch.float32)
        arguments = leaves = [x.to(getattr(torch, figure.dtype)), *weights]
    for leaf in leaves:
        leaf.requires_grad_()

    def call():
        with autocast(device, figure.dtype):
            return function(*arguments)

    return call, leaves


def kernels(clock, figure):
    """Each Triton kernel of the scan's forward or backward pass by events of its own.

    As it is launched, or, with the registers that the figure's pipeline names, for every number of `PROGRAMS`.
    """
    from swin_umamba_nnunet.ops import _triton

    inputs = scan_inputs(clock.device, figure)
    cotangent = torch.randn_like(inputs[0], dtype=torch.float32)
    _, states = _triton.forward(*inputs, True, True)
    call = partial(_triton.forward, *inputs, True, True)
    if figure.passes == BACKWARD:
        call = partial(_triton.backward, cotangent, *inputs, states, True)
    swept = figure.pipeline in REGISTERS
    for warps in PROGRAMS if swept else (None,):
        changed = {name: warps or getattr(_triton, name) for name in ("FORWARD_WARPS", "BACKWARD_WARPS")}
        setting = f"{figure.pipeline}, {warps} warps" if swept else figure.pipeline
        options = {"maxnreg": REGISTERS[figure.pipeline]} if swept else {}
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
def launches(options):
    """Inside, launches of the scan's kernels have these options (None: not that one) and are kept.

    Yields a dict that gets, for each kernel, (event before, event behind, state-steps) of every launch.
    """
    from swin_umamba_nnunet.ops import _triton, _triton_kernels

    seen = {}

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


def scan_inputs(device, figure):
    """x, dt, Bs, Cs, A, Ds, dt_bias of `ops._scan.scan`."""
    *image, channels = figure.shape
    states = figure.states
    random = partial(torch.randn, device=device)
    sequences = [random(*image, channels), random(4, *image, channels)]
    sequences += [random(*image, 4, states) for _ in range(2)]
    decay = -torch.arange(1.0, states + 1, device=device).expand(4, channels, states).contiguous()
    parameters = decay, random(4, channels), random(4, channels) - 4
    return (*(t.to(getattr(torch, figure.dtype)) for t in sequences), *parameters)


def saved_figures(device, figure):
    """What SS2D's core and a whole SS2D block keep for backward, in each pipeline, on a device of that type."""

    def forward(form, known):
        composed(device, form, **known)[0]()

    # the shapes of mamba_ssm's extension, which need not be here
    pipelines = {FUSED: {}, OWN: {}, MAMBA_SSM: {"extension": ShapesOfExtension()}}
    for what in (CORE, BLOCK):
        for pipeline, known in pipelines.items():
            form = replace(figure, what=what, pipeline=pipeline)
            one, two = (saved_bytes(partial(forward, replace(form, batch=n), known)) for n in (1, 2))
            yield replace(form, saved_mebibytes=figure.batch * (two - one) / 2**20)


def saved_bytes(forward):
    """Bytes that autograd keeps after `forward`, everything it is given included."""
    storages = {}  # kept, so that no address comes up twice

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(size for size, _ in storages.values())


def plain_loop(u, delta, A, B, C, D, delta_bias):
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


def parallel_scan(pscan):
    """The same function around mambapy's `pscan(decays, inputs)`, both (batch, L, dim, N), as mambapy calls it."""

    def scan(u, delta, A, B, C, D, delta_bias):
        u, delta, B, C = (t.transpose(1, 2) for t in (u, delta, B, C))
        delta = softplus(delta + delta_bias)
        states = pscan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None])
        return ((states @ C[..., None]).squeeze(3) + D * u).transpose(1, 2)

    return scan


def others(seconds):
    """What people run on a CPU, on the same sequence in turns with the scan here."""
    batch, channels, length, states = OF_SEQUENCE

    functions = {FUSED: own_scan, LOOP: plain_loop}
    with suppress(ImportError):
        functions[MAMBAPY] = parallel_scan(importlib.import_module("mambapy.pscan").pscan)
    leaves = [leaf.float().requires_grad_() for leaf in inputs_1d(*OF_SEQUENCE)]
    cotangent = torch.randn_like(leaves[0])
    calls = {}
    for name, function in functions.items():
        figure = Figure(SEQUENCE, name, batch=batch, size=(length,), stride=1, channels=channels, states=states)
        calls[figure] = torch.no_grad()(partial(function, *leaves))
        calls[replace(figure, passes=BOTH)] = partial(_both, partial(function, *leaves), leaves, cotangent)
    yield from interleaved(calls, seconds)
    if MAMBAPY not in functions:
        yield Check(MAMBAPY, detail="mambapy is not installed; pip install --no-deps mambapy", skipped=True)
