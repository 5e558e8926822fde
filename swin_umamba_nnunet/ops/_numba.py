"""CPU backend: explicit 16-lane vectors in numba, forward and backward, no autograd inside and no compiler at install.

Channels are the lanes: one vector holds 16 neighbouring channels, so a time step is N independent vector updates and
every load is contiguous, whichever direction the scan runs in.  What has no memory of the step before (places, step
sizes after the softplus, in the backward pass copies of B and C) is prepared for a window of steps, which is then
walked with the states in registers (`_numba_vectors` has the vectors and these loops), while the caches fetch what the
next window needs.  Step sizes are made from their low-rank form window by window and never exist as a tensor; their
gradient goes back the same way.

Work is split into (image, group of channels) tasks whose size depends on the shape alone.  A task owns the outputs it
writes and runs its directions in order; what several tasks contribute to one number goes to separate rows that are
added in a fixed order.  So the result is the same bit for bit at any number of threads.

Threads are torch's own (`_run`): its OpenMP threads keep spinning for a while after a matrix product, and any others
would have to share the cores with them.

Memory is linear in L, without a state per position: backward recomputes one window at a time from the saved states.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from enum import IntEnum
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from swin_umamba_nnunet.ops._numba_vectors import (
    AT_ONCE,
    LANES,
    LN2,
    LOG2E,
    address,
    argument,
    beyond,
    compile_kernel,
    contract,
    correlate,
    exp2,
    expand,
    forward_window,
    get,
    get_integer,
    inline,
    load,
    prefetch,
    put,
    put_integer,
    recompute_window,
    reverse_window,
    softplus_and_slope,
    splat,
    store,
    take,
    transpose,
)

WINDOW = 64  # steps between saved states, the contract of `_scan`
_MOST_VECTORS = 8  # of a task: more share B and C, fewer feed more threads
_TASKS_WANTED = 8
_PLACES_SIZE = 4 * WINDOW  # float32 values that a window's integers take


def unavailable_reason(device_type: str) -> str | None:
    """None where this backend runs: on CPU tensors, and on MPS tensors through copies to the host."""
    return None if device_type in ("cpu", "mps", "meta") else "it computes on the CPU only"


# ---------------------------------------------------------------------------------------------------- kernels
# What a kernel is given: one array of integers, addresses among them, in this order.

_At = IntEnum(
    "_At",
    "NEXT_TASK NEXT_SLOT TASKS SCRATCH SCRATCH_SIZE IMAGES HEIGHT WIDTH CHANNELS DIRECTIONS STATES RANK "
    "VECTORS SETS SOFTPLUS LOGARITHMS SAVE POSITION_STEP DIRECTION_STEP X DT WEIGHT BIAS A DS LOW_RANK BS "
    "CS Y SAVED DY DX DDT ROWS DA DDS DBIAS DWEIGHT",
    start=0,
)


@inline
def _transposed(source, step, columns, target):
    """Sixteen rows of so many values, `step` apart -> a vector per column."""
    done = 0
    while done + LANES <= columns:
        transpose(beyond(source, done), step, beyond(target, done * LANES), LANES)
        done += LANES
    for lane in range(LANES):
        for column in range(done, columns):
            put(target, column * LANES + lane, get(source, lane * step + column))


@inline
def _transposed_back(source, columns, target, step):
    """The inverse."""
    done = 0
    while done + LANES <= columns:
        transpose(beyond(source, done * LANES), LANES, beyond(target, done), step)
        done += LANES
    for lane in range(LANES):
        for column in range(done, columns):
            put(target, lane * step + column, get(source, column * LANES + lane))


@inline
def _load_parameters(arguments, own, first, A, weight):
    """What belongs to sixteen channels: a vector of A * log2(e) per state, a vector of weights per rank."""
    N, rank = argument(arguments, _At.STATES), argument(arguments, _At.RANK)
    channel = own * argument(arguments, _At.CHANNELS) + first
    _transposed(beyond(address(arguments, _At.A), channel * N), N, N, A)
    for n in range(N):
        value = load(A, n * LANES) * splat(np.float32(LOG2E))
        if argument(arguments, _At.LOGARITHMS):
            value = splat(np.float32(-LOG2E)) * exp2(value)
        store(A, n * LANES, value)
    if rank > 0:
        _transposed(beyond(address(arguments, _At.WEIGHT), channel * rank), rank, rank, weight)


@inline
def _copy(source, target, count):
    done = 0
    while done + LANES <= count:
        store(target, done, load(source, done))
        done += LANES
    while done < count:
        put(target, done, get(source, done))
        done += 1


@inline
def _of_window(places, window):
    """Where its places and beginnings lie: there is room for two windows, as the next one's are asked for early."""
    own = beyond(places, window % 2 * _PLACES_SIZE)
    return own, beyond(own, 2 * WINDOW)


@inline
def _places(arguments, image, k, window, steps, places):
    """The positions of a window's steps, and where their values of B, C and low-rank step sizes begin.

    Beginnings are filled up to what `expand` takes.
    """
    height, width = argument(arguments, _At.HEIGHT), argument(arguments, _At.WIDTH)
    position_step, direction = argument(arguments, _At.POSITION_STEP), k * argument(arguments, _At.DIRECTION_STEP)
    places, begins = _of_window(places, window)
    # where the window begins, then step by step: a division for each would take as long as all of the rest
    along, across = (height, width) if k % 2 else (width, height)
    step = window * WINDOW if k < 2 else height * width - 1 - window * WINDOW
    fast, slow = step % along, step // along
    forth = 1 if k < 2 else -1
    begin = 0
    for t in range(steps):
        place = image * height * width + (fast * width + slow if k % 2 else slow * width + fast)
        begin = place * position_step + direction
        put_integer(places, t, place)
        put_integer(begins, t, begin)
        fast += forth
        if fast == along:
            fast, slow = 0, slow + 1
        elif fast < 0:
            fast, slow = along - 1, slow - 1
    for t in range(steps, (steps + AT_ONCE - 1) // AT_ONCE * AT_ONCE):
        put_integer(begins, t, begin)


@inline
def _ask_for(arguments, start, count, window, steps, places, first, second, rows, row_step):
    """Have the second cache fetch what a task needs in a window: of two images, of the projections, and of rows."""
    channels, columns = argument(arguments, _At.CHANNELS), argument(arguments, _At.DIRECTION_STEP)
    projected = beyond(address(arguments, _At.BS), -argument(arguments, _At.RANK))
    places, begins = _of_window(places, window)
    for t in range(steps):
        at = get_integer(places, t) * channels + start
        for v in range(count):
            prefetch(first, at + v * LANES)
            prefetch(second, at + v * LANES)
        at = get_integer(begins, t)
        for i in range(0, columns, LANES):
            prefetch(projected, at + i)
            if row_step:
                prefetch(rows, get_integer(places, t) * row_step + i)


@inline
def _before_softplus(arguments, k, first, bias, steps, places, begins, weight, z):
    """Step sizes of sixteen channels before the softplus, from their low-rank form or as they were given."""
    rank = argument(arguments, _At.RANK)
    if rank > 0:
        whole = (steps + AT_ONCE - 1) // AT_ONCE * AT_ONCE
        expand(whole, rank, z, bias, weight, begins, address(arguments, _At.LOW_RANK))
    else:
        channels = argument(arguments, _At.CHANNELS)
        positions = argument(arguments, _At.IMAGES) * argument(arguments, _At.HEIGHT) * argument(arguments, _At.WIDTH)
        given = address(arguments, _At.DT)
        for t in range(steps):
            at = (k * positions + get_integer(places, t)) * channels + first
            store(z, t * LANES, load(given, at) + bias)


def _forward_size(N: int, rank: int, vectors: int) -> int:
    """float32 values of working memory that `_forward_kernel` needs."""
    return WINDOW * 3 * LANES + 2 * _PLACES_SIZE + vectors * LANES * (2 * N + rank)


@compile_kernel
def _forward_kernel(arguments):
    """All directions of one image for the channels of a task, window by window: y, and the states between windows."""
    height, width, channels = (
        argument(arguments, _At.HEIGHT),
        argument(arguments, _At.WIDTH),
        argument(arguments, _At.CHANNELS),
    )
    directions, N, rank = (
        argument(arguments, _At.DIRECTIONS),
        argument(arguments, _At.STATES),
        argument(arguments, _At.RANK),
    )
    tasks = argument(arguments, _At.TASKS)
    groups = tasks // argument(arguments, _At.IMAGES)
    x, y, saved = address(arguments, _At.X), address(arguments, _At.Y), address(arguments, _At.SAVED)
    Ds, bias = address(arguments, _At.DS), address(arguments, _At.BIAS)
    Bs, Cs = address(arguments, _At.BS), address(arguments, _At.CS)
    softplus_on = argument(arguments, _At.SOFTPLUS)
    length = height * width
    windows = (length + WINDOW - 1) // WINDOW
    scratch = beyond(
        address(arguments, _At.SCRATCH), take(arguments, _At.NEXT_SLOT) * argument(arguments, _At.SCRATCH_SIZE)
    )
    delta = scratch
    delta_u = beyond(delta, WINDOW * LANES)
    total = beyond(delta_u, WINDOW * LANES)
    places = beyond(total, WINDOW * LANES)
    vectors = argument(arguments, _At.VECTORS)
    h = beyond(places, 2 * _PLACES_SIZE)
    A = beyond(h, vectors * N * LANES)
    weight = beyond(A, vectors * N * LANES)
    while True:
        task = take(arguments, _At.NEXT_TASK)
        if task >= tasks:
            break
        image, start = task // groups, task % groups * vectors * LANES
        count = min(vectors, (channels - start) // LANES)
        for k in range(directions):
            own = image % argument(arguments, _At.SETS) * directions + k
            for v in range(count):
                _load_parameters(
                    arguments, own, start + v * LANES, beyond(A, v * N * LANES), beyond(weight, v * rank * LANES)
                )
                for n in range(N):
                    store(h, (v * N + n) * LANES, splat(np.float32(0)))
            _places(arguments, image, k, 0, min(WINDOW, length), places)
            for window in range(windows):
                steps = min(WINDOW, length - window * WINDOW)
                if window + 1 < windows:
                    following = min(WINDOW, length - (window + 1) * WINDOW)
                    _places(arguments, image, k, window + 1, following, places)
                    _ask_for(arguments, start, count, window + 1, following, places, x, y, y, 0)
                own_places, begins = _of_window(places, window)
                for v in range(count):
                    first = start + v * LANES
                    own_h, own_A = beyond(h, v * N * LANES), beyond(A, v * N * LANES)
                    if argument(arguments, _At.SAVE):
                        at = (((image * directions + k) * windows + window) * channels + first) * N
                        for n in range(N):
                            store(saved, at + n * LANES, load(own_h, n * LANES))
                    _before_softplus(
                        arguments,
                        k,
                        first,
                        load(bias, own * channels + first),
                        steps,
                        own_places,
                        begins,
                        beyond(weight, v * rank * LANES),
                        delta,
                    )
                    skip = load(Ds, own * channels + first)
                    for t in range(steps):
                        at = get_integer(own_places, t) * channels + first
                        z = load(delta, t * LANES)
                        d = softplus_and_slope(z)[0] if softplus_on else z
                        u = load(x, at)
                        store(delta, t * LANES, d)
                        store(delta_u, t * LANES, d * u)
                        so_far = skip * u
                        if k > 0:
                            so_far = so_far + load(y, at)
                        store(total, t * LANES, so_far)
                    forward_window(N, steps, delta, delta_u, total, own_h, own_A, begins, Bs, Cs)
                    for t in range(steps):
                        store(y, get_integer(own_places, t) * channels + first, load(total, t * LANES))


def _backward_size(N: int, rank: int, vectors: int) -> int:
    """float32 values of working memory that `_backward_kernel` needs."""
    steps = WINDOW * (4 * N + 2 * rank + 8 * LANES) + (2 * WINDOW + 1) * N * LANES + 2 * LANES * LANES + LANES
    return steps + 2 * _PLACES_SIZE + vectors * LANES * (3 * N + 2 * rank + 2)


@compile_kernel
def _backward_kernel(arguments):
    """Gradients of all directions of one image for the channels of a task, windows in reverse.

    rows: what the task adds to the gradients of (low-rank step sizes, B, C), at every position.
    """
    height, width, channels = (
        argument(arguments, _At.HEIGHT),
        argument(arguments, _At.WIDTH),
        argument(arguments, _At.CHANNELS),
    )
    directions, N, rank = (
        argument(arguments, _At.DIRECTIONS),
        argument(arguments, _At.STATES),
        argument(arguments, _At.RANK),
    )
    tasks = argument(arguments, _At.TASKS)
    groups = tasks // argument(arguments, _At.IMAGES)
    images = argument(arguments, _At.IMAGES)
    x, dy, saved = address(arguments, _At.X), address(arguments, _At.DY), address(arguments, _At.SAVED)
    Ds, bias = address(arguments, _At.DS), address(arguments, _At.BIAS)
    low_rank = address(arguments, _At.LOW_RANK)
    dx, ddt, rows = address(arguments, _At.DX), address(arguments, _At.DDT), address(arguments, _At.ROWS)
    softplus_on, logarithms = argument(arguments, _At.SOFTPLUS), argument(arguments, _At.LOGARITHMS)
    length = height * width
    windows = (length + WINDOW - 1) // WINDOW
    columns = rank + 2 * N
    scratch = beyond(
        address(arguments, _At.SCRATCH), take(arguments, _At.NEXT_SLOT) * argument(arguments, _At.SCRATCH_SIZE)
    )
    delta = scratch
    delta_u = beyond(delta, WINDOW * LANES)
    slope = beyond(delta_u, WINDOW * LANES)
    g_y = beyond(slope, WINDOW * LANES)
    through_A = beyond(g_y, WINDOW * LANES)
    through_B = beyond(through_A, WINDOW * LANES)
    g_z = beyond(through_B, WINDOW * LANES)
    decays = beyond(g_z, WINDOW * LANES)
    history = beyond(decays, WINDOW * N * LANES)
    turned = beyond(history, (WINDOW + 1) * N * LANES)
    places = beyond(turned, LANES * LANES)
    Bs = beyond(places, 2 * _PLACES_SIZE)
    Cs = beyond(Bs, WINDOW * N)
    dBs = beyond(Cs, WINDOW * N)
    dCs = beyond(dBs, WINDOW * N)
    rank_step = (rank + LANES - 1) // LANES * LANES
    d_low_rank = beyond(dCs, WINDOW * N)
    turned_back = beyond(d_low_rank, WINDOW * rank + LANES * LANES)
    vectors = argument(arguments, _At.VECTORS)
    g = beyond(turned_back, WINDOW * rank_step)
    dA = beyond(g, vectors * N * LANES)
    A = beyond(dA, vectors * N * LANES)
    weight = beyond(A, vectors * N * LANES)
    dweight = beyond(weight, vectors * rank * LANES)
    d_skip = beyond(dweight, vectors * rank * LANES)
    d_bias = beyond(d_skip, vectors * LANES)
    zero = splat(np.float32(0))
    while True:
        task = take(arguments, _At.NEXT_TASK)
        if task >= tasks:
            break
        image, start = task // groups, task % groups * vectors * LANES
        count = min(vectors, (channels - start) // LANES)
        for k in range(directions):
            own = image % argument(arguments, _At.SETS) * directions + k
            for v in range(count):
                _load_parameters(
                    arguments, own, start + v * LANES, beyond(A, v * N * LANES), beyond(weight, v * rank * LANES)
                )
                for n in range(N):
                    store(g, (v * N + n) * LANES, zero)
                    store(dA, (v * N + n) * LANES, zero)
                for r in range(rank):
                    store(dweight, (v * rank + r) * LANES, zero)
                store(d_skip, v * LANES, zero)
                store(d_bias, v * LANES, zero)
            _places(arguments, image, k, windows - 1, length - (windows - 1) * WINDOW, places)
            for window in range(windows - 1, -1, -1):
                steps = min(WINDOW, length - window * WINDOW)
                if window > 0:
                    _places(arguments, image, k, window - 1, WINDOW, places)
                    _ask_for(
                        arguments,
                        start,
                        count,
                        window - 1,
                        WINDOW,
                        places,
                        x,
                        dy,
                        beyond(rows, (task % groups * images * length * directions + k) * columns),
                        directions * columns,
                    )
                own_places, begins = _of_window(places, window)
                for t in range(steps):
                    at = get_integer(begins, t)
                    _copy(beyond(address(arguments, _At.BS), at), beyond(Bs, t * N), N)
                    _copy(beyond(address(arguments, _At.CS), at), beyond(Cs, t * N), N)
                for i in range(0, steps * N, LANES):
                    store(dBs, i, zero)
                    store(dCs, i, zero)
                for i in range(WINDOW // LANES * rank):
                    store(d_low_rank, i * LANES, zero)
                for v in range(count):
                    first = start + v * LANES
                    own_A, own_g, own_dA = (
                        beyond(A, v * N * LANES),
                        beyond(g, v * N * LANES),
                        beyond(dA, v * N * LANES),
                    )
                    own_weight = beyond(weight, v * rank * LANES)
                    at = (((image * directions + k) * windows + window) * channels + first) * N
                    h = beyond(saved, at)
                    _before_softplus(
                        arguments,
                        k,
                        first,
                        load(bias, own * channels + first),
                        steps,
                        own_places,
                        begins,
                        own_weight,
                        delta,
                    )
                    for t in range(steps):
                        at = get_integer(own_places, t) * channels + first
                        z = load(delta, t * LANES)
                        d, s = softplus_and_slope(z) if softplus_on else (z, splat(np.float32(1)))
                        store(delta, t * LANES, d)
                        store(slope, t * LANES, s)
                        store(delta_u, t * LANES, d * load(x, at))
                        store(g_y, t * LANES, load(dy, at))
                    recompute_window(N, steps, delta, delta_u, h, own_A, Bs, decays, history)
                    reverse_window(
                        N,
                        steps,
                        delta,
                        delta_u,
                        g_y,
                        through_A,
                        through_B,
                        own_g,
                        own_dA,
                        own_A,
                        Bs,
                        Cs,
                        decays,
                        history,
                        dBs,
                        dCs,
                    )
                    skip = load(Ds, own * channels + first)
                    sum_skip, sum_bias = load(d_skip, v * LANES), load(d_bias, v * LANES)
                    for t in range(steps):
                        at = get_integer(own_places, t) * channels + first
                        u = load(x, at)
                        # A is held times log2(e), hence ln 2
                        gradient = load(through_A, t * LANES) * splat(np.float32(LN2))
                        gradient = (gradient + load(through_B, t * LANES) * u) * load(slope, t * LANES)
                        store(g_z, t * LANES, gradient)
                        sum_bias = sum_bias + gradient
                        sum_skip = sum_skip + load(g_y, t * LANES) * u
                        g_u = load(through_B, t * LANES) * load(delta, t * LANES) + skip * load(g_y, t * LANES)
                        if k > 0:
                            g_u = g_u + load(dx, at)
                        store(dx, at, g_u)
                    store(d_skip, v * LANES, sum_skip)
                    store(d_bias, v * LANES, sum_bias)
                    if rank == 0:
                        for t in range(steps):
                            at = (k * images * length + get_integer(own_places, t)) * channels + first
                            store(ddt, at, load(g_z, t * LANES))
                        continue
                    correlate(rank, steps, beyond(dweight, v * rank * LANES), g_z, begins, low_rank)
                    for t in range(steps, (steps + LANES - 1) // LANES * LANES):
                        store(g_z, t * LANES, zero)
                    for t in range(0, steps, LANES):
                        transpose(beyond(g_z, t * LANES), LANES, turned, LANES)
                        contract(rank, beyond(d_low_rank, t * rank), turned, own_weight)
                for t in range(0, steps, LANES):  # back to a row per step; what is too much gives way to B and C
                    for r in range(0, rank, LANES):
                        transpose(
                            beyond(d_low_rank, t * rank + r * LANES),
                            LANES,
                            beyond(turned_back, t * rank_step + r),
                            rank_step,
                        )
                for t in range(steps):
                    row = ((task % groups * images * length + get_integer(own_places, t)) * directions + k) * columns
                    if N >= LANES // 2:
                        for r in range(0, rank, LANES):
                            store(rows, row + r, load(turned_back, t * rank_step + r))
                    else:
                        _copy(beyond(turned_back, t * rank_step), beyond(rows, row), rank)
                    _copy(beyond(dBs, t * N), beyond(rows, row + rank), N)
                    _copy(beyond(dCs, t * N), beyond(rows, row + rank + N), N)
            for v in range(count):
                channel = (image * directions + k) * channels + start + v * LANES
                own_A, own_dA = beyond(A, v * N * LANES), beyond(dA, v * N * LANES)
                if logarithms:
                    for n in range(N):
                        through_it = load(own_dA, n * LANES) * load(own_A, n * LANES) * splat(np.float32(LN2))
                        store(own_dA, n * LANES, through_it)
                _transposed_back(own_dA, N, beyond(address(arguments, _At.DA), channel * N), N)
                if rank > 0:
                    _transposed_back(
                        beyond(dweight, v * rank * LANES),
                        rank,
                        beyond(address(arguments, _At.DWEIGHT), channel * rank),
                        rank,
                    )
                store(address(arguments, _At.DDS), channel, load(d_skip, v * LANES))
                store(address(arguments, _At.DBIAS), channel, load(d_bias, v * LANES))


# ---------------------------------------------------------------------------------------------------- host side


def forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """See `_scan`."""
    return _Given(x, A, Ds, dt_bias, dt=dt, Bs=Bs, Cs=Cs, delta_softplus=delta_softplus).forward(save_states)


def backward(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    states: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `_scan`."""
    given = _Given(x, A, Ds, dt_bias, dt=dt, Bs=Bs, Cs=Cs, delta_softplus=delta_softplus)
    dx, ddt, rows, dA, dDs, ddt_bias, _ = given.backward(dy, states)
    # copies even of a single row, whose halves would be contiguous: an operator's outputs share no memory
    dBs, dCs = (part.clone(memory_format=torch.contiguous_format) for part in rows.chunk(2, dim=-1))
    return dx, ddt, dBs, dCs, dA, dDs, ddt_bias


def forward_2d(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, save_states: bool
) -> tuple[Tensor, Tensor]:
    """See `_scan`."""
    return _Given(x, A_logs, Ds, dt_bias, projected=projected, dt_weight=dt_weight).forward(save_states)


def backward_2d(
    dy: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `_scan`."""
    given = _Given(x, A_logs, Ds, dt_bias, projected=projected, dt_weight=dt_weight)
    dx, _, rows, dA_logs, dDs, ddt_bias, ddt_weight = given.backward(dy, states)
    return dx, rows.flatten(3), ddt_weight, ddt_bias, dA_logs.flatten(0, 1), dDs.flatten()


class _Given:
    """The inputs of a scan as the kernels take them, with step sizes, or projections that hold their low-rank form."""

    def __init__(
        self,
        x: Tensor,
        A: Tensor,
        Ds: Tensor,
        dt_bias: Tensor,
        *,
        dt: Tensor | None = None,
        Bs: Tensor | None = None,
        Cs: Tensor | None = None,
        delta_softplus: bool = True,
        projected: Tensor | None = None,
        dt_weight: Tensor | None = None,
    ) -> None:
        self.device = x.device
        self.images, self.height, self.width, self.channels = x.shape
        self.states = A.shape[-1]
        self.parameters, self.rank = dt_bias.shape[0], 0 if dt_weight is None else dt_weight.shape[-1]
        self.missing = -self.channels % LANES  # channels are padded with zeros to whole vectors
        self.padded = self.channels + self.missing
        self.tensors = {
            "x": self._fit(x),
            "ds": self._fit(Ds.view(dt_bias.shape)),
            "bias": self._fit(dt_bias),
            "a": self._fit(A.view(*dt_bias.shape, self.states), 0, 0),
        }
        if projected is not None and dt_weight is not None:
            self.directions = self.parameters
            projected = _plain(projected)
            self.tensors |= {"weight": self._fit(dt_weight, 0, 0), "low_rank": projected}
            begin, columns = projected.data_ptr() + 4 * self.rank, self.rank + 2 * self.states
            self.addresses = {"bs": begin, "cs": begin + 4 * self.states}
        else:
            assert dt is not None and Bs is not None and Cs is not None  # noqa: PT018
            self.directions, columns = Bs.shape[3], self.states
            self.tensors |= {"dt": self._fit(dt), "bs": _plain(Bs), "cs": _plain(Cs)}
            self.addresses = {}
        blocks = self.padded // LANES
        vectors = min(_MOST_VECTORS, -(-self.images * blocks // _TASKS_WANTED))
        self.vectors = max(vectors, 1)
        self.groups = -(-blocks // self.vectors)
        self.settings = {
            "tasks": self.images * self.groups,
            "images": self.images,
            "height": self.height,
            "width": self.width,
            "channels": self.padded,
            "directions": self.directions,
            "states": self.states,
            "rank": self.rank,
            "vectors": self.vectors,
            "sets": self.parameters // self.directions,
            "softplus": int(delta_softplus),
            "logarithms": int(projected is not None),
            "direction_step": columns,
            "position_step": columns * self.directions,
        }

    def forward(self, save_states: bool) -> tuple[Tensor, Tensor]:
        windows = -(-self.height * self.width // WINDOW)
        y = _buffer(self.images, self.height, self.width, self.padded)
        states = _buffer(self.images, self.directions, windows, self.states, self.padded) if save_states else _buffer(0)
        size = _forward_size(self.states, self.rank, self.vectors)
        self._run(_forward_kernel, size, {"y": y, "saved": states}, save=int(save_states))
        return self._cut(y), states.to(self.device)

    def backward(self, dy: Tensor, states: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x, dt (empty if it has a low-rank form), rows of `projected`, A, Ds, dt_bias and dt_weight."""
        image = (self.images, self.height, self.width)
        own = self.images // (self.parameters // self.directions), self.parameters, self.padded
        out = {
            "dx": _buffer(*image, self.padded),
            "ddt": _buffer(0) if self.rank else _buffer(self.directions, *image, self.padded),
            "rows": _buffer(self.groups, *image, self.directions, self.rank + 2 * self.states),
            "da": _buffer(*own, self.states),
            "dds": _buffer(*own),
            "dbias": _buffer(*own),
            "dweight": _buffer(*own, self.rank),
        }
        size = _backward_size(self.states, self.rank, self.vectors)
        self._run(_backward_kernel, size, {"dy": self._fit(dy), "saved": _plain(states), **out})
        dx, ddt, rows, dA, dDs, dbias, dweight = out.values()
        rows, dA, dDs, dbias, dweight = (_sum(parts) for parts in (rows, dA, dDs, dbias, dweight))
        dA, dweight = (rows_of[:, : self.channels] for rows_of in (dA, dweight))
        return (
            self._cut(dx),
            ddt.to(self.device) if self.rank else self._cut(ddt),
            rows.to(self.device),
            dA.contiguous().to(self.device),
            self._cut(dDs),
            self._cut(dbias),
            dweight.contiguous().to(self.device),
        )

    def _fit(self, tensor: Tensor, *behind: int) -> Tensor:
        """Channels filled up to whole vectors: the last axis, or the one before it where `behind` is two zeros."""
        tensor = _plain(tensor)
        # padding takes what looks like an image stored channels-last for one
        return pad(tensor, (*behind, 0, self.missing)).contiguous() if self.missing else tensor

    def _cut(self, tensor: Tensor) -> Tensor:
        if self.missing:
            tensor = tensor[..., : self.channels].contiguous()
        return tensor.to(self.device)

    def _run(self, kernel, size: int, tensors: dict[str, Tensor], **settings: int) -> None:
        threads = min(torch.get_num_threads(), self.settings["tasks"])
        scratch = _buffer(threads * size)
        values = {**self.settings, **settings, "scratch_size": size, **self.addresses}
        launch(kernel, _At, values, {**self.tensors, **tensors, "scratch": scratch}, threads)


def _plain(tensor: Tensor) -> Tensor:
    if tensor.dtype is torch.float32 and tensor.is_cpu and tensor.is_contiguous():
        return tensor  # a third of the time that the calls below take to find nothing to do
    return tensor.to("cpu", torch.float32).contiguous()


def _sum(parts: Tensor) -> Tensor:
    """Sum of what the tasks wrote side by side, in a fixed order."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


def _buffer(*shape: int) -> Tensor:
    """Memory for the kernels to fill: what they expect, whatever torch's default dtype and device are set to.

    From torch because it aligns to cache lines: unaligned vectors straddle two.
    """
    return torch.empty(shape, dtype=torch.float32, device="cpu")


# ---------------------------------------------------------------------------------------------------- threads


def launch(
    kernel, places: type[IntEnum], values: Mapping[str, int], tensors: Mapping[str, Tensor], threads: int
) -> None:
    """Run a kernel; its arguments, numbers and tensors' addresses, lie where `places` has their names, else 0."""
    place_of = _places_by_name(places)
    given = (ctypes.c_int64 * len(place_of))()  # of zeros
    for name, value in values.items():
        given[place_of[name]] = value
    for name, tensor in tensors.items():
        given[place_of[name]] = tensor.data_ptr()
    _run(kernel, given, threads)


@functools.cache
def _places_by_name(places: type[IntEnum]) -> dict[str, int]:
    return {name.lower(): int(place) for name, place in places.__members__.items()}


def _run(kernel, given: ctypes.Array, threads: int) -> None:
    """Run a kernel on so many threads, this one included; each takes the next task until none is left.

    On torch's own threads: through the entry point of OpenMP that torch itself was compiled to call.  Where there is
    none (macOS, Windows), and in a forked child, which has only the records of its parent's threads: on Python's.
    """
    if threads == 1:
        kernel.ctypes(given)
    elif (team := _openmp()) is not None:
        team(kernel.address, given, threads, 0)
    else:
        _run_with_helpers(kernel, given, threads - 1)


def _run_with_helpers(kernel, given, count: int) -> None:
    """On Python's threads.  Helpers write by address to memory the caller frees, so none may outlast this function.

    Not even if a signal's handler raises (Ctrl-C), once or again: that waits for the helpers, as with OpenMP.
    """
    helpers: list[Future[None]] = [Future() for _ in range(count)]  # not submit's, which an interruption of it loses

    def help_with(helper: Future[None]) -> None:
        if helper.set_running_or_notify_cancel():
            try:
                kernel.ctypes(given)
            finally:
                helper.set_result(None)

    raised: BaseException | None = None
    try:
        for helper in helpers:
            _pool(count).submit(help_with, helper)
        kernel.ctypes(given)
    except BaseException as error:
        raised = error
    while True:
        try:
            wait([helper for helper in helpers if not helper.cancel()])  # who has not begun by now finds no task left
            break
        except BaseException as error:
            raised = raised or error
    try:
        if raised is not None:
            raise raised
    finally:
        del raised  # it refers to this frame, and so would keep itself and all memory of the call


_INTEGERS = ctypes.POINTER(ctypes.c_int64)
_forked = False


@functools.cache
def _openmp() -> Callable[..., None] | None:
    """GOMP_parallel(function, its argument, threads, flags) of the library torch is linked to; None without one."""
    if _forked:
        return None
    try:  # already loaded, so this finds it; a symbol is looked for in what it depends on, too
        team = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    team.argtypes = [ctypes.c_void_p, _INTEGERS, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team  # type: ignore[no-any-return]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="selective-scan")


def _after_fork() -> None:
    """Threads do not survive a fork, and OpenMP does not know: it would wait for them."""
    global _forked
    _forked = True
    _openmp.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------------------------------------------- memory


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensors, in this process from the first scan on.

    By default large blocks go back to the system, and a network's next pass asks for each of their pages anew: that is
    up to a quarter of a prediction's time.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc: another allocator, another system
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 1 << 25)  # the most that older ones take
        mallopt(trim_threshold, (1 << 31) - 1)


_keep_freed_memory()
