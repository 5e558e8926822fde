"""The Triton kernels of the directional scan: the only file that imports `triton`.

Symbols as in `_scan.py`; t is the step along a direction, `pos` the pixel it visits.  One program owns BD channels of
one direction of one image and a run of consecutive windows (a chunk), holds their states in registers and walks the
steps one after the other.  Four exponentials of four lanes per clock bound all of this (not memory), so every kernel
evaluates exp(delta A) once per state and step and keeps the rest of the arithmetic lean.

    state_kernel      what a chunk does to a state that enters it: end state from zero, sum of the step sizes
    forward_kernel    y of each direction, at the pixel it belongs to; optionally the state before each window
    adjoint_kernel    the mirror image of state_kernel for the gradient that leaves a chunk at its first step
    backward_kernel   all gradients, one window after the other backwards, states recomputed from the saved ones

Sums over programs (directions, channel blocks, chunks) are written out as parts and summed by the caller: no atomics,
the same bits every run.

A is passed as A * log2(e) so that exp(delta A) is one exp2.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
WINDOW = tl.constexpr(64)


@triton.jit
def softplus(z):
    """log(1 + exp(z)) to 2e-7 of its value: step sizes are small, log2(1 + e) would lose their digits."""
    e = tl.exp2(-tl.abs(z) * LOG2E)
    p = 0.005253457929939032 * e - 0.02958850748836994
    p = p * e + 0.07836166769266129
    p = p * e - 0.13674770295619965
    p = p * e + 0.19111430644989014
    p = p * e - 0.24844369292259216
    p = p * e + 0.33319270610809326
    p = p * e - 0.49999502301216125
    p = p * e + 1.0
    return tl.maximum(z, 0.0) + e * p


@triton.jit
def position(t, k, H, W, L):
    """Pixel visited at step t of direction k."""
    s = tl.where(k >= 2, L - 1 - t, t)
    return tl.where(k % 2 == 1, (s % H) * W + s // H, s)


@triton.jit
def stride_of(k, W):
    return tl.where(k % 2 == 1, W, 1) * tl.where(k >= 2, -1, 1)


@triton.jit
def move(pos, stride, L):
    """The pixel `stride` further along a direction: past the end of a column lies the start of the next."""
    pos += stride
    pos = tl.where(pos >= L, pos - (L - 1), pos)
    return tl.where(pos < 0, pos + (L - 1), pos)


@triton.jit
def load_row(base, pos, width, mask, MASKED: tl.constexpr):
    """Row `pos` of a (L, width) table, float32; `base` holds the pointers of row 0."""
    if MASKED:
        row = tl.load(base + pos.to(tl.int64) * width, mask=mask, other=0.0)
    else:
        row = tl.load(base + pos.to(tl.int64) * width)
    return row.to(tl.float32)


@triton.jit
def load_three(base, pos, pos1, pos2, width, mask, MASKED: tl.constexpr):
    row = load_row(base, pos, width, mask, MASKED)
    row1 = load_row(base, pos1, width, mask, MASKED)
    return row, row1, load_row(base, pos2, width, mask, MASKED)


@triton.jit
def load_four(base, pos, pos1, pos2, pos3, width, mask, MASKED: tl.constexpr):
    row, row1, row2 = load_three(base, pos, pos1, pos2, width, mask, MASKED)
    return row, row1, row2, load_row(base, pos3, width, mask, MASKED)


@triton.jit
def store_row(base, pos, width, row, mask):
    tl.store(base + pos.to(tl.int64) * width, row, mask=mask)


@triton.jit
def step_size(dt, bias, SOFTPLUS: tl.constexpr):
    delta = dt + bias
    if SOFTPLUS:
        delta = softplus(delta)
    return delta


@triton.jit
def step_size_and_slope(dt, bias, SOFTPLUS: tl.constexpr):
    """The step size and its derivative by dt; the logistic function is exp(z - softplus(z))."""
    z = dt + bias
    delta = z
    slope = tl.full(z.shape, 1.0, dtype=tl.float32)
    if SOFTPLUS:
        delta = softplus(z)
        slope = tl.exp2((z - delta) * LOG2E)
    return delta, slope


@triton.jit
def item_of(program, blocks, chunks, K: tl.constexpr):
    """Work item -> (batch, direction, chunk, channel block); neighbours share rows of B, C and x."""
    block = program % blocks
    rest = program // blocks
    k = rest % K
    rest = rest // K
    return (rest // chunks).to(tl.int64), k, rest % chunks, block


@triton.jit
def forward_step(h, x, dt, B, C, A, D, bias, SOFTPLUS: tl.constexpr):
    """h, A (N, BD); x, dt, D, bias (BD); B, C (N) -> the next h and y (BD)."""
    delta = step_size(dt, bias, SOFTPLUS)
    h = tl.exp2(A * delta[None, :]) * h + B[:, None] * (delta * x)[None, :]
    return h, tl.sum(h * C[:, None], axis=0) + D * x


@triton.jit(do_not_specialize=["H", "W", "L", "chunks", "chunk_windows", "batch", "zero"])
def forward_kernel(
    x_ptr,
    dt_ptr,
    B_ptr,
    C_ptr,
    A_ptr,
    D_ptr,
    bias_ptr,
    ends_ptr,
    sums_ptr,
    y_ptr,
    states_ptr,
    H,
    W,
    L,
    D,
    chunks,
    chunk_windows,
    batch,
    zero,
    K: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    BD: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    SAVE: tl.constexpr,
    EVEN: tl.constexpr,
):
    """y_ptr (b, K, L, D): each direction's output at its pixel.  A_ptr (K, N, D), states as in `_scan.py`."""
    b, k, chunk, block = item_of(tl.program_id(0), tl.cdiv(D, BD), chunks, K)
    d = block * BD + tl.arange(0, BD)
    n = tl.arange(0, NP)
    d_ok = d < D
    n_ok = n < N
    tile_ok = n_ok[:, None] & d_ok[None, :]
    # `zero` hides the alignment of the rows: without it some Triton versions spread a channel's states over lanes
    tile = n[:, None] * D + d[None, :] + zero
    saved = d[None, :] * N + n[:, None]
    A = tl.load(A_ptr + k * N * D + tile, mask=tile_ok, other=0.0)
    skip = tl.load(D_ptr + k * D + d, mask=d_ok, other=0.0)
    bias = tl.load(bias_ptr + k * D + d, mask=d_ok, other=0.0)

    h = tl.zeros((NP, BD), dtype=tl.float32)
    row = (b * K + k) * chunks
    for _ in range(chunk):
        total = tl.load(sums_ptr + row * D + d, mask=d_ok, other=0.0)
        h = tl.exp2(A * total[None, :]) * h + tl.load(ends_ptr + row * N * D + tile, mask=tile_ok, other=0.0)
        row += 1

    x_row = x_ptr + b * L * D + d
    dt_row = dt_ptr + (k * batch + b) * L * D + d
    B_row = B_ptr + (b * L * K + k) * N + n
    C_row = C_ptr + (b * L * K + k) * N + n
    y_row = y_ptr + (b * K + k) * L * D + d
    windows = tl.cdiv(L, WINDOW)
    stride = stride_of(k, W)
    first = chunk * chunk_windows
    pos = position(first * WINDOW, k, H, W, L)
    for window in range(first, tl.minimum(first + chunk_windows, windows)):
        if SAVE:
            tl.store(states_ptr + ((b * K + k) * windows + window) * D * N + saved, h, mask=tile_ok)
        steps = tl.minimum(L - window * WINDOW, WINDOW)
        for _ in range(steps // 4):
            pos1 = move(pos, stride, L)
            pos2 = move(pos1, stride, L)
            pos3 = move(pos2, stride, L)
            # all loads first: they overlap
            x0, x1, x2, x3 = load_four(x_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
            dt0, dt1, dt2, dt3 = load_four(dt_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
            B0, B1, B2, B3 = load_four(B_row, pos, pos1, pos2, pos3, K * N, n_ok, NP != N)
            C0, C1, C2, C3 = load_four(C_row, pos, pos1, pos2, pos3, K * N, n_ok, NP != N)
            h, y0 = forward_step(h, x0, dt0, B0, C0, A, skip, bias, SOFTPLUS)
            h, y1 = forward_step(h, x1, dt1, B1, C1, A, skip, bias, SOFTPLUS)
            h, y2 = forward_step(h, x2, dt2, B2, C2, A, skip, bias, SOFTPLUS)
            h, y3 = forward_step(h, x3, dt3, B3, C3, A, skip, bias, SOFTPLUS)
            store_row(y_row, pos, D, y0, d_ok)
            store_row(y_row, pos1, D, y1, d_ok)
            store_row(y_row, pos2, D, y2, d_ok)
            store_row(y_row, pos3, D, y3, d_ok)
            pos = move(pos3, stride, L)
        for _ in range(steps % 4):
            x0 = load_row(x_row, pos, D, d_ok, True)
            dt0 = load_row(dt_row, pos, D, d_ok, True)
            B0 = load_row(B_row, pos, K * N, n_ok, True)
            C0 = load_row(C_row, pos, K * N, n_ok, True)
            h, y0 = forward_step(h, x0, dt0, B0, C0, A, skip, bias, SOFTPLUS)
            store_row(y_row, pos, D, y0, d_ok)
            pos = move(pos, stride, L)


@triton.jit
def state_step(h, x, dt, B, A, bias, SOFTPLUS: tl.constexpr):
    """Like `forward_step` without the output -> the next h and the step size (BD)."""
    delta = step_size(dt, bias, SOFTPLUS)
    return tl.exp2(A * delta[None, :]) * h + B[:, None] * (delta * x)[None, :], delta


@triton.jit(do_not_specialize=["H", "W", "L", "chunks", "chunk_windows", "batch", "zero"])
def state_kernel(
    x_ptr,
    dt_ptr,
    B_ptr,
    A_ptr,
    bias_ptr,
    ends_ptr,
    sums_ptr,
    H,
    W,
    L,
    D,
    chunks,
    chunk_windows,
    batch,
    zero,
    K: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    BD: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """ends_ptr (b, K, chunks, N, D): state after a chunk entered with zeros; sums_ptr (b, K, chunks, D): sum of delta.

    Not needed, and not written, for the last chunk.
    """
    b, k, chunk, block = item_of(tl.program_id(0), tl.cdiv(D, BD), chunks - 1, K)
    d = block * BD + tl.arange(0, BD)
    n = tl.arange(0, NP)
    d_ok = d < D
    n_ok = n < N
    tile_ok = n_ok[:, None] & d_ok[None, :]
    tile = n[:, None] * D + d[None, :] + zero
    A = tl.load(A_ptr + k * N * D + tile, mask=tile_ok, other=0.0)
    bias = tl.load(bias_ptr + k * D + d, mask=d_ok, other=0.0)
    x_row = x_ptr + b * L * D + d
    dt_row = dt_ptr + (k * batch + b) * L * D + d
    B_row = B_ptr + (b * L * K + k) * N + n
    stride = stride_of(k, W)
    pos = position(chunk * chunk_windows * WINDOW, k, H, W, L)
    h = tl.zeros((NP, BD), dtype=tl.float32)
    total = tl.zeros((BD,), dtype=tl.float32)
    for _ in range(chunk_windows * (WINDOW // 4)):
        pos1 = move(pos, stride, L)
        pos2 = move(pos1, stride, L)
        pos3 = move(pos2, stride, L)
        x0, x1, x2, x3 = load_four(x_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
        dt0, dt1, dt2, dt3 = load_four(dt_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
        B0, B1, B2, B3 = load_four(B_row, pos, pos1, pos2, pos3, K * N, n_ok, NP != N)
        h, delta0 = state_step(h, x0, dt0, B0, A, bias, SOFTPLUS)
        h, delta1 = state_step(h, x1, dt1, B1, A, bias, SOFTPLUS)
        h, delta2 = state_step(h, x2, dt2, B2, A, bias, SOFTPLUS)
        h, delta3 = state_step(h, x3, dt3, B3, A, bias, SOFTPLUS)
        total += (delta0 + delta1) + (delta2 + delta3)
        pos = move(pos3, stride, L)
    row = (b * K + k) * chunks + chunk
    tl.store(ends_ptr + row * N * D + tile, h, mask=tile_ok)
    tl.store(sums_ptr + row * D + d, total, mask=d_ok)


@triton.jit
def adjoint_step(G, total, dy, dt, C, A, bias, SOFTPLUS: tl.constexpr):
    """G += exp(A (delta_0 + ... + delta_t)) C_t dy_t; returns G and the running sum of delta (BD)."""
    total += step_size(dt, bias, SOFTPLUS)
    return G + tl.exp2(A * total[None, :]) * (C[:, None] * dy[None, :]), total


@triton.jit(do_not_specialize=["H", "W", "L", "chunks", "chunk_windows", "batch", "zero"])
def adjoint_kernel(
    dy_ptr,
    dt_ptr,
    C_ptr,
    A_ptr,
    bias_ptr,
    heads_ptr,
    sums_ptr,
    H,
    W,
    L,
    D,
    chunks,
    chunk_windows,
    batch,
    zero,
    K: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    BD: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """heads_ptr (b, K, chunks, D, N): gradient of the state before a chunk, if none comes from behind the chunk.

    Walks forward in time, since the decay from the chunk's start to step t is exp(A sum of delta).  Not needed, and
    not written, for the first chunk.
    """
    b, k, chunk, block = item_of(tl.program_id(0), tl.cdiv(D, BD), chunks - 1, K)
    chunk += 1
    d = block * BD + tl.arange(0, BD)
    n = tl.arange(0, NP)
    d_ok = d < D
    n_ok = n < N
    tile_ok = n_ok[:, None] & d_ok[None, :]
    tile = n[:, None] * D + d[None, :] + zero
    A = tl.load(A_ptr + k * N * D + tile, mask=tile_ok, other=0.0)
    bias = tl.load(bias_ptr + k * D + d, mask=d_ok, other=0.0)
    dy_row = dy_ptr + b * L * D + d
    dt_row = dt_ptr + (k * batch + b) * L * D + d
    C_row = C_ptr + (b * L * K + k) * N + n
    stride = stride_of(k, W)
    start = chunk * chunk_windows * WINDOW
    steps = tl.minimum(L - start, chunk_windows * WINDOW)
    pos = position(start, k, H, W, L)
    G = tl.zeros((NP, BD), dtype=tl.float32)
    total = tl.zeros((BD,), dtype=tl.float32)
    for _ in range(steps // 4):
        pos1 = move(pos, stride, L)
        pos2 = move(pos1, stride, L)
        pos3 = move(pos2, stride, L)
        dy0, dy1, dy2, dy3 = load_four(dy_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
        dt0, dt1, dt2, dt3 = load_four(dt_row, pos, pos1, pos2, pos3, D, d_ok, not EVEN)
        C0, C1, C2, C3 = load_four(C_row, pos, pos1, pos2, pos3, K * N, n_ok, NP != N)
        G, total = adjoint_step(G, total, dy0, dt0, C0, A, bias, SOFTPLUS)
        G, total = adjoint_step(G, total, dy1, dt1, C1, A, bias, SOFTPLUS)
        G, total = adjoint_step(G, total, dy2, dt2, C2, A, bias, SOFTPLUS)
        G, total = adjoint_step(G, total, dy3, dt3, C3, A, bias, SOFTPLUS)
        pos = move(pos3, stride, L)
    for _ in range(steps % 4):
        dy0 = load_row(dy_row, pos, D, d_ok, True)
        dt0 = load_row(dt_row, pos, D, d_ok, True)
        C0 = load_row(C_row, pos, K * N, n_ok, True)
        G, total = adjoint_step(G, total, dy0, dt0, C0, A, bias, SOFTPLUS)
        pos = move(pos, stride, L)
    row = (b * K + k) * chunks + chunk
    tl.store(heads_ptr + row * D * N + d[None, :] * N + n[:, None], G, mask=tile_ok)
    tl.store(sums_ptr + row * D + d, total, mask=d_ok)


@triton.jit
def backward_state_step(h, x, dt, B, A, bias, SOFTPLUS: tl.constexpr):
    """`state_step` with the tiles the other way round: h, A (BD, N); x, dt, bias (BD); B (N)."""
    delta = step_size(dt, bias, SOFTPLUS)
    return tl.exp2(A * delta[:, None]) * h + B[None, :] * (delta * x)[:, None]


@triton.jit
def again_step(h, x, delta, dy, B, A):
    """Step forwards once more before going back -> decay and state (BD, N), gradient of C (N)."""
    a = tl.exp2(A * delta[:, None])
    h = a * h + B[None, :] * (delta * x)[:, None]
    return a, h, tl.sum(h * dy[:, None], axis=0)


@triton.jit
def backward_step(r, dA, h, a, x, delta, slope, dy, B, C, A, D):
    """One step back.  r is the gradient of the state after the step, from the steps behind it; h the state before it.

    Returns r of the state before the step, dA (BD, N), and the gradients of B (N), x and dt (BD).
    """
    g = r + C[None, :] * dy[:, None]
    dB = tl.sum(g * (delta * x)[:, None], axis=0)
    gB = tl.sum(g * B[None, :], axis=1)
    r = a * g
    q = r * h
    dA += q * delta[:, None]
    ddt = (tl.sum(q * A, axis=1) * LN2 + x * gB) * slope
    return r, dA, dB, delta * gB + D * dy, ddt


@triton.jit(do_not_specialize=["H", "W", "L", "chunks", "chunk_windows", "batch", "items"])
def backward_kernel(
    dy_ptr,
    x_ptr,
    dt_ptr,
    B_ptr,
    C_ptr,
    A_ptr,
    D_ptr,
    bias_ptr,
    states_ptr,
    heads_ptr,
    sums_ptr,
    scratch_ptr,
    dx_ptr,
    ddt_ptr,
    dB_ptr,
    dC_ptr,
    dA_ptr,
    dD_ptr,
    dbias_ptr,
    H,
    W,
    L,
    D,
    chunks,
    chunk_windows,
    batch,
    items,
    K: tl.constexpr,
    N: tl.constexpr,
    NP: tl.constexpr,
    BD: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """All gradients in parts: dx_ptr (b, K, L, D), dB_ptr and dC_ptr (blocks, b, L, K, N), the rest (b, chunks, K, ...)

    Programs stay on the machine and take one item after the other, so that the checkpoints inside a window
    (scratch_ptr: one slot per program, rewritten for every window) stay in the cache.  Tiles are (BD, N) here: sums
    over channels (dB, dC) then cost a few shuffles.  Steps go in groups of three, which is what fits in registers.
    """
    blocks = tl.cdiv(D, BD)
    windows = tl.cdiv(L, WINDOW)
    lane = tl.arange(0, BD)
    n = tl.arange(0, NP)
    n_ok = n < N
    slot_size: tl.constexpr = ((WINDOW + 2) // 3) * BD * NP
    slot = scratch_ptr + tl.program_id(0).to(tl.int64) * slot_size + lane[:, None] * NP + n[None, :]
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        b, k, chunk, block = item_of(item, blocks, chunks, K)
        d = block * BD + lane
        d_ok = d < D
        tile_ok = d_ok[:, None] & n_ok[None, :]
        tile = d[:, None] * N + n[None, :]
        A = tl.load(A_ptr + k * D * N + tile, mask=tile_ok, other=0.0)
        skip = tl.load(D_ptr + k * D + d, mask=d_ok, other=0.0)
        bias = tl.load(bias_ptr + k * D + d, mask=d_ok, other=0.0)

        r = tl.zeros((BD, NP), dtype=tl.float32)
        row = (b * K + k) * chunks + chunks - 1
        for _ in range(chunks - 1 - chunk):
            total = tl.load(sums_ptr + row * D + d, mask=d_ok, other=0.0)
            r = tl.exp2(A * total[:, None]) * r + tl.load(heads_ptr + row * D * N + tile, mask=tile_ok, other=0.0)
            row -= 1

        dA = tl.zeros((BD, NP), dtype=tl.float32)
        dD = tl.zeros((BD,), dtype=tl.float32)
        dbias = tl.zeros((BD,), dtype=tl.float32)
        dy_row = dy_ptr + b * L * D + d
        x_row = x_ptr + b * L * D + d
        dt_row = dt_ptr + (k * batch + b) * L * D + d
        B_row = B_ptr + (b * L * K + k) * N + n
        C_row = C_ptr + (b * L * K + k) * N + n
        dx_row = dx_ptr + (b * K + k) * L * D + d
        ddt_row = ddt_ptr + (k * batch + b) * L * D + d
        dB_row = dB_ptr + ((block * batch + b) * L * K + k) * N + n
        dC_row = dC_ptr + ((block * batch + b) * L * K + k) * N + n
        stride = stride_of(k, W)
        first = chunk * chunk_windows
        end = tl.minimum(first + chunk_windows, windows)
        for back in range(end - first):
            window = end - 1 - back
            steps = tl.minimum(L - window * WINDOW, WINDOW)
            groups = (steps + 2) // 3
            # forwards through the window, leaving the state before each group in the slot
            pos = position(window * WINDOW, k, H, W, L)
            h = tl.load(states_ptr + ((b * K + k) * windows + window) * D * N + tile, mask=tile_ok, other=0.0)
            tl.store(slot, h)
            # each group's loads are made one round early, else every one of them is waited for
            step = tl.where(groups > 1, stride, 0)  # nothing behind the window is touched
            pos1 = move(pos, step, L)
            pos2 = move(pos1, step, L)
            x0, x1, x2 = load_three(x_row, pos, pos1, pos2, D, d_ok, not EVEN)
            dt0, dt1, dt2 = load_three(dt_row, pos, pos1, pos2, D, d_ok, not EVEN)
            B0, B1, B2 = load_three(B_row, pos, pos1, pos2, K * N, n_ok, NP != N)
            for group in range(1, groups):
                pos = tl.where(group + 1 < groups, move(pos2, stride, L), pos)  # the last round loads its own again
                pos1 = move(pos, stride, L)
                pos2 = move(pos1, stride, L)
                next_x0, next_x1, next_x2 = load_three(x_row, pos, pos1, pos2, D, d_ok, not EVEN)
                next_dt0, next_dt1, next_dt2 = load_three(dt_row, pos, pos1, pos2, D, d_ok, not EVEN)
                next_B0, next_B1, next_B2 = load_three(B_row, pos, pos1, pos2, K * N, n_ok, NP != N)
                h = backward_state_step(h, x0, dt0, B0, A, bias, SOFTPLUS)
                h = backward_state_step(h, x1, dt1, B1, A, bias, SOFTPLUS)
                h = backward_state_step(h, x2, dt2, B2, A, bias, SOFTPLUS)
                tl.store(slot + group * (BD * NP), h)
                x0, x1, x2 = next_x0, next_x1, next_x2
                dt0, dt1, dt2 = next_dt0, next_dt1, next_dt2
                B0, B1, B2 = next_B0, next_B1, next_B2
            tl.debug_barrier()  # what one thread stored another may load
            # backwards, group by group; `ahead` is the last pixel of the group
            ahead = position(window * WINDOW + steps - 1, k, H, W, L)
            for done in range(groups):
                group = groups - 1 - done
                left = steps - group * 3  # the last group may be short: a missing step has delta = slope = dy = 0
                pos2 = ahead
                pos1 = tl.where(left > 2, move(pos2, -stride, L), pos2)
                pos = tl.where(left > 1, move(pos1, -stride, L), pos1)
                ahead = move(pos, -stride, L)
                dt0, dt1, dt2 = load_three(dt_row, pos, pos1, pos2, D, d_ok, not EVEN)
                h0 = tl.load(slot + group * (BD * NP))
                x0, x1, x2 = load_three(x_row, pos, pos1, pos2, D, d_ok, not EVEN)
                B0, B1, B2 = load_three(B_row, pos, pos1, pos2, K * N, n_ok, NP != N)
                dy0 = load_row(dy_row, pos, D, d_ok, not EVEN)
                dy1 = tl.where(left > 1, load_row(dy_row, pos1, D, d_ok, not EVEN), 0.0)
                dy2 = tl.where(left > 2, load_row(dy_row, pos2, D, d_ok, not EVEN), 0.0)
                C2 = load_row(C_row, pos2, K * N, n_ok, NP != N)
                C1 = load_row(C_row, pos1, K * N, n_ok, NP != N)
                C0 = load_row(C_row, pos, K * N, n_ok, NP != N)
                delta0, slope0 = step_size_and_slope(dt0, bias, SOFTPLUS)
                delta1, slope1 = step_size_and_slope(dt1, bias, SOFTPLUS)
                delta2, slope2 = step_size_and_slope(dt2, bias, SOFTPLUS)
                delta1 = tl.where(left > 1, delta1, 0.0)
                delta2 = tl.where(left > 2, delta2, 0.0)
                slope1 = tl.where(left > 1, slope1, 0.0)
                slope2 = tl.where(left > 2, slope2, 0.0)
                d1 = tl.where(left > 1, D, 0)  # limits that mask the stores of missing steps
                d2 = tl.where(left > 2, D, 0)
                n1 = tl.where(left > 1, N, 0)
                n2 = tl.where(left > 2, N, 0)
                a0, h1, dC = again_step(h0, x0, delta0, dy0, B0, A)
                store_row(dC_row, pos, K * N, dC, n_ok)
                a1, h2, dC = again_step(h1, x1, delta1, dy1, B1, A)
                store_row(dC_row, pos1, K * N, dC, n < n1)
                a2, h3, dC = again_step(h2, x2, delta2, dy2, B2, A)
                store_row(dC_row, pos2, K * N, dC, n < n2)
                r, dA, dB2, dx2, ddt2 = backward_step(r, dA, h2, a2, x2, delta2, slope2, dy2, B2, C2, A, skip)
                r, dA, dB1, dx1, ddt1 = backward_step(r, dA, h1, a1, x1, delta1, slope1, dy1, B1, C1, A, skip)
                r, dA, dB0, dx0, ddt0 = backward_step(r, dA, h0, a0, x0, delta0, slope0, dy0, B0, C0, A, skip)
                dbias += (ddt0 + ddt1) + ddt2
                dD += (dy0 * x0 + dy1 * x1) + dy2 * x2
                store_row(dx_row, pos, D, dx0, d_ok)
                store_row(dx_row, pos1, D, dx1, d < d1)
                store_row(dx_row, pos2, D, dx2, d < d2)
                store_row(ddt_row, pos, D, ddt0, d_ok)
                store_row(ddt_row, pos1, D, ddt1, d < d1)
                store_row(ddt_row, pos2, D, ddt2, d < d2)
                store_row(dB_row, pos, K * N, dB0, n_ok)
                store_row(dB_row, pos1, K * N, dB1, n < n1)
                store_row(dB_row, pos2, K * N, dB2, n < n2)
            tl.debug_barrier()  # the next window rewrites the slot

        part = (b * chunks + chunk) * K + k
        tl.store(dA_ptr + part * D * N + tile, dA, mask=tile_ok)
        tl.store(dD_ptr + part * D + d, dD, mask=d_ok)
        tl.store(dbias_ptr + part * D + d, dbias, mask=d_ok)
