"""SS2D's core as the authors compute it: every direction written out in memory.  The yardstick for the fused form.

Four copies of the image in scan order, projections in that order, float32 copies of everything the scan reads, one
scan per direction, four copies back, their sum (SwinUMambaD.py:278-312 of the authors' repository; the code is ours).
Once on this package's own scan in one dimension, which runs everywhere, and once on mamba_ssm's compiled extension with
nothing in between, as a user of mamba_ssm would have it.
"""

from contextlib import contextmanager
from functools import partial

import torch

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import _mamba_ssm, selective_scan_2d
from swin_umamba_nnunet.ops._reference import to_image, to_sequence
from swin_umamba_nnunet.ops._scan import scan
from swin_umamba_nnunet.ops._select import resolve_backend, unavailable_reason
from tests.speed.record import FUSED, MAMBA_SSM, OWN


def pipelines(device):
    """Those that can run on a device, the fused one first."""
    return [FUSED, OWN, *([] if unavailable_reason("mamba_ssm", device) else [MAMBA_SSM])]


def materialised_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, *, out_dtype=None, backend=None):
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
        sequences = rows[k][:, None], dt[one][:, :, None], B[k][:, None, :, None], C[k][:, None, :, None]
        y = scan(*sequences, A[one], Ds[one], dt_projs_bias[one], True, chosen)
        result = result + to_image(y[:, 0], k, x)
    return result.to(out_dtype or x.dtype)


def mamba_ssm_2d(
    x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, *, out_dtype=None, backend=None, extension=None
):
    """The same function on mamba_ssm's extension, channels first as it wants them; all directions in one call.

    Args:
        extension: what takes the place of `selective_scan_cuda`; None for itself.

    The others as in `selective_scan_2d`; `backend` is not looked at.
    """
    height, width = x.shape[1:3]
    directions, channels, rank = dt_projs_weight.shape
    states = A_logs.shape[1]
    image = x.permute(0, 3, 1, 2).contiguous()
    forwards = torch.stack([image.flatten(2), image.transpose(2, 3).flatten(2)], dim=1)
    rows = torch.cat([forwards, forwards.flip(-1)], dim=1)  # (b, K, D, L)
    projected = torch.einsum("bkdl,kcd->bkcl", rows, x_proj_weight)
    low_rank, B, C = projected.split((rank, states, states), dim=2)
    dt = torch.einsum("bkrl,kdr->bkdl", low_rank, dt_projs_weight)
    y = _ExtensionScan.apply(
        rows.float().flatten(1, 2),
        dt.contiguous().float().flatten(1, 2),
        -torch.exp(A_logs.float()),
        B.float().contiguous(),
        C.float().contiguous(),
        Ds.float(),
        dt_projs_bias.float().flatten(),
        extension or _mamba_ssm._extension(),
    )
    y = y.unflatten(1, (directions, channels))
    y = y[:, :2] + y[:, 2:].flip(-1)  # (b, 2, D, L): row by row, column by column
    columns = y[:, 1].unflatten(-1, (width, height)).transpose(2, 3)
    y = y[:, 0].unflatten(-1, (height, width)) + columns
    return y.permute(0, 2, 3, 1).contiguous().to(out_dtype or x.dtype)


class _ExtensionScan(torch.autograd.Function):
    """mamba_ssm's scan with its own backward; keeps what mamba_ssm's Python function keeps."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, delta_bias, extension):
        y, saved, *_ = extension.fwd(u, delta, A, B, C, D, None, delta_bias, True)
        ctx.extension = extension
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, saved)
        return y

    @staticmethod
    def backward(ctx, dy):
        u, delta, A, B, C, D, delta_bias, saved = ctx.saved_tensors
        given = (u, delta, A, B, C, D, None, delta_bias, dy.contiguous(), saved, None, None, True, False)
        return (*ctx.extension.bwd(*given)[:7], None)


class ShapesOfExtension:
    """The shapes of what mamba_ssm's extension returns, without values: to count bytes where it is not installed."""

    @staticmethod
    def fwd(u, delta, A, *_):
        """(output, states between chunks)."""
        batch, rows, length = u.shape
        return torch.empty_like(delta), delta.new_empty(batch, rows, -(-length // _mamba_ssm.CHUNK), 2 * A.shape[1])


def core(pipeline, backend=None, **settings):
    """SS2D's core, (x, the five parameters, out_dtype=None) -> (b, H, W, D), in one of `pipelines`."""
    forms = {FUSED: selective_scan_2d, OWN: materialised_2d, MAMBA_SSM: mamba_ssm_2d}
    return partial(forms[pipeline], backend=backend, **settings)


@contextmanager
def networks_in(network, pipeline):
    """Inside, every SS2D of a network computes its scan in this form; yields a list that gets an entry per scan."""
    calls, form = [], core(pipeline)
    if pipeline == FUSED:
        yield [1]
        return

    def counted(*arguments, **settings):
        calls.append(1)
        return form(*arguments, **settings)

    blocks = [part for part in network.modules() if isinstance(part, SS2D)]
    for block in blocks:
        block.given_scan = counted
    try:
        yield calls
    finally:
        for block in blocks:
            block.given_scan = None
