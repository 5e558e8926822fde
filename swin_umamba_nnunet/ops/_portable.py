"""The selective scan in ordinary tensor operations and few of them, for formats that know nothing else (ONNX).

Doubling (Hillis and Steele, 1986): after step s every position holds its recurrence over the last 2^s positions, so
log2(L) steps replace the loop over L.  It needs a few times (K, b, L, D, N) numbers at once and L log L work, so it is
neither small nor fast; nothing chooses it by itself.  Backward is autograd's.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from swin_umamba_nnunet.ops._reference import of_images, to_image, to_sequence


def scan(
    x: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor, Ds: Tensor, dt_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """Directional selective scan, summed over directions.  Same contract as `swin_umamba_nnunet.ops._scan.scan`."""
    working = torch.promote_types(torch.float32, x.dtype)
    x, dt, Bs, Cs, A, Ds, dt_bias = (t.to(working) for t in (x, dt, Bs, Cs, A, Ds, dt_bias))
    A, Ds, dt_bias = (of_images(t, Bs) for t in (A, Ds, dt_bias))
    directions = range(Bs.shape[3])
    delta = dt + dt_bias[:, :, None, None]
    delta = softplus(delta) if delta_softplus else delta
    u = torch.stack([to_sequence(x, k) for k in directions])  # (K, b, L, D)
    delta = torch.stack([to_sequence(delta[k], k) for k in directions])
    B, C = (torch.stack([to_sequence(t[..., k, :], k) for k in directions])[..., None, :] for t in (Bs, Cs))
    decay = torch.exp(delta[..., None] * A[:, :, None])  # (K, b, L, D, N)
    state = (delta * u)[..., None] * B
    reach = 1
    while reach < max(2, u.shape[2]):  # of a single step once too, with nothing in it: A then has its gradient, zero
        later = state[:, :, reach:] + decay[:, :, reach:] * state[:, :, :-reach]
        state = torch.cat([state[:, :, :reach], later], dim=2)
        decay = torch.cat([decay[:, :, :reach], decay[:, :, reach:] * decay[:, :, :-reach]], dim=2)
        reach *= 2
    y = (state * C).sum(-1)
    return torch.stack([to_image(y[k], k, x) for k in directions]).sum(0) + Ds.sum(0)[:, None, None] * x
