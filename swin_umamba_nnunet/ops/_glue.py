"""SS2D's scan and what follows it in one operator: sum over directions, layer norm over channels, SiLU gate.

    y = sum over K of the scan's outputs, float32, in a fixed order
    out = LayerNorm(y) * silu(gate), float32 inside, in the dtype of x

On the backend `triton` the scan's output per direction never leaves the operator; on `numba` norm and gate are an
operator of their own behind the scan's, one pass over memory.  Every other backend computes the same in separate
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
        ValueError: shapes that do not fit together, an image without pixels, another dtype.
        BackendUnavailableError: the backend cannot run here.
        NotImplementedError: derivatives other than by `backward()`.
    """
    _check(x, norm_weight, norm_bias, gate)
    if resolve_backend(backend, x.device.type) != "triton":
        y = _scan.selective_scan_2d(
            x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds, out_dtype=torch.float32, backend=backend
        )
        wide = [None if t is None else t.to(torch.float32) for t in (gate, norm_weight, norm_bias)]
        save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (y, *wide))
        return _norm_gate(y, *wide, eps, save)[0].to(x.dtype)
    _scan.check_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    given, low_rank, dt_weight = _scan.project(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    tensors, save = _scan.prepare(x, None, *given, low_rank, dt_weight)
    norm = tuple(t.to(torch.float32).contiguous() for t in (norm_weight, norm_bias))
    save |= torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*norm, gate))
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


@torch.library.custom_op("swin_umamba::scan_norm_gate", mutates_args=())
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
    _, states = _scan.fake_outputs(x, A.shape[0], A.shape[2], save, "triton")
    y = x.new_empty(x.shape if save else (0,), dtype=torch.float32)
    mean, rstd = (y.new_empty(x.shape[:3] if save else (0,)) for _ in range(2))
    return out, y, mean, rstd, states


@torch.library.custom_op("swin_umamba::norm_gate", mutates_args=())
def _norm_gate(
    y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from swin_umamba_nnunet.ops import _numba_glue

    return _numba_glue.forward(y, gate, weight, bias, eps, save)


@_norm_gate.register_fake
def _(y, gate, weight, bias, eps, save):
    return y.new_empty(y.shape), *(y.new_empty(y.shape[:3] if save else (0,)) for _ in range(2))


def _norm_gate_context(ctx, inputs, output):
    y, gate, weight, bias, _eps, _save = inputs
    ctx.save_for_backward(y, *output[1:], gate, weight, bias)
    ctx.set_materialize_grads(False)


def _norm_gate_autograd(ctx, dout, *_others):
    y, mean, rstd, gate, weight, bias = ctx.saved_tensors  # asked for once: recomputation gives them up then
    dy, dgate, dweight, dbias = _backward(dout.contiguous(), y, mean, rstd, gate, weight, bias, "numba")
    return dy, None if gate is None else dgate, dweight, dbias, None, None


_norm_gate.register_autograd(_norm_gate_autograd, setup_context=_norm_gate_context)


@torch.library.custom_op("swin_umamba::norm_gate_backward", mutates_args=())
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
