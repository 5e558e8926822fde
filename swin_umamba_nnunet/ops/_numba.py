"""CPU backend: explicit 16-lane vectors in numba, forward and backward, no autograd inside and no compiler at install.

Channels are the lanes: one vector holds 16 neighbouring channels, so a time step is N independent vector updates and
every load is contiguous, whichever direction the scan runs in (`_numba_vectors` has the vectors).

Work is split into (image, block of channels) tasks whose size depends on the shape alone.  A task owns the outputs it
writes and runs its directions in order; what several blocks contribute to (dB, dC) goes to separate rows that are
added in a fixed order.  So the result is the same bit for bit at any number of threads.  Threads are a plain Python
pool over code that releases the GIL: as many as torch uses, usable from several threads at once, and renewed after
fork, which numba's own threading layers do not offer together.

Memory is linear in L, without a state per position: backward recomputes one window at a time from the saved states.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from swin_umamba_nnunet.ops._numba_vectors import (
    LANES,
    LN2,
    LOG2E,
    broadcast,
    compile_kernel,
    exp2,
    exponent_range,
    inline,
    load,
    prefetch,
    sigmoid,
    softplus,
    splat,
    store,
    totals,
)

WINDOW = 64  # steps between saved states, the contract of `_scan`
_AHEAD = 6  # steps to prefetch ahead
_BLOCKS = (64, 32, 16)  # channels a task takes, widest first


def unavailable_reason(device_type: str) -> str | None:
    """None where this backend runs: on CPU tensors, and on MPS tensors through copies to the host."""
    return None if device_type in ("cpu", "mps", "meta") else "it computes on the CPU only"


# ---------------------------------------------------------------------------------------------------- kernels
# Flat float32 arrays throughout: array views made per step would be reference-counted.  All of them share one layout
# rule: the last axis is the one named last in the contract of `_scan`.


@inline
def _position(k, t, height, width):
    """Place in the row-major image of step `t` of direction `k`."""
    step = t if k < 2 else height * width - 1 - t
    return (step % height) * width + step // height if k % 2 else step


@inline
def _prefetch_inputs(x, dt, Bs, Cs, ahead, k, positions, directions, N, channels, first, block):
    """Ask for what the step at the place `ahead` will read."""
    for v in range(0, block, LANES):
        prefetch(x, ahead * channels + first + v)
        prefetch(dt, (k * positions + ahead) * channels + first + v)
    for n in range(0, N, LANES):
        prefetch(Bs, (ahead * directions + k) * N + n)
        prefetch(Cs, (ahead * directions + k) * N + n)


@inline
def _decay(delta, rate, decaying):
    """exp(delta A) from A * log2(e); `decaying` says that no exponent is above zero."""
    exponent = delta * rate
    if not decaying:
        exponent = exponent_range(exponent)
    return exp2(exponent)


_ARRAYS = "float32[::1]"


@compile_kernel(f"void({', '.join([_ARRAYS] * 10)}, {', '.join(['intp'] * 9)}, boolean, boolean, boolean)")
def _forward_block(
    x, dt, Bs, Cs, A, Ds, dt_bias, y, states, scratch,
    image, images, first, block, height, width, channels, directions, N, delta_softplus, decaying, save_states,
):  # fmt: skip
    """All directions of one image for the channels [first, first + block); A holds A*log2(e) as (K, N, D).

    scratch: 2 * N * block values (the states, and this block's part of A).
    """
    length = height * width
    positions = images * length
    windows = (length + WINDOW - 1) // WINDOW
    decay = N * block
    for k in range(directions):
        for n in range(N):
            for v in range(0, block, LANES):
                store(scratch, n * block + v, splat(np.float32(0)))
                store(scratch, decay + n * block + v, load(A, (k * N + n) * channels + first + v))
        for t in range(length):
            if save_states and t % WINDOW == 0:
                saved = ((image * directions + k) * windows + t // WINDOW) * N * channels + first
                for n in range(N):
                    for v in range(0, block, LANES):
                        store(states, saved + n * channels + v, load(scratch, n * block + v))
            place = image * length + _position(k, t, height, width)
            row = (place * directions + k) * N
            ahead = image * length + _position(k, min(t + _AHEAD, length - 1), height, width)
            _prefetch_inputs(x, dt, Bs, Cs, ahead, k, positions, directions, N, channels, first, block)
            for v in range(0, block, LANES):
                prefetch(y, ahead * channels + first + v)
            for v in range(0, block, LANES):
                z = load(dt, (k * positions + place) * channels + first + v)
                z = z + load(dt_bias, k * channels + first + v)
                delta = softplus(z) if delta_softplus else z
                u = load(x, place * channels + first + v)
                delta_u = delta * u
                total = load(Ds, k * channels + first + v) * u
                if k > 0:
                    total = total + load(y, place * channels + first + v)
                for n in range(N):
                    state = n * block + v
                    a = _decay(delta, load(scratch, decay + state), decaying)
                    h = a * load(scratch, state) + delta_u * broadcast(Bs, row + n)
                    store(scratch, state, h)
                    total = total + h * broadcast(Cs, row + n)
                store(y, place * channels + first + v, total)


@compile_kernel(f"void({', '.join([_ARRAYS] * 17)}, {', '.join(['intp'] * 9)}, boolean, boolean)")
def _backward_block(
    dy, x, dt, Bs, Cs, A, Ds, dt_bias, states, dx, ddt, dBs, dCs, dA, dDs, ddt_bias, scratch,
    image, images, first, block, height, width, channels, directions, N, delta_softplus, decaying,
):  # fmt: skip
    """Gradients of one block of channels of one image.

    dBs, dCs: rows of this block, (block, image, L, K, N rounded up to LANES).  dA, dDs, ddt_bias: rows of this image.
    scratch: `_scratch_size` values.
    """
    length = height * width
    positions = images * length
    windows = (length + WINDOW - 1) // WINDOW
    padded = (N + LANES - 1) // LANES * LANES
    size = N * block
    decay, grad, grad_A = size, 2 * size, 3 * size  # offsets in scratch; the states themselves start at 0
    history, decays = 4 * size, (5 + WINDOW) * size  # history: the state before each step, and after the last
    sums_B = decays + WINDOW * size
    sums_C = sums_B + padded * LANES
    small = sums_C + padded * LANES  # block values each: d(skip), d(dt_bias)
    zero = splat(np.float32(0))
    for i in range(sums_B, small, LANES):
        store(scratch, i, zero)
    for k in range(directions):
        for n in range(N):
            for v in range(0, block, LANES):
                state = n * block + v
                store(scratch, decay + state, load(A, (k * N + n) * channels + first + v))
                store(scratch, grad + state, zero)
                store(scratch, grad_A + state, zero)
        for v in range(0, 2 * block, LANES):
            store(scratch, small + v, zero)
        for window in range(windows - 1, -1, -1):
            begin = window * WINDOW
            steps = min(WINDOW, length - begin)
            saved = ((image * directions + k) * windows + window) * N * channels + first
            for n in range(N):
                for v in range(0, block, LANES):
                    store(scratch, history + n * block + v, load(states, saved + n * channels + v))
            for i in range(steps):  # the states and decays of this window again
                place = image * length + _position(k, begin + i, height, width)
                row = (place * directions + k) * N
                ahead = image * length + _position(k, begin + min(i + _AHEAD, steps - 1), height, width)
                _prefetch_inputs(x, dt, Bs, Cs, ahead, k, positions, directions, N, channels, first, block)
                for v in range(0, block, LANES):
                    prefetch(dy, place * channels + first + v)
                    prefetch(dx, place * channels + first + v)
                for v in range(0, block, LANES):
                    z = load(dt, (k * positions + place) * channels + first + v) + load(
                        dt_bias, k * channels + first + v
                    )
                    delta = softplus(z) if delta_softplus else z
                    delta_u = delta * load(x, place * channels + first + v)
                    for n in range(N):
                        state = n * block + v
                        a = _decay(delta, load(scratch, decay + state), decaying)
                        store(scratch, decays + i * size + state, a)
                        h = a * load(scratch, history + i * size + state) + delta_u * broadcast(Bs, row + n)
                        store(scratch, history + (i + 1) * size + state, h)
            for i in range(steps - 1, -1, -1):
                place = image * length + _position(k, begin + i, height, width)
                row = (place * directions + k) * N
                for v in range(0, block, LANES):
                    z = load(dt, (k * positions + place) * channels + first + v) + load(
                        dt_bias, k * channels + first + v
                    )
                    delta = softplus(z) if delta_softplus else z
                    u = load(x, place * channels + first + v)
                    g_y = load(dy, place * channels + first + v)
                    delta_u = delta * u
                    through_A = zero
                    through_B = zero
                    for n in range(N):
                        state = n * block + v
                        B_n = broadcast(Bs, row + n)
                        a = load(scratch, decays + i * size + state)
                        before = load(scratch, history + i * size + state)
                        after = load(scratch, history + (i + 1) * size + state)
                        g_h = load(scratch, grad + state) + g_y * broadcast(Cs, row + n)
                        through_B = through_B + g_h * B_n
                        lane_B = g_h * delta_u
                        lane_C = g_y * after
                        if v > 0:
                            lane_B = lane_B + load(scratch, sums_B + n * LANES)
                            lane_C = lane_C + load(scratch, sums_C + n * LANES)
                        store(scratch, sums_B + n * LANES, lane_B)
                        store(scratch, sums_C + n * LANES, lane_C)
                        g_h = g_h * a
                        store(scratch, grad + state, g_h)
                        g_decay = g_h * before
                        through_A = through_A + g_decay * load(scratch, decay + state)
                        store(scratch, grad_A + state, load(scratch, grad_A + state) + g_decay * delta)
                    # A is stored times log2(e), hence ln 2
                    g_z = through_A * splat(np.float32(LN2)) + through_B * u
                    if delta_softplus:
                        g_z = g_z * sigmoid(z)
                    g_u = through_B * delta + load(Ds, k * channels + first + v) * g_y
                    if k > 0:
                        g_u = g_u + load(dx, place * channels + first + v)
                    store(dx, place * channels + first + v, g_u)
                    store(ddt, (k * positions + place) * channels + first + v, g_z)
                    store(scratch, small + v, load(scratch, small + v) + g_y * u)
                    store(scratch, small + block + v, load(scratch, small + block + v) + g_z)
                target = (((first // block * images + image) * length) * directions) * padded
                target += ((place - image * length) * directions + k) * padded
                for n in range(0, padded, LANES):
                    store(dBs, target + n, totals(scratch, sums_B + n * LANES))
                    store(dCs, target + n, totals(scratch, sums_C + n * LANES))
        for v in range(0, block, LANES):
            own = (image * directions + k) * channels + first + v
            store(dDs, own, load(scratch, small + v))
            store(ddt_bias, own, load(scratch, small + block + v))
            for n in range(N):
                own = ((image * directions + k) * N + n) * channels + first + v
                store(dA, own, load(scratch, grad_A + n * block + v))


def _scratch_size(N: int, block: int) -> int:
    padded = -(-N // LANES) * LANES
    return (5 + 2 * WINDOW) * N * block + 2 * padded * LANES + 2 * block


# ---------------------------------------------------------------------------------------------------- host side


def forward(
    x: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor, Ds: Tensor, dt_bias: Tensor, delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `_scan`."""
    device = x.device
    images, height, width, channels = x.shape
    directions, _, N = A.shape
    inputs, padded = _prepare(x, dt, Bs, Cs, A, Ds, dt_bias)
    block = _block(images, padded)
    decaying = _decaying(A, delta_softplus)
    windows = -(-height * width // WINDOW)
    y = _buffer(images, height, width, padded)
    states = _buffer(images, directions, windows, N, padded) if save_states else _buffer(0)
    arrays = [*inputs, _flat(y), _flat(states)]

    def task(image: int, first: int) -> None:
        _forward_block(*arrays, _scratch(2 * N * block), image, images, first, block, height, width, padded,
                       directions, N, delta_softplus, decaying, save_states)  # fmt: skip

    _run(task, images, range(0, padded, block))
    y = y[..., :channels].contiguous().to(device)
    return y, (states[..., :channels].contiguous() if save_states else states).to(device)


def backward(
    dy: Tensor, x: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor, Ds: Tensor, dt_bias: Tensor, states: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `_scan`."""
    device = x.device
    images, height, width, channels = x.shape
    directions, _, N = A.shape
    inputs, padded = _prepare(x, dt, Bs, Cs, A, Ds, dt_bias)
    block = _block(images, padded)
    decaying = _decaying(A, delta_softplus)
    rounded = -(-N // LANES) * LANES
    dx = _buffer(images, height, width, padded)
    ddt = _buffer(directions, images, height, width, padded)
    dBs, dCs = (_buffer(padded // block, images, height, width, directions, rounded) for _ in range(2))
    dA = _buffer(images, directions, N, padded)
    dDs, ddt_bias = (_buffer(images, directions, padded) for _ in range(2))
    arrays = [_flat(_pad(dy, padded)), *inputs, _flat(_pad(states, padded))]
    arrays += [_flat(t) for t in (dx, ddt, dBs, dCs, dA, dDs, ddt_bias)]

    def task(image: int, first: int) -> None:
        _backward_block(*arrays, _scratch(_scratch_size(N, block)), image, images, first, block, height,
                        width, padded, directions, N, delta_softplus, decaying)  # fmt: skip

    _run(task, images, range(0, padded, block))
    gradients = (
        dx[..., :channels], ddt[..., :channels], dBs.sum(0)[..., :N], dCs.sum(0)[..., :N],
        dA.sum(0)[..., :channels].transpose(1, 2), dDs.sum(0)[..., :channels], ddt_bias.sum(0)[..., :channels],
    )  # fmt: skip
    return tuple(g.contiguous().to(device) for g in gradients)  # type: ignore[return-value]


def _prepare(x, dt, Bs, Cs, A, Ds, dt_bias) -> tuple[list[np.ndarray], int]:
    """The kernels' flat inputs, channels padded with zeros to whole vectors, and the padded number of channels."""
    padded = -(-x.shape[-1] // LANES) * LANES
    decay = A.cpu().transpose(1, 2) * LOG2E
    return [
        _flat(_pad(x, padded)), _flat(_pad(dt, padded)), _flat(Bs), _flat(Cs),
        _flat(_pad(decay, padded)), _flat(_pad(Ds, padded)), _flat(_pad(dt_bias, padded)),
    ], padded  # fmt: skip


def _decaying(A: Tensor, delta_softplus: bool) -> bool:
    """Whether every exponent is at most 0, so that the kernels need not look for overflow."""
    return delta_softplus and bool((A <= 0).all())


def _pad(tensor: Tensor, channels: int) -> Tensor:
    missing = channels - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).contiguous().view(-1).numpy()


def _block(images: int, channels: int) -> int:
    """Channels per task: wide tasks share B and C, many tasks feed many threads.  The shape alone decides."""
    fitting = [block for block in _BLOCKS if channels % block == 0]
    return next((block for block in fitting if images * (channels // block) >= 4), fitting[-1])


def _run(task, images: int, blocks: range) -> None:
    """Run `task(image, first)` for every pair, on as many threads as torch uses, this one included."""
    pairs = [(image, first) for image in range(images) for first in blocks]
    left = iter(pairs)  # shared: a list's iterator hands each element out once

    def work() -> None:
        for pair in left:
            task(*pair)

    helpers = min(torch.get_num_threads(), len(pairs)) - 1
    pending = [_pool(helpers).submit(work) for _ in range(helpers)]
    work()
    for helper in pending:
        helper.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="selective-scan")


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork; the child makes its own


def _scratch(size: int) -> np.ndarray:
    """Working memory of one task, from torch because it aligns to cache lines: unaligned vectors straddle two."""
    return _flat(_buffer(size))


def _buffer(*shape: int) -> Tensor:
    """Memory for the kernels to fill: what they expect, whatever torch's default dtype and device are set to."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")
