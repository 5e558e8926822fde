"""SS2D's core as the authors compute it: every direction written out in memory.  The yardstick for the fused form.

Four copies of the image in scan order, projections in that order, float32 copies of everything the scan reads, one
scan per direction, four copies back, their sum (SwinUMambaD.py:278-312 of the authors' repository; the code is ours).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from swin_umamba_nnunet.ops._reference import to_image, to_sequence
from swin_umamba_nnunet.ops._scan import scan
from swin_umamba_nnunet.ops._select import resolve_backend


def materialised_2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """The same function as `swin_umamba_nnunet.ops.selective_scan_2d`, with the scan of `backend` in one dimension."""
    directions, channels, rank = dt_projs_weight.shape
    states = A_logs.shape[1]
    chosen = resolve_backend(backend, x.device.type)
    rows = torch.stack([to_sequence(x, k) for k in range(directions)])  # (K, b, L, D)
    projected = torch.einsum("kbld,kcd->kblc", rows, x_proj_weight)
    low_rank, B, C = projected.split((rank, states, states), dim=-1)
    dt = torch.einsum("kblr,kdr->kbld", low_rank, dt_projs_weight)
    rows, dt, B, C = (t.float().contiguous() for t in (rows, dt, B, C))
    A = -torch.exp(A_logs.float()).unflatten(0, (directions, channels))
    Ds = Ds.unflatten(0, (directions, channels))
    result = torch.zeros_like(x, dtype=torch.float32)
    for k in range(directions):
        one = slice(k, k + 1)
        y = scan(
            rows[k][:, None], dt[one][:, :, None], B[k][:, None, :, None], C[k][:, None, :, None], A[one], Ds[one],
            dt_projs_bias[one], True, chosen,
        )  # fmt: skip
        result = result + to_image(y[:, 0], k, x)
    return result.to(out_dtype or x.dtype)


@contextmanager
def materialised_networks() -> Iterator[None]:
    """Inside, the SS2D of every network computes its scan in the materialised form."""
    from swin_umamba_nnunet.blocks import ss2d

    fused = ss2d.selective_scan_2d
    ss2d.selective_scan_2d = materialised_2d
    try:
        yield
    finally:
        ss2d.selective_scan_2d = fused
