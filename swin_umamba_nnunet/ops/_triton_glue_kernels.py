"""Triton kernels of what follows the scan: sum over directions, layer norm over channels, times SiLU of a gate.

Bound by memory: each element is read once and written once, so the point is to touch nothing twice and to keep many
loads in flight.  One program owns ROWS pixels with all their channels (DP, the next power of two, masked): the norm
needs no second pass, since mean and variance come from what is in registers.  Sums over pixels (gradients of the
norm's weight and bias) leave as one row per program and are summed by the caller: no atomics, the same bits every run.

Only plain loads, stores and sums: Triton 3.0 to 3.9 take the same source.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def logistic(z):
    """1 / (1 + exp(-z)) without overflow on either side."""
    e = tl.exp2(-tl.abs(z) * LOG2E)
    return tl.where(z >= 0, 1.0, e) / (1.0 + e)


@triton.jit(do_not_specialize=["rows", "L"])
def norm_gate_kernel(
    parts_ptr,
    gate_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    rows,
    L,
    D,
    gate_stride,
    eps,
    K: tl.constexpr,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    GATED: tl.constexpr,
    SAVE: tl.constexpr,
):
    """parts_ptr (b, K, L, D) -> out_ptr (b*L, D), and for the backward pass y_ptr (b*L, D), mean_ptr, rstd_ptr (b*L).

    Row i of the gate starts at gate_ptr + i * gate_stride: it may be one half of a wider tensor.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DP)
    row_ok = row < rows
    d_ok = d < D
    ok = row_ok[:, None] & d_ok[None, :]
    image = row // L
    pixel = row.to(tl.int64)
    source = parts_ptr + (pixel + image.to(tl.int64) * (K - 1) * L)[:, None] * D + d[None, :]
    direction = tl.full((1, 1), D, dtype=tl.int64) * L
    y = tl.load(source, mask=ok, other=0.0)
    for k in tl.static_range(1, K):
        y += tl.load(source + k * direction, mask=ok, other=0.0)

    mean = tl.sum(y, axis=1) / D
    centred = tl.where(d_ok[None, :], y - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / D + eps)
    weight = tl.load(weight_ptr + d, mask=d_ok, other=0.0)
    bias = tl.load(bias_ptr + d, mask=d_ok, other=0.0)
    out = centred * rstd[:, None] * weight[None, :] + bias[None, :]
    if GATED:
        z = tl.load(gate_ptr + pixel[:, None] * gate_stride + d[None, :], mask=ok, other=0.0).to(tl.float32)
        out *= z * logistic(z)
    own = pixel[:, None] * D + d[None, :]
    tl.store(out_ptr + own, out.to(out_ptr.dtype.element_ty), mask=ok)
    if SAVE:
        tl.store(y_ptr + own, y, mask=ok)
        tl.store(mean_ptr + row, mean, mask=row_ok)
        tl.store(rstd_ptr + row, rstd, mask=row_ok)


@triton.jit(do_not_specialize=["rows", "tiles"])
def norm_gate_backward_kernel(
    dout_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    gate_ptr,
    weight_ptr,
    bias_ptr,
    dy_ptr,
    dgate_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    tiles,
    D,
    gate_stride,
    DP: tl.constexpr,
    ROWS: tl.constexpr,
    GATED: tl.constexpr,
):
    """dy_ptr (b*L, D): gradient of the sum, the same for every direction; dweight_ptr, dbias_ptr (programs, D)."""
    d = tl.arange(0, DP)
    d_ok = d < D
    weight = tl.load(weight_ptr + d, mask=d_ok, other=0.0)[None, :]
    bias = tl.load(bias_ptr + d, mask=d_ok, other=0.0)[None, :]
    dweight = tl.zeros((ROWS, DP), dtype=tl.float32)
    dbias = tl.zeros((ROWS, DP), dtype=tl.float32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        row = tile * ROWS + tl.arange(0, ROWS)
        row_ok = row < rows
        ok = row_ok[:, None] & d_ok[None, :]
        pixel = row.to(tl.int64)[:, None]
        own = pixel * D + d[None, :]
        y = tl.load(y_ptr + own, mask=ok, other=0.0)
        g = tl.load(dout_ptr + own, mask=ok, other=0.0).to(tl.float32)  # zero where masked, and so is all it enters
        mean = tl.load(mean_ptr + row, mask=row_ok, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=row_ok, other=0.0)[:, None]
        normed = (y - mean[:, None]) * rstd
        if GATED:
            z = tl.load(gate_ptr + pixel * gate_stride + d[None, :], mask=ok, other=0.0).to(tl.float32)
            p = logistic(z)
            dgate = g * (normed * weight + bias) * (p + z * p * (1.0 - p))
            tl.store(dgate_ptr + own, dgate.to(dgate_ptr.dtype.element_ty), mask=ok)
            g *= z * p
        dweight += g * normed
        dbias += g
        g *= weight
        along_mean = tl.sum(g, axis=1) / D
        along_scale = tl.sum(g * normed, axis=1) / D
        tl.store(dy_ptr + own, rstd * (g - along_mean[:, None] - normed * along_scale[:, None]), mask=ok)
    part = tl.program_id(0).to(tl.int64) * D + d
    tl.store(dweight_ptr + part, tl.sum(dweight, axis=0), mask=d_ok)
    tl.store(dbias_ptr + part, tl.sum(dbias, axis=0), mask=d_ok)
