"""Vectors of sixteen float32 values for numba kernels, and what the selective scan computes with them.

Numba has no vector type and LLVM does not vectorise the scan's loops by itself: they touch more arrays than it is
willing to check for overlap.  So this file defines one, lane by lane in LLVM's own terms; LLVM lowers it to AVX-512,
AVX2, SSE or NEON.  It is the only file that imports numba.

Numba keeps a compiled kernel until the kernel's own file changes, so the kernels' names carry a digest of both files.
"""

import contextlib
import functools
import hashlib
import logging
import math
import operator
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core import config as numba_config
from numba.extending import intrinsic, models, overload, register_model

from swin_umamba_nnunet._cache import user_cache_folder

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


def _pointer(context, builder, array_type, array, index):
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), ir.PointerType(_float_lanes))


@intrinsic
def load(typingctx, array, index):
    def codegen(context, builder, signature, args):
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return _vector(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, value):
    def codegen(context, builder, signature, args):
        builder.store(args[2], _pointer(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), codegen


def _fill(builder, value):
    undefined = ir.Constant(_float_lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_int_lanes, [0] * LANES))


@intrinsic
def splat(typingctx, value):
    def codegen(context, builder, signature, args):
        return _fill(builder, args[0])

    return _vector(types.float32), codegen


@intrinsic
def broadcast(typingctx, array, index):
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


def _fit_exp2(degree: int) -> list[float]:
    """c with 2**f = 1 + c[0] f + c[1] f**2 + ... on [-1/2, 1/2], by least squares of the relative error."""
    f = np.cos(np.pi * (np.arange(400) + 0.5) / 400) / 2
    return list(np.linalg.lstsq(f[:, None] ** np.arange(degree), np.expm1(f * LN2) / f, rcond=None)[0])


_EXP2 = _fit_exp2(5)  # relative error 2e-7, and vanishing towards 0, where a decay lives that is to last
_ROUND = 1.5 * 2**23  # adding it to a float32 leaves the nearest integer in the lowest bits


@intrinsic
def exp2(typingctx, a):
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


def _replaced(comparison: str, bound: float, instead: float):
    @intrinsic
    def replace(typingctx, a, value):
        """`instead` where `a` compares so with the bound, else `value`; NaN compares with nothing."""

        def codegen(context, builder, signature, args):
            there = builder.fcmp_ordered(comparison, args[0], _constant(bound))
            return builder.select(there, _constant(instead), args[1])

        return _vector(_vector, _vector), codegen

    return replace


_negative_part = _replaced(">", 0.0, 0.0)
_positive_part = _replaced("<", 0.0, 0.0)
_exponent_range = _replaced(">", 126.0, 126.0)
_nothing_far_below = _replaced("<", -86.0, 0.0)  # where exp2 has come to its end; -infinity ends here


@inline
def exponent_range(a):
    return _exponent_range(a, a)


@intrinsic
def prefetch(typingctx, array, index):
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


def compile_kernel(signature: str):
    """Compile now; at run time without the interpreter lock; cached on disk where the user's cache can be written."""

    def decorate(function):
        source = Path(function.__code__.co_filename).read_bytes()
        # part of the cache file's name: neither another version of this package nor of these vectors finds it
        function.__qualname__ += "_" + hashlib.sha256(_SOURCE + source).hexdigest()[:12]
        with _cache_folder():
            try:
                return njit(signature, nogil=True, cache=bool(_config.CACHE_DIR), boundscheck=False)(function)
            except RuntimeError:  # numba found no folder for its cache
                return njit(signature, nogil=True, boundscheck=False)(function)

    return decorate


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
        folder = user_cache_folder() / "numba"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:
        logger.warning("the compiled scan is not kept, and compiling it delays every start by seconds (%s); set "
                       "XDG_CACHE_HOME or NUMBA_CACHE_DIR to a folder that can be written", error)  # fmt: skip
        return ""
    return str(folder)


@intrinsic
def totals(typingctx, array, index):
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


@inline
def softplus(z):
    """log(1 + exp(z)), accurate for large negative z too: log1p(e) = 2 artanh(e / (2 + e)); 0 below -86."""
    e = exp2((_negative_part(z, z) - _positive_part(z, z)) * splat(np.float32(LOG2E)))
    s = e / (splat(np.float32(2)) + e)
    square = s * s
    series = splat(np.float32(1 / 15))
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series = series * square + splat(np.float32(1 / odd))
    return _positive_part(z, z) + _nothing_far_below(z, splat(np.float32(2)) * s * series)


@inline
def sigmoid(z):
    """The derivative of softplus."""
    below = _negative_part(z, z)
    e = exp2((below - _positive_part(z, z)) * splat(np.float32(LOG2E)))
    return _nothing_far_below(z, exp2(below * splat(np.float32(LOG2E))) / (splat(np.float32(1)) + e))
