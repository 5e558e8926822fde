"""SS2D's scan and what follows it in one operator: sum over directions, layer norm over channels, SiLU gate.

    y = sum over K of the scan's outputs, float32, in a fixed order
    out = LayerNorm(y) * silu(gate), float32 inside, in the dtype of x

On the backend `triton` the scan's output per direction never leaves the operator; on `numba` norm and gate are a
second pass over the sum, in place where no gradient is asked for.  Every other backend computes the same in separate
torch operations (`blocks/ss2d.py`).  Registered like the scan (`_scan.py`, whose symbols and layouts hold here):
compilers see opaque nodes.

SWIN_UMAMBA_FUSED_GLUE=0 turns it off, should it misbehave somewhere: the scan then stays fused, what follows is torch's
own.
"""

import functools
import importlib
import logging

import torch
from torch import Tensor
from torch.nn.functional import linear

from swin_umamba_nnunet import settings
from swin_umamba_nnunet.ops import _scan
from swin_umamba_nnunet.ops._select import resolve_backend

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "SWIN_UMAMBA_FUSED_GLUE"


@torch.compiler.assume_constant_result
def _fuses_glue(backend: str | None, device_type: str, channels: int = _scan.LANES) -> bool:
    """Whether `selective_scan_2d_norm_gate` is what runs on `device_type` with this choice of backend.

    On a CPU it takes whole vectors of 16 channels, which all networks here have.

    Raises:
        ValueError: the environment variable says neither yes nor no, or as in `resolve_backend`.
        BackendUnavailableError: as in `resolve_backend`.
    """
    backend = resolve_backend(backend, device_type)
    if backend != "triton" and (backend != "numba" or device_type != "cpu" or channels % _scan.LANES):
        return False
    fused = settings.switch(ENVIRONMENT_VARIABLE, default=True)
    if not fused:
        _log_once()
    return fused


fuses_glue = _fuses_glue  # see `resolve_backend`


@functools.cache
def _log_once() -> None:
    logger.info("norm and gate after the scan: separate operations (asked for by %s=0)", ENVIRONMENT_VARIABLE)


def selective_scan_2d_norm_gate(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    gate: Tensor | None = None,
    *,
    eps: float = 1e-5,
    backend: str | None = "triton",
) -> Tensor:
    """`selective_scan_2d`, then layer norm over the channels, then times SiLU of the gate.

    Ask `fuses_glue` first.  The sum over directions and the norm are float32, and so is the product with the gate:
    under mixed precision it is rounded once, where torch's separate operations round the gate and the product.

    Args:
        x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds: as in `selective_scan_2d`; x in float32, float16
            or bfloat16.
        norm_weight, norm_bias: (D,).
        gate: (b, H, W, D) of any of these dtypes, or None; half of a wider projection is read in place.
        eps: added to the variance.
        backend: as in `selective_scan_2d`; `triton` or, on CPU tensors, `numba`.

    Returns:
        (b, H, W, D) in the dtype of `x`; the same bits every time on one machine.

    Raises:
        ValueError: shapes that do not fit together, an image without pixels, another dtype or number of channels.
        BackendUnavailableError: the backend cannot run here.
        NotImplementedError: derivatives other than by `backward()`.
    """
    _check(x, norm_weight, norm_bias, gate)
    _scan.check_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    if resolve_backend(backend, x.device.type) != "triton":
        if x.shape[-1] % _scan.LANES:
            raise ValueError(f"x has {x.shape[-1]} channels; on a CPU the fused norm and gate take multiples of 16")
        scanned = x, linear(x, x_proj_weight.flatten(0, 1)), dt_projs_weight, dt_projs_bias, A_logs, Ds
        save = _scan.needs_grad((*scanned, gate, norm_weight, norm_bias))
        return _forward_2d(*scanned, gate, norm_weight, norm_bias, eps, save)[0]
    given, low_rank, dt_weight = _scan.project(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    tensors, save = _scan.prepare(x, None, *given, low_rank, dt_weight)
    norm = tuple(t.to(torch.float32).contiguous() for t in (norm_weight, norm_bias))
    save |= _scan.needs_grad((*norm, gate))
    return _forward(*tensors, low_rank, dt_weight, gate, *norm, eps, True, save)[0]


def _check(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, gate: Tensor | None) -> None:
    for name, tensor in (("x", x), ("gate", gate)):
        if tensor is not None and tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(f"{name} is {tensor.dtype}; the fused norm and gate take float32, float16 or bfloat16")
    channels = (x.shape[-1],)
    _scan.check_shapes(
        {
            "norm_weight": (norm_weight, ("D",), channels),
            "norm_bias": (norm_bias, ("D",), channels),
            "gate": (gate, ("b", "H", "W", "D"), tuple(x.shape)),
        }
    )


@_scan.operator("scan_norm_gate")
def _forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    low_rank: Tensor,
    dt_weight: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from swin_umamba_nnunet.ops import _triton_glue

    return _triton_glue.forward(x, dt, Bs, Cs, A, Ds, dt_bias, gate, weight, bias, eps, delta_softplus, save)


@_forward.register_fake
def _(x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, dt_weight, gate, weight, bias, eps, delta_softplus, save):
    out = x.new_empty(x.shape)
    y, states = _scan.fake_outputs(x, A.shape[0], A.shape[2], save, "triton")
    return out, *_fake_saved(y, save), states


@_scan.operator("scan_2d_norm_gate")
def _forward_2d(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from swin_umamba_nnunet.ops import _numba, _numba_glue

    y, states = _numba.forward_2d(x, projected, dt_weight, dt_bias, A_logs, Ds, save)
    out, mean, rstd = _numba_glue.forward(y, gate, weight, bias, eps, save)
    return out.to(x.dtype), y if save else y.new_empty(0), mean, rstd, states


@_forward_2d.register_fake
def _(x, projected, dt_weight, dt_bias, A_logs, Ds, gate, weight, bias, eps, save):
    y, states = _scan.fake_outputs(x, dt_weight.shape[0], A_logs.shape[1], save, "numba")
    return x.new_empty(x.shape), *_fake_saved(y, save), states


def _fake_saved(y: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    mean, rstd = (y.new_empty(y.shape[:3] if save else (0,)) for _ in range(2))
    return y if save else y.new_empty(0), mean, rstd


def _setup_context_2d(ctx, inputs, output):
    *scanned, gate, weight, bias, _eps, _save = inputs
    _out, y, mean, rstd, states = output
    ctx.save_for_backward(*scanned, states, gate, weight, bias, y, mean, rstd)
    ctx.set_materialize_grads(False)  # as below


def _autograd_2d(ctx, dout, *_others):
    *scanned, states, gate, weight, bias, y, mean, rstd = ctx.saved_tensors  # once: recomputation gives them up then
    dy, dgate, dweight, dbias = _backward(dout.contiguous(), y, mean, rstd, gate, weight, bias, "numba")
    return *_scan.gradients_2d(dy, scanned, states), None if gate is None else dgate, dweight, dbias, None, None


_forward_2d.register_autograd(_autograd_2d, setup_context=_setup_context_2d)


@_scan.operator("norm_gate_backward")
def _backward(
    dout: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kernels = importlib.import_module(f"swin_umamba_nnunet.ops._{backend}_glue")
    return kernels.backward(dout, y, mean, rstd, gate, weight, bias)


@_backward.register_fake
def _(dout, y, mean, rstd, gate, weight, bias, backend):
    dgate = y.new_empty(0) if gate is None else gate.new_empty(gate.shape)
    return y.new_empty(y.shape), dgate, weight.new_empty(weight.shape), bias.new_empty(bias.shape)


_backward.register_autograd(_scan.refuse_second_derivative)


def rows_of(gate: Tensor) -> tuple[Tensor, int]:
    """The gate as the kernels read it, and the distance of its rows: half of a wider projection needs no copy."""
    _, height, width, channels = gate.shape
    step = gate.stride(2)
    if gate.stride(3) == 1 and gate.stride(1) == width * step and gate.stride(0) == height * width * step:
        return gate, step
    return gate.contiguous(), channels


def _setup_context(ctx, inputs, output):
    *scanned, gate, weight, bias, _eps, ctx.delta_softplus, _save = inputs
    _out, y, mean, rstd, states = output
    ctx.save_for_backward(*_scan.save_scan(*scanned), states, gate, weight, bias, y, mean, rstd)
    ctx.set_materialize_grads(False)  # else what nobody differentiates gets zero gradients of its size


def _autograd(ctx, dout, *_others):
    *scanned, states, gate, weight, bias, y, mean, rstd = ctx.saved_tensors
    dy, dgate, dweight, dbias = _backward(dout.contiguous(), y, mean, rstd, gate, weight, bias, "triton")
    # each direction's output enters the sum alike, so that one gradient serves all of them
    grads = _scan.scan_gradients(ctx, dy, scanned, states, "triton")
    return *grads, None if gate is None else dgate, dweight, dbias, None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)
