"""CPU backend: explicit 16-lane vectors in numba, forward and backward, no autograd inside and no compiler at install.

Channels are the lanes: one vector holds 16 neighbouring channels, so a time step is N independent vector updates and
every load is contiguous, whichever direction the scan runs in.  Left to itself LLVM does not vectorise this loop (too
many arrays that may alias), hence the small vector type below; LLVM lowers it to AVX-512, AVX2, SSE or NEON.

Work is split into (image, block of channels) tasks whose size depends on the shape alone.  A task owns the outputs it
writes and runs its directions in order; what several blocks contribute to (dB, dC) goes to separate rows that are
added in a fixed order.  So the result is the same bit for bit at any number of threads.  Threads are a plain Python
pool over code that releases the GIL: as many as torch uses, usable from several threads at once, and renewed after
fork, which numba's own threading layers do not offer together.

Memory: backward recomputes the states of one window at a time from the saved ones (KERNELS: recompute, don't store).
"""

import functools
import math
import operator
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from torch import Tensor

LANES = 16  # float32 values in one vector: neighbouring channels
WINDOW = 64  # steps between saved states, the contract of `_scan`
_AHEAD = 6  # steps to prefetch ahead
_BLOCKS = (64, 32, 16)  # channels a task takes, widest first
_LOG2E = math.log2(math.e)
_LN2 = math.log(2.0)
_FAST = ("contract", "nsz")  # fused multiply-add is allowed; NaN and infinity keep their meaning


def unavailable_reason(device_type: str) -> str | None:
    """None where this backend runs: on CPU tensors, and on MPS tensors through copies to the host."""
    return None if device_type in ("cpu", "mps", "meta") else "it computes on the CPU only"


# ---------------------------------------------------------------------------------------------------- vectors


class _VectorType(types.Type):
    """Sixteen float32 values that travel together."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


_vector = _VectorType()
_float_lanes = ir.VectorType(ir.FloatType(), LANES)
_int_lanes = ir.VectorType(ir.IntType(32), LANES)


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _float_lanes)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_float_lanes, [value] * LANES)


def _pointer(context, builder, array_type, array, index):
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), ir.PointerType(_float_lanes))


@intrinsic
def _load(typingctx, array, index):
    def codegen(context, builder, signature, args):
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return _vector(array, types.intp), codegen


@intrinsic
def _store(typingctx, array, index, value):
    def codegen(context, builder, signature, args):
        builder.store(args[2], _pointer(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), codegen


def _fill(builder, value):
    undefined = ir.Constant(_float_lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_int_lanes, [0] * LANES))


@intrinsic
def _splat(typingctx, value):
    def codegen(context, builder, signature, args):
        return _fill(builder, args[0])

    return _vector(types.float32), codegen


@intrinsic
def _broadcast(typingctx, array, index):
    """One element of an array in every lane."""

    def codegen(context, builder, signature, args):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
        return _fill(builder, builder.load(builder.gep(data, [args[1]])))

    return _vector(array, types.intp), codegen


def _overload_arithmetic(symbol, instruction: str) -> None:
    @intrinsic
    def compute(typingctx, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, instruction)(*args, flags=_FAST)

        return _vector(_vector, _vector), codegen

    @overload(symbol)
    def _(a, b):
        return (lambda a, b: compute(a, b)) if a is _vector and b is _vector else None


for _symbol, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _overload_arithmetic(_symbol, _instruction)


@intrinsic
def _total(typingctx, a):
    """Sum of the lanes, halves added to halves: a fixed order, and a cheap one."""

    def codegen(context, builder, signature, args):
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            undefined = ir.Constant(value.type, ir.Undefined)
            mask = ir.VectorType(ir.IntType(32), width)
            low, high = (
                builder.shuffle_vector(value, undefined, ir.Constant(mask, list(range(first, first + width))))
                for first in (0, width)
            )
            value = builder.fadd(low, high, flags=_FAST)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(_vector), codegen


def _fit_exp2(degree: int) -> list[float]:
    """c with 2**f = 1 + c[0] f + c[1] f**2 + ... on [-1/2, 1/2], by least squares of the relative error."""
    f = np.cos(np.pi * (np.arange(400) + 0.5) / 400) / 2
    return list(np.linalg.lstsq(f[:, None] ** np.arange(degree), np.expm1(f * _LN2) / f, rcond=None)[0])


_EXP2 = _fit_exp2(5)  # relative error 2e-7, and vanishing towards 0, where a decay lives that is to last
_ROUND = 1.5 * 2**23  # adding it to a float32 leaves the nearest integer in the lowest bits


@intrinsic
def _exp2(typingctx, a):
    """2**a for a <= 126; below -125 the value there; NaN stays NaN."""

    def codegen(context, builder, signature, args):
        (a,) = args
        low = _constant(-125.0)
        a = builder.select(builder.fcmp_ordered("<", a, low), low, a)
        shifted = builder.fadd(a, _constant(_ROUND))
        f = builder.fsub(a, builder.fsub(shifted, _constant(_ROUND)))
        value = _constant(_EXP2[-1])
        for coefficient in [*_EXP2[-2::-1], 1.0]:
            value = builder.fadd(builder.fmul(value, f, flags=_FAST), _constant(coefficient), flags=_FAST)
        exponent = builder.shl(builder.bitcast(shifted, _int_lanes), ir.Constant(_int_lanes, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(value, _int_lanes), exponent), _float_lanes)

    return _vector(_vector), codegen


def _at_most(bound: float):
    @intrinsic
    def minimum(typingctx, a):
        """min(a, bound); NaN stays NaN."""

        def codegen(context, builder, signature, args):
            limit = _constant(bound)
            return builder.select(builder.fcmp_ordered(">", args[0], limit), limit, args[0])

        return _vector(_vector), codegen

    return minimum


_below_zero = _at_most(0.0)
_exponent_range = _at_most(126.0)


@intrinsic
def _prefetch(typingctx, array, index):
    """Ask for the cache line of `array[index]`: steps lie kilobytes apart, where no hardware prefetcher looks."""

    def codegen(context, builder, signature, args):
        byte = ir.PointerType(ir.IntType(8))
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, value=args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(prefetch, [address, *(ir.Constant(integer, v) for v in (0, 3, 1))])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


def _njit(signature: str):
    """Compile now, without the interpreter lock at run time, and keep the result on disk where a cache can be written."""

    def compile_kernel(function):
        try:
            return njit(signature, nogil=True, cache=True, boundscheck=False)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(signature, nogil=True, boundscheck=False)(function)

    return compile_kernel


@intrinsic
def _totals(typingctx, array, index):
    """Lane totals of the 16 vectors that follow each other at `index`, as one vector: vector j's total in lane j."""

    def codegen(context, builder, signature, args):
        vectors = [
            builder.load(_pointer(context, builder, signature.args[0], args[0], builder.add(args[1], step)), align=4)
            for step in (ir.Constant(args[1].type, LANES * j) for j in range(LANES))
        ]
        half = LANES
        while half > 1:  # fold two vectors into one: their groups of 2*half lanes become groups of half, interleaved
            half //= 2
            picks = [lane // (2 * half) * 2 * half + lane % half for lane in range(LANES)]
            from_second = [LANES if lane // half % 2 else 0 for lane in range(LANES)]
            low = ir.Constant(_int_lanes, [p + s for p, s in zip(picks, from_second)])
            high = ir.Constant(_int_lanes, [p + s + half for p, s in zip(picks, from_second)])
            middle = len(vectors) // 2
            vectors = [
                builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high), flags=_FAST)
                for a, b in zip(vectors[:middle], vectors[middle:])
            ]
        return vectors[0]

    return _vector(array, types.intp), codegen


# ---------------------------------------------------------------------------------------------------- kernels
# Flat float32 arrays throughout: array views made per step would be reference-counted.  All of them share one layout
# rule: the last axis is the one named last in the contract of `_scan`.


@njit(inline="always")
def _softplus(z):
    """log(1 + exp(z)), accurate for large negative z too: log1p(e) = 2 artanh(e / (2 + e))."""
    e = _exp2((_below_zero(z) + _below_zero(_splat(np.float32(0)) - z)) * _splat(np.float32(_LOG2E)))
    s = e / (_splat(np.float32(2)) + e)
    square = s * s
    series = _splat(np.float32(1 / 15))
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + _splat(np.float32(1 / odd))
    return z - _below_zero(z) + _splat(np.float32(2)) * s * series


@njit(inline="always")
def _sigmoid(z):
    """The derivative of softplus."""
    below = _below_zero(z)
    e = _exp2((below + _below_zero(_splat(np.float32(0)) - z)) * _splat(np.float32(_LOG2E)))
    return _exp2(below * _splat(np.float32(_LOG2E))) / (_splat(np.float32(1)) + e)


@njit(inline="always")
def _position(k, t, height, width):
    """Place in the row-major image of step `t` of direction `k`."""
    step = t if k < 2 else height * width - 1 - t
    return (step % height) * width + step // height if k % 2 else step


_ARRAYS = "float32[::1]"


@_njit(f"void({', '.join([_ARRAYS] * 10)}, {', '.join(['intp'] * 9)}, boolean, boolean, boolean)")
def _forward_block(
    x, dt, Bs, Cs, A, Ds, dt_bias, y, states, scratch, image, images, first, block, height, width, channels, directions, N,
    delta_softplus, decaying, save_states,
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
                _store(scratch, n * block + v, _splat(np.float32(0)))
                _store(scratch, decay + n * block + v, _load(A, (k * N + n) * channels + first + v))
        for t in range(length):
            if save_states and t % WINDOW == 0:
                saved = ((image * directions + k) * windows + t // WINDOW) * N * channels + first
                for n in range(N):
                    for v in range(0, block, LANES):
                        _store(states, saved + n * channels + v, _load(scratch, n * block + v))
            place = image * length + _position(k, t, height, width)
            row = (place * directions + k) * N
            ahead = image * length + _position(k, min(t + _AHEAD, length - 1), height, width)
            for v in range(0, block, LANES):
                _prefetch(x, ahead * channels + first + v)
                _prefetch(dt, (k * positions + ahead) * channels + first + v)
                _prefetch(y, ahead * channels + first + v)
            for n in range(0, N, LANES):
                _prefetch(Bs, (ahead * directions + k) * N + n)
                _prefetch(Cs, (ahead * directions + k) * N + n)
            for v in range(0, block, LANES):
                delta = _load(dt, (k * positions + place) * channels + first + v)
                delta = delta + _load(dt_bias, k * channels + first + v)
                if delta_softplus:
                    delta = _softplus(delta)
                u = _load(x, place * channels + first + v)
                delta_u = delta * u
                total = _load(Ds, k * channels + first + v) * u
                if k > 0:
                    total = total + _load(y, place * channels + first + v)
                for n in range(N):
                    state = n * block + v
                    exponent = delta * _load(scratch, decay + state)
                    if not decaying:
                        exponent = _exponent_range(exponent)
                    h = _exp2(exponent) * _load(scratch, state) + delta_u * _broadcast(Bs, row + n)
                    _store(scratch, state, h)
                    total = total + h * _broadcast(Cs, row + n)
                _store(y, place * channels + first + v, total)


@_njit(f"void({', '.join([_ARRAYS] * 17)}, {', '.join(['intp'] * 9)}, boolean, boolean)")
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
    zero = _splat(np.float32(0))
    for i in range(sums_B, small, LANES):
        _store(scratch, i, zero)
    for k in range(directions):
        for n in range(N):
            for v in range(0, block, LANES):
                state = n * block + v
                _store(scratch, decay + state, _load(A, (k * N + n) * channels + first + v))
                _store(scratch, grad + state, zero)
                _store(scratch, grad_A + state, zero)
        for v in range(0, 2 * block, LANES):
            _store(scratch, small + v, zero)
        for window in range(windows - 1, -1, -1):
            begin = window * WINDOW
            steps = min(WINDOW, length - begin)
            saved = ((image * directions + k) * windows + window) * N * channels + first
            for n in range(N):
                for v in range(0, block, LANES):
                    _store(scratch, history + n * block + v, _load(states, saved + n * channels + v))
            for i in range(steps):  # the states and decays of this window again
                place = image * length + _position(k, begin + i, height, width)
                row = (place * directions + k) * N
                ahead = image * length + _position(k, begin + min(i + _AHEAD, steps - 1), height, width)
                for v in range(0, block, LANES):
                    _prefetch(x, ahead * channels + first + v)
                    _prefetch(dt, (k * positions + ahead) * channels + first + v)
                    _prefetch(dy, place * channels + first + v)
                    _prefetch(dx, place * channels + first + v)
                for n in range(0, N, LANES):
                    _prefetch(Bs, (ahead * directions + k) * N + n)
                    _prefetch(Cs, (ahead * directions + k) * N + n)
                for v in range(0, block, LANES):
                    delta = _load(dt, (k * positions + place) * channels + first + v)
                    delta = delta + _load(dt_bias, k * channels + first + v)
                    if delta_softplus:
                        delta = _softplus(delta)
                    delta_u = delta * _load(x, place * channels + first + v)
                    for n in range(N):
                        state = n * block + v
                        exponent = delta * _load(scratch, decay + state)
                        if not decaying:
                            exponent = _exponent_range(exponent)
                        a = _exp2(exponent)
                        _store(scratch, decays + i * size + state, a)
                        h = a * _load(scratch, history + i * size + state) + delta_u * _broadcast(Bs, row + n)
                        _store(scratch, history + (i + 1) * size + state, h)
            for i in range(steps - 1, -1, -1):
                place = image * length + _position(k, begin + i, height, width)
                row = (place * directions + k) * N
                for v in range(0, block, LANES):
                    z = _load(dt, (k * positions + place) * channels + first + v)
                    z = z + _load(dt_bias, k * channels + first + v)
                    delta = _softplus(z) if delta_softplus else z
                    u = _load(x, place * channels + first + v)
                    g_y = _load(dy, place * channels + first + v)
                    delta_u = delta * u
                    through_A = zero
                    through_B = zero
                    for n in range(N):
                        state = n * block + v
                        B_n = _broadcast(Bs, row + n)
                        a = _load(scratch, decays + i * size + state)
                        before = _load(scratch, history + i * size + state)
                        after = _load(scratch, history + (i + 1) * size + state)
                        g_h = _load(scratch, grad + state) + g_y * _broadcast(Cs, row + n)
                        through_B = through_B + g_h * B_n
                        lane_B = g_h * delta_u
                        lane_C = g_y * after
                        if v > 0:
                            lane_B = lane_B + _load(scratch, sums_B + n * LANES)
                            lane_C = lane_C + _load(scratch, sums_C + n * LANES)
                        _store(scratch, sums_B + n * LANES, lane_B)
                        _store(scratch, sums_C + n * LANES, lane_C)
                        g_h = g_h * a
                        _store(scratch, grad + state, g_h)
                        g_decay = g_h * before
                        through_A = through_A + g_decay * _load(scratch, decay + state)
                        _store(scratch, grad_A + state, _load(scratch, grad_A + state) + g_decay * delta)
                    # A is stored times log2(e), hence ln 2
                    g_z = through_A * _splat(np.float32(_LN2)) + through_B * u
                    if delta_softplus:
                        g_z = g_z * _sigmoid(z)
                    g_u = through_B * delta + _load(Ds, k * channels + first + v) * g_y
                    if k > 0:
                        g_u = g_u + _load(dx, place * channels + first + v)
                    _store(dx, place * channels + first + v, g_u)
                    _store(ddt, (k * positions + place) * channels + first + v, g_z)
                    _store(scratch, small + v, _load(scratch, small + v) + g_y * u)
                    _store(scratch, small + block + v, _load(scratch, small + block + v) + g_z)
                target = (((first // block * images + image) * length) * directions) * padded
                target += ((place - image * length) * directions + k) * padded
                for n in range(0, padded, LANES):
                    _store(dBs, target + n, _totals(scratch, sums_B + n * LANES))
                    _store(dCs, target + n, _totals(scratch, sums_C + n * LANES))
        for v in range(0, block, LANES):
            own = (image * directions + k) * channels + first + v
            _store(dDs, own, _load(scratch, small + v))
            _store(ddt_bias, own, _load(scratch, small + block + v))
            for n in range(N):
                own = ((image * directions + k) * N + n) * channels + first + v
                _store(dA, own, _load(scratch, grad_A + n * block + v))


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
    y = torch.empty(images, height, width, padded)
    states = torch.empty(images, directions, windows, N, padded) if save_states else torch.empty(0)
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
    dx = torch.empty(images, height, width, padded)
    ddt = torch.empty(directions, images, height, width, padded)
    dBs, dCs = (torch.empty(padded // block, images, height, width, directions, rounded) for _ in range(2))
    dA = torch.empty(images, directions, N, padded)
    dDs, ddt_bias = (torch.empty(images, directions, padded) for _ in range(2))
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
    decay = A.cpu().transpose(1, 2) * _LOG2E
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
    """Channels per task: wide ones share B and C, but there should be work for several threads.  Shape alone decides."""
    fitting = [block for block in _BLOCKS if channels % block == 0]
    return next((block for block in fitting if images * (channels // block) >= 4), fitting[-1])


def _run(task, images: int, blocks: range) -> None:
    """Run `task(image, first)` for every pair, on as many threads as torch uses."""
    pairs = [(image, first) for image in range(images) for first in blocks]
    threads = min(torch.get_num_threads(), len(pairs))
    if threads == 1:
        for pair in pairs:
            task(*pair)
        return
    for _ in _pool(threads).map(lambda pair: task(*pair), pairs):
        pass


@functools.lru_cache(maxsize=None)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="selective-scan")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork; the child makes its own


def _scratch(size: int) -> np.ndarray:
    """Working memory of one task, from torch because it aligns to cache lines: unaligned vectors straddle two."""
    return _flat(torch.empty(size))
