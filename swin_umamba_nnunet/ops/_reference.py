"""The selective scan as it is defined: one step per position, in plain torch.

This file is the yardstick every other backend is compared with.  It runs on any device, keeps float64, and is
differentiable by autograd to any order.  It is also hundreds of times slower than the others (the graph holds one
node per position), so nothing chooses it silently.

Maths: Gu and Dao, "Mamba", arXiv 2312.00752, equations 2 and 4 (A discretised by zero-order hold, B by Euler); the
four directions: Liu et al., "VMamba", arXiv 2401.10166, section 4.2.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def scan(
    x: Tensor, dt: Tensor, Bs: Tensor, Cs: Tensor, A: Tensor, Ds: Tensor, dt_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """Directional selective scan, summed over directions.  Same contract as `swin_umamba_nnunet.ops._scan.scan`."""
    working = torch.promote_types(torch.float32, x.dtype)
    x, dt, Bs, Cs, A, Ds, dt_bias = (t.to(working) for t in (x, dt, Bs, Cs, A, Ds, dt_bias))
    A, Ds, dt_bias = (of_images(t, Bs) for t in (A, Ds, dt_bias))
    y = x.new_zeros(x.shape)
    for k in range(Bs.shape[3]):
        delta = dt[k] + dt_bias[k, :, None, None]
        delta = softplus(delta) if delta_softplus else delta
        u, delta, B, C = (to_sequence(t, k) for t in (x, delta, Bs[..., k, :], Cs[..., k, :]))
        y = y + to_image(_scan_sequence(u, delta, B, C, A[k]), k, x) + Ds[k, :, None, None] * x
    return y


def of_images(parameters: Tensor, Bs: Tensor) -> Tensor:
    """(S*K, D, ...), S sets that images use in turn -> (K, batch, D, ...), or (K, 1, D, ...) of a single set."""
    sets = parameters.unflatten(0, (-1, Bs.shape[3])).transpose(0, 1)
    return sets if sets.shape[1] == 1 else sets.repeat(1, Bs.shape[0] // sets.shape[1], *[1] * (sets.dim() - 2))


def _scan_sequence(u: Tensor, delta: Tensor, B: Tensor, C: Tensor, A: Tensor) -> Tensor:
    """u, delta (batch, L, D); B, C (batch, L, N); A (batch or 1, D, N) -> (batch, L, D)."""
    state = u.new_zeros(u.shape[0], u.shape[2], A.shape[2])
    outputs = []
    for u_l, delta_l, B_l, C_l in zip(u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1)):
        decay = torch.exp(delta_l[..., None] * A)
        state = decay * state + (delta_l * u_l)[..., None] * B_l[:, None, :]
        outputs.append(torch.einsum("bdn,bn->bd", state, C_l))
    return torch.stack(outputs, dim=1)


def to_sequence(image: Tensor, k: int) -> Tensor:
    """(batch, H, W, c) -> (batch, L, c) in the order of direction `k`."""
    sequence = (image.transpose(1, 2) if k % 2 else image).flatten(1, 2)
    return sequence.flip(1) if k >= 2 else sequence


def to_image(sequence: Tensor, k: int, like: Tensor) -> Tensor:
    """The inverse of `to_sequence` for an image of the shape of `like`."""
    sequence = sequence.flip(1) if k >= 2 else sequence
    height, width = like.shape[1:3]
    return sequence.unflatten(1, (width, height)).transpose(1, 2) if k % 2 else sequence.unflatten(1, (height, width))
