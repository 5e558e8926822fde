"""Vectors of sixteen float32 values for numba kernels, and what the selective scan computes with them.

Numba has no vector type and LLVM does not vectorise the scan's loops by itself: they touch more arrays than it is
willing to check for overlap.  So this file defines one, lane by lane in LLVM's own terms; LLVM lowers it to AVX-512,
AVX2, SSE or NEON.  It is the only file that imports numba.

Numba keeps a compiled kernel until the kernel's own file changes, so the kernels' names carry a digest of both files.
"""

import contextlib
import functools
import hashlib
import inspect
import logging
import math
import operator
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model

from swin_umamba_nnunet.settings import user_cache_folder

logger = logging.getLogger(__name__)
_config: Any = numba_config  # its settings are made when it is imported, where no type checker sees them

LANES = 16  # float32 values in one vector
LOG2E = math.log2(math.e)
LN2 = math.log(2.0)
_SOURCE = Path(__file__).read_bytes()
_FAST = ("contract", "nsz")  # fused multiply-add is allowed; NaN and infinity keep their meaning


inline = njit(inline="always")


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


def _row(builder, pointer, index):
    """Address of the vector that begins at an element."""
    return builder.bitcast(builder.gep(pointer, [index]), ir.PointerType(_float_lanes))


def _index(value: int) -> ir.Constant:
    return ir.Constant(ir.IntType(64), value)


# ------------------------------------------------------------------------------------- memory, lane by lane
# Addresses are plain pointers to float32, indices count elements: kernels are called through C, with addresses.

floats = types.CPointer(types.float32)
_integers = types.CPointer(types.int64)


def _instruction(signature):
    """Make of `emit(builder, a, b, ...)`, which writes LLVM's instructions, the function (a, b, ...) of kernels."""

    def register(emit):
        @functools.wraps(emit)  # numba looks at its parameters
        def typed(typingctx, *_):
            def codegen(context, builder, _signature, args):
                value = emit(builder, *args)
                return context.get_dummy_value() if value is None else value

            return signature, codegen

        return intrinsic(typed)

    return register


@_instruction(types.int64(_integers, types.intp))
def argument(builder, arguments, index):
    """Number `index` of the kernel's arguments, an integer."""
    return builder.load(builder.gep(arguments, [index]))


@_instruction(floats(_integers, types.intp))
def address(builder, arguments, index):
    """The same, an address of float32 values."""
    return builder.inttoptr(builder.load(builder.gep(arguments, [index])), ir.PointerType(ir.FloatType()))


@_instruction(types.int64(_integers, types.intp))
def take(builder, arguments, index):
    """What stands in the place, which is one more afterwards for whoever asks next, in any thread."""
    return builder.atomic_rmw("add", builder.gep(arguments, [index]), _index(1), "monotonic")


@_instruction(floats(floats, types.intp))
def beyond(builder, pointer, index):
    """The address of an element."""
    return builder.gep(pointer, [index])


@_instruction(types.float32(floats, types.intp))
def get(builder, pointer, index):
    return builder.load(builder.gep(pointer, [index]))


@_instruction(types.void(floats, types.intp, types.float32))
def put(builder, pointer, index, value):
    builder.store(value, builder.gep(pointer, [index]))


@_instruction(types.int64(floats, types.intp))
def get_integer(builder, pointer, index):
    """An integer from memory that holds them in the place of float32 values, two for each."""
    integers = builder.bitcast(pointer, ir.PointerType(ir.IntType(64)))
    return builder.load(builder.gep(integers, [index]), align=4)


@_instruction(types.void(floats, types.intp, types.int64))
def put_integer(builder, pointer, index, value):
    integers = builder.bitcast(pointer, ir.PointerType(ir.IntType(64)))
    builder.store(value, builder.gep(integers, [index]), align=4)


@_instruction(_vector(floats, types.intp))
def load(builder, pointer, index):
    return builder.load(_row(builder, pointer, index), align=4)


@_instruction(types.void(floats, types.intp, _vector))
def store(builder, pointer, index, value):
    builder.store(value, _row(builder, pointer, index), align=4)


@_instruction(types.void(floats, types.intp))
def prefetch(builder, pointer, index):
    """Have the second cache fetch an element's line: steps lie kilobytes apart, where no hardware prefetcher looks."""
    byte = builder.bitcast(builder.gep(pointer, [index]), ir.PointerType(ir.IntType(8)))
    for_reading, second_cache, data = (ir.Constant(ir.IntType(32), v) for v in (0, 2, 1))
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), byte, for_reading, second_cache, data)


# ------------------------------------------------------------------------------------------------- arithmetic


def _fill(builder, value):
    """A vector of one value."""
    undefined = ir.Constant(_float_lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_int_lanes, [0] * LANES))


splat = _instruction(_vector(types.float32))(_fill)


def _overload_arithmetic(symbol, instruction: str) -> None:
    @_instruction(_vector(_vector, _vector))
    def compute(builder, a, b):
        return getattr(builder, instruction)(a, b, flags=_FAST)

    @overload(symbol)
    def _(a, b):
        return (lambda a, b: compute(a, b)) if a is _vector and b is _vector else None


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload_arithmetic(_symbol, _name)


def _fused(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=_FAST), c, flags=_FAST)


def _fit(function, degree: int, low: float, high: float) -> list[float]:
    """c with function(x) = c[0] + c[1] x + ... on [low, high], by least squares of the relative error."""
    x = (low + high) / 2 + np.cos(np.pi * (np.arange(400) + 0.5) / 400) * (high - low) / 2
    values = function(x)
    return list(np.linalg.lstsq(x[:, None] ** np.arange(degree + 1) / values[:, None], np.ones(400), rcond=None)[0])


# 2**f = 1 + f p(f) on [-1/2, 1/2] or [-1/32, 1/32]: relative error 2e-7 or 2e-9 (with float32's rounding 1.1e-7 at
# least), and vanishing towards 0, where a decay lives that is to last
_EXP2 = _fit(lambda f: np.expm1(f * LN2) / f, 4, -0.5, 0.5)
_EXP2_SIXTEENTH = _fit(lambda f: np.expm1(f * LN2) / f, 2, -1 / 32, 1 / 32)
_POWERS = 2 ** (np.arange(LANES) / LANES)
# log(1 + e) = e p(e) on [0, 1], or on what is left of e beside the nearest eighth
_LOG1P = _fit(lambda e: np.log1p(e) / e, 9, 0.0, 1.0)
_LOG1P_EIGHTH = _fit(lambda e: np.log1p(e) / e, 4, -1 / 18, 1 / 16)
_EIGHTHS = np.arange(LANES) % 9 / 8
_ROUND = 1.5 * 2**23  # adding it to a float32 leaves the nearest integer in the lowest bits


def _polynomial(builder, x, coefficients: list[float]):
    value = _constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _fused(builder, value, x, _constant(coefficient))
    return value


def _has_avx512() -> bool:
    features = get_host_cpu_features() if _config.CPU_FEATURES is None else _config.CPU_FEATURES
    return "+avx512f" in features.split(",")


_AVX512 = _has_avx512()


def _call(builder, name: str, result, *args):
    """One of LLVM's own functions."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _look_up(builder, values: np.ndarray, places):
    """Of sixteen values those at the places that the lowest four bits of integers name; an instruction of AVX-512."""
    table = ir.Constant(_float_lanes, [float(value) for value in values])
    return _call(builder, "llvm.x86.avx512.permvar.sf.512", _float_lanes, table, places)


def _bounded(builder, comparison: str, a, bound: float):
    """`a`, or the bound where `a` compares so with it; NaN stays NaN."""
    limit = _constant(bound)
    return builder.select(builder.fcmp_ordered(comparison, a, limit), limit, a)


def _exp2(builder, a):
    """2**a; NaN stays NaN.  Without AVX-512 between 2**-125 and 2**126, and these beyond.

    With it a permutation looks up the powers at sixteenths, so that a shorter polynomial does for what is left.
    """
    if not _AVX512:
        a = _bounded(builder, ">", _bounded(builder, "<", a, -125.0), 126.0)
        shifted = builder.fadd(a, _constant(_ROUND))
        f = builder.fsub(a, builder.fsub(shifted, _constant(_ROUND)))
        value = _polynomial(builder, f, [1.0, *_EXP2])
        exponent = builder.shl(builder.bitcast(shifted, _int_lanes), ir.Constant(_int_lanes, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(value, _int_lanes), exponent), _float_lanes)
    everywhere, as_set, to_sixteenths = (ir.Constant(ir.IntType(n), v) for n, v in ((16, -1), (32, 4), (32, 0x40)))
    round_ = "llvm.x86.avx512.mask.rndscale.ps.512"
    nearest = _call(builder, round_, _float_lanes, a, to_sixteenths, a, everywhere, as_set)
    f = builder.fsub(a, nearest)
    sixteenths = builder.bitcast(builder.fadd(a, _constant(_ROUND / 16)), _int_lanes)
    power = _look_up(builder, _POWERS, sixteenths)
    value = _fused(builder, builder.fmul(power, f, flags=_FAST), _polynomial(builder, f, _EXP2_SIXTEENTH), power)
    return _call(builder, "llvm.x86.avx512.mask.scalef.ps.512", _float_lanes, value, nearest, value, everywhere, as_set)


exp2 = _instruction(_vector(_vector))(_exp2)


@_instruction(_vector(_vector))
def log1p(builder, a):
    """log(1 + a) for a in [0, 1], accurate near 0 too.

    With AVX-512 log(1 + e) + log(1 + r), where e is the nearest eighth and r = (a - e) / (1 + e): a itself at e = 0.
    """
    if not _AVX512:
        return builder.fmul(a, _polynomial(builder, a, _LOG1P), flags=_FAST)
    eighths = builder.bitcast(builder.fadd(a, _constant(_ROUND / 8)), _int_lanes)
    scale, shift, known = (
        _look_up(builder, values, eighths)
        for values in (1 / (1 + _EIGHTHS), -_EIGHTHS / (1 + _EIGHTHS), np.log1p(_EIGHTHS))
    )
    r = _fused(builder, a, scale, shift)
    return _fused(builder, r, _polynomial(builder, r, _LOG1P_EIGHTH), known)


@_instruction(_vector(_vector))
def minus_magnitude(builder, a):
    """-|a|."""
    return builder.fneg(_call(builder, "llvm.fabs.v16f32", _float_lanes, a))


@_instruction(_vector(_vector))
def positive_part(builder, a):
    """max(a, 0); NaN stays NaN."""
    return _bounded(builder, "<", a, 0.0)


@_instruction(_vector(_vector))
def reciprocal_root(builder, a):
    """1 / sqrt(a), rounded like the two operations."""
    return builder.fdiv(_constant(1.0), _call(builder, "llvm.sqrt.v16f32", _float_lanes, a))


@_instruction(_vector(_vector))
def total(builder, a):
    """The sum of the lanes, in every lane."""
    for distance in (8, 4, 2, 1):
        a = builder.fadd(a, _pick(builder, a, a, [lane ^ distance for lane in range(LANES)]))
    return a


@_instruction(types.float32(_vector))
def first_lane(builder, a):
    return builder.extract_element(a, ir.Constant(ir.IntType(32), 0))


@_instruction(_vector(_vector, _vector, _vector))
def where_positive(builder, a, value, otherwise):
    """One of the two, by the sign of `a`."""
    return builder.select(builder.fcmp_ordered(">", a, _constant(0.0)), value, otherwise)


@inline
def softplus_and_slope(z):
    """log(1 + exp(z)), accurate for large negative z too, and its derivative."""
    e = exp2(minus_magnitude(z) * splat(np.float32(LOG2E)))
    one = splat(np.float32(1))
    return positive_part(z) + log1p(e), where_positive(z, one, e) / (one + e)


# ---------------------------------------------------------------------------------- loops over the steps of a window
# Written as LLVM's instructions, because the states of sixteen channels have to stay in registers from step to step:
# vectors of a loop are phi nodes, and what belongs to each state is written out.


def _loop(builder, count, values, body):
    """The values after `values = body(i, values)` for i in range(count)."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(ir.IntType(64))
    current = [builder.phi(value.type) for value in values]
    builder.cbranch(builder.icmp_signed("<", i, count), inside, after)
    builder.position_at_end(inside)
    results = body(i, current)
    following = builder.add(i, _index(1))
    builder.branch(head)
    for phi, first, later in zip([i, *current], [_index(0), *values], [following, *results]):
        phi.add_incoming(first, before)
        phi.add_incoming(later, builder.block)
    builder.position_at_end(after)
    return current


class _Memory:
    """Vectors, scalars and integers at an address, by their number."""

    def __init__(self, builder, pointer) -> None:
        self.builder, self.pointer = builder, pointer

    def __getitem__(self, number):
        return self.builder.load(self._place(number), align=4)

    def __setitem__(self, number, value) -> None:
        self.builder.store(value, self._place(number), align=4)

    def _place(self, number):
        return _row(self.builder, self.pointer, self.builder.mul(self._whole(number), _index(LANES)))

    def everywhere(self, number):
        """One float32 value in every lane."""
        return _fill(self.builder, self.builder.load(self.builder.gep(self.pointer, [self._whole(number)])))

    def integer(self, number):
        """See `get_integer`."""
        integers = self.builder.bitcast(self.pointer, ir.PointerType(ir.IntType(64)))
        return self.builder.load(self.builder.gep(integers, [self._whole(number)]), align=4)

    def beyond(self, count, each: int = 1):
        """The memory behind so many times `each` values."""
        return _Memory(self.builder, self.builder.gep(self.pointer, [self.builder.mul(count, _index(each))]))

    @staticmethod
    def _whole(number):
        return _index(number) if isinstance(number, int) else number


_STATES = (16, 4, 1)  # at once: as many as fit into registers, then what is left
AT_ONCE = 8  # ranks of the step size, or steps: as many independent sums as hide a multiplication's latency
_RANKS = (AT_ONCE, 3, 1)  # ranks are multiples of three


def _in_groups(groups, *kinds):
    """The same of `emit(builder, group, first, number, ...)`: the function (number, ...).

    It does any number of states, ranks or steps; code is written out for a group of them at a time, whose size and
    first one `emit` is given.
    """

    def register(emit):
        def every_group(builder, number, *given):
            rest = [_Memory(builder, a) if kind is floats else a for kind, a in zip(kinds, given)]
            done = _index(0)
            for group in groups:
                count = builder.sdiv(builder.sub(number, done), _index(group))

                def emit_group(i, _, group=group, done=done):
                    emit(builder, group, builder.add(done, builder.mul(i, _index(group))), number, *rest)
                    return ()

                _loop(builder, count, (), emit_group)
                done = builder.add(done, builder.mul(count, _index(group)))

        wrapper: Any = functools.wraps(emit)(every_group)
        builder, _group, _first, *given = inspect.signature(emit).parameters.values()
        wrapper.__signature__ = inspect.Signature([builder, *given])
        return _instruction(types.void(types.intp, *kinds))(wrapper)

    return register


@_in_groups(_STATES, types.intp, *[floats] * 8)
def forward_window(builder, group, first, states, steps, delta, delta_u, y, h, A, begins, Bs, Cs):
    """y[t] += <C, h> over the steps of a window; h goes on from there.

    delta, delta_u, y: a vector per step; h, A: a vector per state; begins: for each step an integer, how far beyond
    Bs and Cs its values begin, one per state.

    Per state and step: 8 multiplications and fused ones (the bound: one per cycle and 16 lanes), 6 others.

    Without AVX-512 it is 9, at two cycles each.
    """
    h, A = h.beyond(first, LANES), A.beyond(first, LANES)

    def step(t, carried):
        d, d_u = delta[t], delta_u[t]
        row = builder.add(begins.integer(t), first)
        totals = [y[t], None]
        after = []
        for n in range(group):
            place = builder.add(row, _index(n))
            a = _exp2(builder, builder.fmul(d, A[n], flags=_FAST))
            state = _fused(builder, a, carried[n], builder.fmul(d_u, Bs.everywhere(place), flags=_FAST))
            after.append(state)
            C_n = Cs.everywhere(place)
            total = totals[n % 2]  # two sums, so that none waits for the other's
            totals[n % 2] = (
                builder.fmul(state, C_n, flags=_FAST) if total is None else _fused(builder, state, C_n, total)
            )
        y[t] = totals[0] if totals[1] is None else builder.fadd(*totals, flags=_FAST)
        return after

    for n, state in enumerate(_loop(builder, steps, [h[n] for n in range(group)], step)):
        h[n] = state


@_in_groups(_STATES, types.intp, *[floats] * 7)
def recompute_window(builder, group, first, states, steps, delta, delta_u, h, A, Bs, decays, history):
    """The decays of a window, and the states before each of its steps and after the last one.

    Bs: `states` values per step, one after the other: read in place, in between others, they leave the first cache
    sooner.

    Bound by multiplications, 7 per state and step (8 without AVX-512), and nearly by the stores of two vectors.
    """
    h, A, decays, history = (memory.beyond(first, LANES) for memory in (h, A, decays, history))
    Bs = Bs.beyond(first)

    def step(t, carried):
        d, d_u = delta[t], delta_u[t]
        row = builder.mul(t, states)
        after = []
        for n in range(group):
            place = builder.add(row, _index(n))
            a = _exp2(builder, builder.fmul(d, A[n], flags=_FAST))
            decays[place] = a
            history[place] = carried[n]
            after.append(_fused(builder, a, carried[n], builder.fmul(d_u, Bs.everywhere(place), flags=_FAST)))
        return after

    last = builder.mul(steps, states)
    for n, state in enumerate(_loop(builder, steps, [h[n] for n in range(group)], step)):
        history[builder.add(last, _index(n))] = state


def _pick(builder, a, b, lanes):
    return builder.shuffle_vector(a, b, ir.Constant(_int_lanes, lanes))


def _in_quarters(pattern):
    """Lane numbers of a shuffle that treats each quarter of four lanes alike; 4 to 7 are of the second vector."""
    return [4 * quarter + p % 4 + LANES * (p // 4) for quarter in range(4) for p in pattern]


_WHOLE_QUARTERS = [
    [4 * q + i + o for o in (0, LANES) for q in quarters for i in range(4)] for quarters in ((0, 2), (1, 3))
]
# what is added to what: neighbours, then pairs, then quarters twice; each is one instruction of AVX-512
_FOLDS = (
    (_in_quarters((0, 4, 1, 5)), _in_quarters((2, 6, 3, 7))),
    (_in_quarters((0, 1, 4, 5)), _in_quarters((2, 3, 6, 7))),
    _WHOLE_QUARTERS,
    _WHOLE_QUARTERS,
)


class _Totals:
    """Adds up the lanes of vectors as they come: the total of vector j ends in lane j of one vector."""

    def __init__(self, builder) -> None:
        self.builder = builder
        self.waiting: list = []  # (level, vector)

    def add(self, vector, level: int = 0) -> None:
        while self.waiting and self.waiting[-1][0] == level:
            first = self.waiting.pop()[1]
            halves = (_pick(self.builder, first, vector, lanes) for lanes in _FOLDS[level])
            vector = self.builder.fadd(*halves, flags=_FAST)
            level += 1
        self.waiting.append((level, vector))

    def result(self):
        while len(self.waiting) > 1 or self.waiting[0][0] < len(_FOLDS):
            level, vector = self.waiting[-1]  # no partner came: itself, whose lanes nobody looks at
            self.add(vector, level)
        return self.waiting[0][1]


@_in_groups(_STATES, types.intp, *[floats] * 14)
def reverse_window(
    builder,
    group,
    first,
    states,
    steps,
    delta,
    delta_u,
    dy,
    through_A,
    through_B,
    g,
    dA,
    A,
    Bs,
    Cs,
    decays,
    history,
    dBs,
    dCs,
):
    """Gradients through the steps of a window, last one first.

    through_A[t] = sum of dL/d(delta A) A over states, through_B[t] = sum of dL/d(delta u B) B; g: the gradient of
    the state, goes on from there; dA += dL/d(delta A) delta; dBs, dCs: `states` values per step, += sums over lanes.
    The others as `recompute_window` takes and leaves them.

    Per state and step: 8 multiplications and fused ones (the bound), 4 shuffles and 3 sums, 6 loads, a store.
    """
    g, dA, A, decays, history = (memory.beyond(first, LANES) for memory in (g, dA, A, decays, history))
    Bs, Cs, dBs, dCs = (memory.beyond(first) for memory in (Bs, Cs, dBs, dCs))
    lanes = ir.VectorType(ir.FloatType(), group)
    first_lanes = ir.Constant(ir.VectorType(ir.IntType(32), group), list(range(group)))

    nothing_yet = builder.icmp_signed("==", first, _index(0))

    def accumulate(memory, place, totals):
        pointer = builder.bitcast(builder.gep(memory.pointer, [place]), ir.PointerType(lanes))
        whole = totals.result()
        part = builder.shuffle_vector(whole, whole, first_lanes)
        builder.store(builder.fadd(builder.load(pointer, align=4), part, flags=_FAST), pointer, align=4)

    def step(i, carried):
        t = builder.sub(builder.sub(steps, _index(1)), i)
        d, d_u, g_y = delta[t], delta_u[t], dy[t]
        sum_A, sum_B = (builder.select(nothing_yet, _constant(0.0), through[t]) for through in (through_A, through_B))
        row = builder.mul(t, states)
        next_row = builder.add(row, states)
        total_B, total_C = _Totals(builder), _Totals(builder)
        before_it = []
        for n in range(group):
            place = builder.add(row, _index(n))
            after = history[builder.add(next_row, _index(n))]
            g_h = _fused(builder, g_y, Cs.everywhere(place), carried[n])
            sum_B = _fused(builder, g_h, Bs.everywhere(place), sum_B)
            total_B.add(builder.fmul(g_h, d_u, flags=_FAST))
            total_C.add(builder.fmul(g_y, after, flags=_FAST))
            g_before = builder.fmul(g_h, decays[place], flags=_FAST)
            g_exponent = builder.fmul(g_before, history[place], flags=_FAST)
            sum_A = _fused(builder, g_exponent, A[n], sum_A)
            dA[n] = _fused(builder, g_exponent, d, dA[n])
            before_it.append(g_before)
        through_A[t], through_B[t] = sum_A, sum_B
        accumulate(dBs, row, total_B)
        accumulate(dCs, row, total_C)
        return before_it

    for n, gradient in enumerate(_loop(builder, steps, [g[n] for n in range(group)], step)):
        g[n] = gradient


def _combine(builder, out, first, count, weights, factors):
    """out[j] = first[j] + sum over r < count of weights[r] * factors[j][r]; bound by the fused multiplications."""

    def column(r, sums):
        w = weights[r]
        return [_fused(builder, w, factor.everywhere(r), each) for factor, each in zip(factors, sums)]

    for j, value in enumerate(_loop(builder, count, first, column)):
        out[j] = value


@_in_groups((AT_ONCE,), types.intp, floats, _vector, *[floats] * 3)
def expand(builder, group, first, steps, ranks, out, bias, weights, begins, factors):
    """out[t] = bias + sum over r < ranks of weights[r] times value r of step t, for a multiple of `AT_ONCE` steps.

    out: a vector per step; bias: a vector; weights: a vector per rank; begins: for each step an integer, how far beyond
    `factors` its values begin.
    """
    starts = [factors.beyond(begins.integer(builder.add(first, _index(j)))) for j in range(group)]
    _combine(builder, out.beyond(first, LANES), [bias] * group, ranks, weights, starts)


@_in_groups(_RANKS, *[floats] * 3)
def contract(builder, group, first, ranks, out, vectors, weights):
    """out[r] += sum over the sixteen vectors of vectors[i] times lane i of weights[r]."""
    rows = [weights.beyond(builder.add(first, _index(j)), LANES) for j in range(group)]
    out = out.beyond(first, LANES)
    _combine(builder, out, [out[j] for j in range(group)], _index(LANES), vectors, rows)


@_in_groups(_RANKS, types.intp, *[floats] * 4)
def correlate(builder, group, first, ranks, steps, out, vectors, begins, factors):
    """out[r] += sum over t < steps of vectors[t] times value r of step t, which `begins` places as for `expand`."""
    out, factors = out.beyond(first, LANES), factors.beyond(first)

    def step(t, sums):
        vector, row = vectors[t], begins.integer(t)
        return [_fused(builder, vector, factors.everywhere(builder.add(row, _index(j))), s) for j, s in enumerate(sums)]

    for j, value in enumerate(_loop(builder, steps, [out[j] for j in range(group)], step)):
        out[j] = value


@_instruction(types.void(floats, types.intp, floats, types.intp))
def transpose(builder, source, source_step, target, target_step):
    """Sixteen vectors, lane i of vector j to lane j of vector i; the vectors begin so many values after each other."""
    vectors = [builder.load(_row(builder, source, builder.mul(_index(j), source_step)), align=4) for j in range(LANES)]
    for distance in (8, 4, 2, 1):
        low = [lane + (LANES - distance if lane & distance else 0) for lane in range(LANES)]
        high = [lane + (LANES if lane & distance else distance) for lane in range(LANES)]
        swapped = list(vectors)
        for j in range(LANES):
            if not j & distance:
                pair = vectors[j], vectors[j + distance]
                swapped[j], swapped[j + distance] = _pick(builder, *pair, low), _pick(builder, *pair, high)
        vectors = swapped
    for j, vector in enumerate(vectors):
        builder.store(vector, _row(builder, target, builder.mul(_index(j), target_step)), align=4)


# ---------------------------------------------------------------------------------------------------- compilation


def compile_kernel(function):
    """Compile a function of one array of integers now, to be called through C (`.ctypes`, `.address`).

    Cached on disk where the user's cache can be written.  Called so, it runs without the interpreter lock.
    """
    source = Path(function.__code__.co_filename).read_bytes()
    # part of the cache file's name: neither another version of this package nor of these vectors finds it
    function.__qualname__ += "_" + hashlib.sha256(_SOURCE + source).hexdigest()[:12]
    settings: Any = {"boundscheck": False, "error_model": "numpy"}
    compiled = functools.partial(cfunc, types.void(_integers), **settings)
    with _cache_folder():
        try:
            return compiled(cache=bool(_config.CACHE_DIR))(function)
        except RuntimeError:  # numba found no folder for its cache
            return compiled()(function)


@contextlib.contextmanager
def _cache_folder():
    """Numba's cache in the user's and not beside this file, where it would outlive `pip uninstall`.

    NUMBA_CACHE_DIR, where it is set, has the last word.  Without a folder that can be written, kernels are compiled in
    every process.
    """
    before = _config.CACHE_DIR
    if not before:
        _config.CACHE_DIR = _writable_cache()
    try:
        yield
    finally:
        _config.CACHE_DIR = before


@functools.cache
def _writable_cache() -> str:
    """`numba` in the user's cache folder; empty, and a warning, where that cannot be written."""
    try:
        folder = Path(user_cache_folder(), "numba")
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:
        logger.warning(
            "the compiled scan is not kept, and compiling it delays every start by seconds (%s); set "
            "XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that can be written",
            error,
        )
        return ""
    return str(folder)
