"""Adapter to `selective_scan_cuda`, the compiled extension of mamba-ssm, where it is installed.

The extension itself is imported, not the package `mamba_ssm`, which brings much more.  It knows one direction and the
layout (batch, channels, L), so the four directions are written out, as the authors of Swin-UMamba do; that costs most
of the time, which is why this backend comes after `triton`.  Written against the interface of mamba-ssm 1.2 to 2.2
(`fwd` with nine arguments, `bwd` with fourteen); the tests replace the extension by a stand-in, nobody has run it here.
"""

import importlib
import importlib.util
from math import prod
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.ops._reference import to_image, to_sequence

WINDOW = 64
CHUNK = 2048  # steps between the states that the extension saves
MAX_STATES = 256


def unavailable_reason(device_type: str) -> str | None:
    """None if tensors on `device_type` can be scanned here, else one clause that says why not."""
    if device_type != "cuda":
        return "the extension of mamba-ssm runs on CUDA tensors only"
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return "the compiled extension selective_scan_cuda (part of mamba-ssm, built with it) is not installed"
    try:
        _extension()
    except ImportError as error:
        return f"the extension selective_scan_cuda does not load: {error}"
    return None


def forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """y, and a buffer of the contract's shape that begins with what the extension saves for its backward pass."""
    directions, channels, states = Bs.shape[3], *A.shape[1:]
    if states > MAX_STATES:
        raise ValueError(f"mamba_ssm scans up to {MAX_STATES} states per channel, not {states}")
    out, saved, *_ = _extension().fwd(*_arguments(x, dt, Bs, Cs, A, Ds, dt_bias), delta_softplus)
    y = _from_sequences(out, directions, x).sum(1)
    if not save_states:
        return y, y.new_empty(0)
    batch, height, width, _ = x.shape
    windows = -(-height * width // WINDOW)
    kept = y.new_empty(batch, directions, windows, states, channels)
    if height * width > CHUNK:  # one chunk needs nothing; of more, what is saved (2 N per chunk) always fits
        kept.view(-1)[: saved.numel()].copy_(saved.reshape(-1))
    return y, kept


def backward(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    states: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of everything that went into `forward`, float32."""
    directions, n_states = Bs.shape[3:]
    _, height, width, _ = x.shape
    chunks = -(-height * width // CHUNK)
    u, delta, A_rows, B, C, D, z, bias = _arguments(x, dt, Bs, Cs, A, Ds, dt_bias)
    saved = None
    if chunks > 1:
        shape = (*u.shape[:2], chunks, 2 * n_states)
        saved = states.view(-1)[: prod(shape)].view(shape)
    dout = _to_sequences([dy] * directions).view_as(u)
    du, ddelta, dA, dB, dC, dD, dbias, *_ = _extension().bwd(
        u, delta, A_rows, B, C, D, z, bias, dout, saved, None, None, delta_softplus, False
    )
    return (
        _from_sequences(du, directions, x).sum(1),
        _from_sequences(ddelta, directions, x).transpose(0, 1).contiguous(),
        _from_sequences(dB, directions, x).permute(0, 2, 3, 1, 4).contiguous(),
        _from_sequences(dC, directions, x).permute(0, 2, 3, 1, 4).contiguous(),
        dA.float().view_as(A),
        dD.float().view_as(Ds),
        dbias.float().view_as(dt_bias),
    )


def _extension() -> Any:
    return importlib.import_module("selective_scan_cuda")


def _arguments(x, dt, Bs, Cs, A, Ds, dt_bias) -> tuple:
    """u, delta, A, B, C, D, z, delta_bias as the extension takes them: float32, rows (batch, K*D, L).

    Images that use S sets of parameters in turn are one there, of S times the channels and groups of B and C.
    """
    rows = [x] * Bs.shape[3], list(dt), list(Bs.unbind(3)), list(Cs.unbind(3))
    groups, length = A.shape[0], x.shape[1] * x.shape[2]
    u, delta, B, C = (_to_sequences(r).view(x.shape[0] * Bs.shape[3] // groups, groups, -1, length) for r in rows)
    u, delta = u.flatten(1, 2), delta.flatten(1, 2)
    return u, delta, A.flatten(0, 1), B, C, Ds.flatten(), None, dt_bias.flatten()


def _to_sequences(images: list[Tensor]) -> Tensor:
    """One (batch, H, W, c) image per direction -> (batch, K*c, L) in scan order, float32."""
    rows = torch.stack([to_sequence(image, k) for k, image in enumerate(images)], dim=1)
    return rows.transpose(2, 3).flatten(1, 2).float().contiguous()


def _from_sequences(sequences: Tensor, directions: int, like: Tensor) -> Tensor:
    """The inverse of `_to_sequences`: (batch, K*c, L) -> (batch, K, H, W, c), float32."""
    rows = sequences.float().reshape(like.shape[0], directions, -1, sequences.shape[-1]).transpose(2, 3)
    return torch.stack([to_image(row, k, like) for k, row in enumerate(rows.unbind(1))], dim=1)
