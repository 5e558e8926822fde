"""CUDA: the scan with sum over directions, layer norm and gate behind it; kernels in `_triton_glue_kernels.py`.

Launched with fixed settings like the scan (`_triton.py`): the same bits every run, nothing compiled again when the
image or batch size changes.  Runs under TRITON_INTERPRET=1 too.
"""

from torch import Tensor

from swin_umamba_nnunet.ops import _triton
from swin_umamba_nnunet.ops._glue import rows_of

FORWARD = 512  # elements that one warp takes, 16 per lane: the loads of four directions fit into registers at once
BACKWARD = 256  # half of that, for the gradients of weight and bias stay in registers too
MAX_WARPS = 8
WARPS = 16  # of a multiprocessor, backward: its registers hold them all, and partial sums are few rows


def forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and for the backward passes y, mean, rstd and the scan's states; shapes in `_glue.py`."""
    from swin_umamba_nnunet.ops import _triton_glue_kernels as kernels

    gated = gate is not None
    parts, states = _triton.forward_parts(x, dt, Bs, Cs, A, Ds, dt_bias, delta_softplus, save)
    batch, height, width, channels = x.shape
    rows = batch * height * width
    out = _triton._empty(x, *x.shape, dtype=x.dtype)
    y = _triton._empty(x, *(x.shape if save else (0,)))
    mean, rstd = (_triton._empty(x, *(x.shape[:3] if save else (0,))) for _ in range(2))
    gate, gate_step = (weight, channels) if gate is None else rows_of(gate)  # without one, weight holds its place
    tile, options = _tiling(channels, FORWARD)
    with _triton._on(x.device):
        kernels.norm_gate_kernel[(_triton._ceil(rows, tile),)](
            parts,
            gate,
            weight,
            bias,
            out,
            y,
            mean,
            rstd,
            rows,
            height * width,
            channels,
            gate_step,
            eps,
            K=A.shape[0],
            GATED=gated,
            SAVE=save,
            **options,
        )
    return out, y, mean, rstd, states


def backward(
    dout: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of y (float32), of the gate (its dtype; empty if there is none), of weight and bias (float32)."""
    from swin_umamba_nnunet.ops import _triton_glue_kernels as kernels

    gated = gate is not None
    channels = y.shape[-1]
    rows = y.numel() // channels
    dy = _triton._empty(y, *y.shape)
    dgate = _triton._empty(y, 0) if gate is None else _triton._empty(y, *y.shape, dtype=gate.dtype)
    gate, gate_step = (weight, channels) if gate is None else rows_of(gate)  # without one, weight holds its place
    tile, options = _tiling(channels, BACKWARD)
    tiles = _triton._ceil(rows, tile)
    programs = min(tiles, WARPS // options["num_warps"] * _triton._multiprocessors(y.device))
    dweight, dbias = (_triton._empty(y, programs, channels) for _ in range(2))
    with _triton._on(y.device):
        kernels.norm_gate_backward_kernel[(programs,)](
            dout,
            y,
            mean,
            rstd,
            gate,
            weight,
            bias,
            dy,
            dgate,
            dweight,
            dbias,
            rows,
            tiles,
            channels,
            gate_step,
            GATED=gated,
            **options,
        )
    return dy, dgate, _triton._sum(dweight, 0), _triton._sum(dbias, 0)


def _tiling(channels: int, elements: int) -> tuple[int, dict[str, int | bool]]:
    """(pixels of one program, compile-time settings) at so many elements per warp: several warps for a wide pixel."""
    padded = 1 << (channels - 1).bit_length()
    tile = max(1, elements // padded)
    warps = min(MAX_WARPS, max(1, padded // elements))
    return tile, {"DP": padded, "ROWS": tile, "num_warps": warps, "enable_fp_fusion": True}
