"""CPU: layer norm over channels and SiLU gate behind the scan in one pass over memory, forward and backward.

Apart, torch's own operations read or write a tensor of the image's size 7 times forward and some 13 times backward, and
keep the normalised image and SiLU of the gate in between; here it is 3 and 5 times, and nothing of the two is kept.
That traffic is what the loops are bound by, not their arithmetic.

Rows (pixels) are dealt out in chunks whose number depends on the shape alone; what chunks add to the gradients of
weight and bias goes to rows of their own, added in a fixed order: the same bits at any number of threads.
"""

import functools
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from swin_umamba_nnunet.ops._glue import rows_of
from swin_umamba_nnunet.ops._numba import _buffer, _plain, _sum, launch
from swin_umamba_nnunet.ops._numba_vectors import (
    LANES,
    LOG2E,
    address,
    argument,
    beyond,
    compile_kernel,
    exp2,
    first_lane,
    get,
    inline,
    load,
    put,
    reciprocal_root,
    splat,
    store,
    take,
    total,
)

_CHUNKS = 64  # at most: enough for many threads, few rows to add up
_At = IntEnum(
    "_At",
    "NEXT_CHUNK CHUNKS ROWS CHANNELS GATED GATE_STEP SAVE Y GATE WEIGHT BIAS OUT MEAN "
    "RSTD DOUT DY DGATE DWEIGHT DBIAS EPS",
    start=0,
)


@inline
def _sigmoid(g):
    one = splat(np.float32(1))
    return one / (one + exp2(g * splat(np.float32(-LOG2E))))


@compile_kernel
def _forward_kernel(arguments):
    """out = ((y - mean) rstd weight + bias) SiLU(gate), a row at a time: it stays in the first cache between passes."""
    rows, channels = argument(arguments, _At.ROWS), argument(arguments, _At.CHANNELS)
    chunks, gated = argument(arguments, _At.CHUNKS), argument(arguments, _At.GATED)
    count = splat(np.float32(channels))
    gate_step = argument(arguments, _At.GATE_STEP)
    weight, bias = address(arguments, _At.WEIGHT), address(arguments, _At.BIAS)
    epsilon = splat(get(address(arguments, _At.EPS), 0))
    while True:
        chunk = take(arguments, _At.NEXT_CHUNK)
        if chunk >= chunks:
            break
        for row in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            y, out = (
                beyond(address(arguments, _At.Y), row * channels),
                beyond(address(arguments, _At.OUT), row * channels),
            )
            gate = beyond(address(arguments, _At.GATE), row * gate_step)
            mean = splat(np.float32(0))
            for i in range(0, channels, LANES):
                mean = mean + load(y, i)
            mean = total(mean) / count
            variance = splat(np.float32(0))
            for i in range(0, channels, LANES):
                off = load(y, i) - mean
                variance = variance + off * off
            rstd = reciprocal_root(total(variance) / count + epsilon)
            for i in range(0, channels, LANES):
                value = (load(y, i) - mean) * rstd * load(weight, i) + load(bias, i)
                if gated:
                    g = load(gate, i)
                    value = value * (g * _sigmoid(g))
                store(out, i, value)
            if argument(arguments, _At.SAVE):
                put(address(arguments, _At.MEAN), row, first_lane(mean))
                put(address(arguments, _At.RSTD), row, first_lane(rstd))


@compile_kernel
def _backward_kernel(arguments):
    """Gradients of y and gate a row at a time, those of weight and bias a row per chunk."""
    rows, channels = argument(arguments, _At.ROWS), argument(arguments, _At.CHANNELS)
    chunks, gated = argument(arguments, _At.CHUNKS), argument(arguments, _At.GATED)
    count = splat(np.float32(channels))
    gate_step = argument(arguments, _At.GATE_STEP)
    weight, bias = address(arguments, _At.WEIGHT), address(arguments, _At.BIAS)
    one = splat(np.float32(1))
    while True:
        chunk = take(arguments, _At.NEXT_CHUNK)
        if chunk >= chunks:
            break
        dweight = beyond(address(arguments, _At.DWEIGHT), chunk * channels)
        dbias = beyond(address(arguments, _At.DBIAS), chunk * channels)
        for i in range(0, channels, LANES):
            store(dweight, i, splat(np.float32(0)))
            store(dbias, i, splat(np.float32(0)))
        for row in range(rows * chunk // chunks, rows * (chunk + 1) // chunks):
            y, dout = (
                beyond(address(arguments, _At.Y), row * channels),
                beyond(address(arguments, _At.DOUT), row * channels),
            )
            dy = beyond(address(arguments, _At.DY), row * channels)
            dgate = beyond(address(arguments, _At.DGATE), row * channels)
            gate = beyond(address(arguments, _At.GATE), row * gate_step)
            mean, rstd = (
                splat(get(address(arguments, _At.MEAN), row)),
                splat(get(address(arguments, _At.RSTD), row)),
            )
            direct, along = splat(np.float32(0)), splat(np.float32(0))
            for i in range(0, channels, LANES):
                normal = (load(y, i) - mean) * rstd
                gradient, w = load(dout, i), load(weight, i)
                if gated:
                    g = load(gate, i)
                    s = _sigmoid(g)
                    store(dgate, i, gradient * (normal * w + load(bias, i)) * (s * (one + g * (one - s))))
                    gradient = gradient * (g * s)
                store(dweight, i, load(dweight, i) + gradient * normal)
                store(dbias, i, load(dbias, i) + gradient)
                gradient = gradient * w
                store(dy, i, gradient)
                direct = direct + gradient
                along = along + gradient * normal
            direct, along = total(direct) / count, total(along) / count
            for i in range(0, channels, LANES):
                normal = (load(y, i) - mean) * rstd
                store(dy, i, (load(dy, i) - direct - normal * along) * rstd)


def forward(y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float, save: bool):
    """The output, mean and rstd of each pixel (empty unless `save`, and then y is gone); shapes in `_glue.py`."""
    y = _plain(y)
    out = _buffer(*y.shape) if save else y
    mean, rstd = (_buffer(*(y.shape[:3] if save else (0,))) for _ in range(2))
    _launch(_forward_kernel, y, gate, weight, bias, {"out": out, "mean": mean, "rstd": rstd}, save=int(save), eps=eps)
    return out, mean, rstd


def backward(
    dout: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of y, of the gate (empty if there is none), of weight and bias."""
    dy, dgate = _buffer(*y.shape), _buffer(*(y.shape if gate is not None else (0,)))
    dweight, dbias = (_buffer(_chunks(y), y.shape[-1]) for _ in range(2))
    tensors = {
        "mean": mean,
        "rstd": rstd,
        "dout": _plain(dout),
        "dy": dy,
        "dgate": dgate,
        "dweight": dweight,
        "dbias": dbias,
    }
    _launch(_backward_kernel, y, gate, weight, bias, tensors)
    dgate = dgate if gate is None else dgate.to(gate.dtype)
    return dy, dgate, _sum(dweight).to(weight.dtype), _sum(dbias).to(bias.dtype)


def _chunks(y: Tensor) -> int:
    return min(_CHUNKS, y.numel() // y.shape[-1])


@functools.cache
def _at_an_address(value: float) -> Tensor:
    return _buffer(1).fill_(value)


def _launch(kernel, y, gate, weight, bias, tensors, *, save=0, eps=0.0):
    y, weight, bias = _plain(y), _plain(weight), _plain(bias)
    gate, gate_step = (weight, 0) if gate is None else rows_of(gate.float())  # weight holds its place
    threads = min(torch.get_num_threads(), _chunks(y))
    epsilon = _at_an_address(eps)
    values = {
        "chunks": _chunks(y),
        "rows": y.numel() // y.shape[-1],
        "channels": y.shape[-1],
        "gated": int(gate is not weight),
        "gate_step": gate_step,
        "save": save,
        "eps": epsilon.data_ptr(),
    }
    given = {"y": y, "gate": gate, "weight": weight, "bias": bias, **tensors}
    launch(kernel, _At, values, given, threads)
