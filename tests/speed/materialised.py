"""SS2D's core as the authors compute it: every direction written out in memory.  The yardstick for the fused form.

Four copies of the image in scan order, projections in that order, float32 copies of everything the scan reads, a scan
of all directions, four copies back, their sum (SwinUMambaD.py:278-312 of the authors' repository; the code is ours).
Once on this package's own scan in one dimension in mamba_ssm's place, which runs everywhere, and once on mamba_ssm's
compiled extension with nothing in between, as a user of mamba_ssm would have it.
"""

from contextlib import contextmanager
from functools import partial

import torch

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import _mamba_ssm, selective_scan, selective_scan_2d
from swin_umamba_nnunet.ops._select import unavailable_reason
from tests.speed.record import FUSED, MAMBA_SSM, OWN


def pipelines(device):
    """Those that can run on a device, the fused one first."""
    return [FUSED, OWN, *([] if unavailable_reason("mamba_ssm", device) else [MAMBA_SSM])]


def own_scan(u, delta, A, B, C, D, delta_bias, backend=None):
    """This package's scan of a sequence, with the settings that SS2D has."""
    return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=True, backend=backend)


def mamba_ssm_scan(*arguments, extension=None, backend=None):
    """mamba_ssm's, which is its own backend; `extension` takes the place of `selective_scan_cuda`."""
    return _ExtensionScan.apply(*arguments, extension or _mamba_ssm._extension())


def materialised_2d(
    x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, *, scan, out_dtype=None, backend=None
):
    """The same function as `selective_scan_2d` by `scan`, channels first as mamba_ssm wants them."""
    height, width = x.shape[1:3]
    directions, channels, rank = dt_projs_weight.shape
    states = A_logs.shape[1]
    image = x.permute(0, 3, 1, 2).contiguous()
    forwards = torch.stack([image.flatten(2), image.transpose(2, 3).flatten(2)], dim=1)
    rows = torch.cat([forwards, forwards.flip(-1)], dim=1)  # (b, K, D, L)
    projected = torch.einsum("bkdl,kcd->bkcl", rows, x_proj_weight)
    low_rank, B, C = projected.split((rank, states, states), dim=2)
    dt = torch.einsum("bkrl,kdr->bkdl", low_rank, dt_projs_weight)
    y = scan(
        rows.float().flatten(1, 2),
        dt.contiguous().float().flatten(1, 2),
        -torch.exp(A_logs.float()),
        B.float().contiguous(),
        C.float().contiguous(),
        Ds.float(),
        dt_projs_bias.float().flatten(),
        backend=backend,
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
    if pipeline == FUSED:
        return partial(selective_scan_2d, backend=backend)
    scan = {OWN: own_scan, MAMBA_SSM: mamba_ssm_scan}[pipeline]
    return partial(materialised_2d, scan=partial(scan, **settings), backend=backend)


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
