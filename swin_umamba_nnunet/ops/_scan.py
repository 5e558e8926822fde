"""The public operators, and their registration with torch.library so that compilers see one opaque node.

Symbols (used in every backend): b batch, H x W image, L = H*W positions, D channels, N states, R rank of the step
size, K scan directions.  K = 4 is SS2D: 0 row-major (w fastest), 1 column-major (h fastest), 2 and 3 the same two
backwards.  K = 1 is the plain left-to-right scan over the row-major order.

A backend that brings its own backward is a module with

    unavailable_reason(device_type) -> str | None
    forward(x, dt, Bs, Cs, A, Ds, dt_bias, delta_softplus, save_states) -> (y, states)
    backward(dy, x, dt, Bs, Cs, A, Ds, dt_bias, states, delta_softplus) -> (dx, ddt, dBs, dCs, dA, dDs, ddt_bias)

    x (b,H,W,D), dt (K,b,H,W,D), Bs and Cs (b,H,W,K,N): contiguous, one dtype out of float32, float16, bfloat16
    (the directions of dt are outermost because that is how the batched matrix product that makes it leaves them)
    A (K,D,N), Ds (K,D), dt_bias (K,D): contiguous, float32; all but `triton` also take (S*K,...) of them, S sets
        that images use in turn
    y (b,H,W,D) float32: sum over directions of the scan's output, at the position it was computed for
    states (b,K,ceil(L/WINDOW),N,D) float32: the state before each window of WINDOW steps, empty if not asked for; only
        the backend's own backward reads it, so the order of N and D inside is the backend's business (`numba` has D
        rounded up to whole vectors)
    gradients: float32, shaped as what they belong to; ddt, the largest, may come in the dtype of x

Everything inside is float32, whatever floating-point dtype comes in (float64 inputs too: only the plain backends keep
float64); integers are refused, since the result would be cut to their kind.

Such a backend knows its first derivative by `backward()` and no other; what else is asked of it is refused
(`needs_grad`), where torch would answer a forward derivative with zero.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.nn.functional import linear, pad, silu

from swin_umamba_nnunet.ops import _portable, _reference
from swin_umamba_nnunet.ops._select import PLAIN, resolve_backend

WINDOW = 64  # steps between saved states; the backward pass recomputes the states in between
LANES = 16  # channels in a vector of the backend `numba`, whose module only the backend imports


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan over a sequence, with the arguments of mamba_ssm's `selective_scan_fn` in their order.

    h_l = exp(delta_l A) h_{l-1} + delta_l B_l u_l,  y_l = <C_l, h_l> + D u_l  (Mamba, arXiv 2312.00752, eq. 2 and 4).

    Args:
        u: (batch, dim, L).
        delta: (batch, dim, L) step sizes, before `delta_bias` and softplus if these are given.
        A: (dim, N), negative for a stable recurrence.
        B, C: (batch, N, L), or (batch, G, N, L) where `dim / G` consecutive channels share a group, or (dim, N), the
            same at every position, which costs as much as a group per channel.
        D: (dim,) skip term, or None.
        z: (batch, dim, L), a gate: y_l is multiplied by SiLU of it, before rounding; or None.
        delta_bias: (dim,), added to delta; or None.
        delta_softplus: apply softplus to delta (after the bias).
        return_last_state: return h_L too.
        backend: one of `BACKENDS`; None chooses.

    Returns:
        (batch, dim, L) in the dtype of `u`; inside, everything is float32 (`reference` keeps float64).  With
        `return_last_state` a pair, of this and the state (batch, dim, N) in float32 at least; unlike mamba_ssm's, it
        has a gradient.

    Raises:
        ValueError: shapes that do not fit together, an empty sequence, complex or integer tensors, an unknown backend.
        BackendUnavailableError: a backend that cannot run here.
        NotImplementedError: derivatives other than by `backward()`, see `needs_grad`.
    """
    B, C = _as_groups(B, C, u)
    _check_1d(u, delta, A, B, C, D, z, delta_bias)
    chosen = resolve_backend(backend, u.device.type)
    length, dtype, wide = u.shape[2], u.dtype, torch.promote_types(torch.float32, u.dtype)
    if return_last_state:
        u, delta, B, C, delta_bias = _ask_for_state(u, delta, B, C, delta_bias, delta_softplus)
    D = A.new_zeros(u.shape[1]) if D is None else D
    delta_bias = A.new_zeros(u.shape[1]) if delta_bias is None else delta_bias
    y = _scan_groups(u, delta, A, B, C, D, delta_bias, delta_softplus, chosen, wide)
    y, last = y[..., :length], y[..., length:]
    if z is not None:
        y = y * silu(z.to(wide))
    y = y.to(dtype)
    return (y, last) if return_last_state else y


def _as_groups(B: Tensor, C: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """B and C as (batch, G, N, L), with the same G; what does not fit is left to `_check_1d`."""
    B, C = (t[:, None] if t.dim() == 3 else t for t in (B, C))
    if u.dim() != 3 or (B.dim() != 2 and C.dim() != 2):
        return B, C
    batch, dim, length = u.shape
    each_channel = []
    for t in (B, C):
        if t.dim() == 2 and t.shape[0] == dim:
            t = t[None, :, :, None].expand(batch, -1, -1, length)
        elif t.dim() == 4 and t.shape[1] and dim % t.shape[1] == 0:
            t = t.repeat_interleave(dim // t.shape[1], dim=1)
        each_channel.append(t)
    return each_channel[0], each_channel[1]


def _ask_for_state(
    u: Tensor, delta: Tensor, B: Tensor, C: Tensor, delta_bias: Tensor | None, delta_softplus: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The sequence with N further steps in which time stands still and C reads one state after the other."""
    batch, groups, states, _ = C.shape
    if delta_bias is not None and not delta_softplus:
        # Time stands still at a step size of zero, which a bias added later leaves only if minus the bias can be had in
        # delta's dtype.  So it is added here; the sum must not be rounded, and a scan's sequences share a dtype.
        wide = torch.promote_types(torch.float32, u.dtype)
        u, delta, B, C = (t.to(wide) for t in (u, delta, B, C))
        delta, delta_bias = delta + delta_bias.to(wide)[:, None], None
    delta = pad(delta, (0, states), value=-float("inf") if delta_softplus else 0.0)
    reading = torch.eye(states, dtype=C.dtype, device=C.device).expand(batch, groups, -1, -1)
    return pad(u, (0, states)), delta, pad(B, (0, states)), torch.cat((C, reading), dim=-1), delta_bias


def _scan_groups(u, delta, A, B, C, D, delta_bias, delta_softplus: bool, chosen: str, out_dtype: torch.dtype) -> Tensor:
    """The scan of (batch, dim, L) with G groups of B and C (batch, G, N, L)."""
    groups = B.shape[1]
    u, delta = (t.unflatten(1, (groups, -1)) for t in (u, delta))  # (batch, G, dim / G, L)
    A, D, delta_bias = (t.unflatten(0, (groups, -1)) for t in (A, D, delta_bias))
    # groups are images, each with parameters of its own, but on triton
    inputs = [t.unbind(1) if chosen == "triton" else (t.flatten(0, 1),) for t in (u, delta, B, C)]
    parameters = zip(*(t.split(1 if chosen == "triton" else groups) for t in (A, D, delta_bias)))
    outputs = []
    for sequences, (A, D, delta_bias) in zip(zip(*inputs), parameters):
        # (batch, dim, L) -> an image of one row, channels last, one direction
        x, dt, Bs, Cs = (t.transpose(1, 2)[:, None] for t in sequences)
        y = scan(x, dt[None], Bs[..., None, :], Cs[..., None, :], A, D, delta_bias, delta_softplus, chosen, out_dtype)
        outputs.append(y[:, 0].transpose(1, 2))
    return outputs[0].reshape(-1, groups * u.shape[2], u.shape[3]) if len(outputs) == 1 else torch.cat(outputs, dim=1)


def selective_scan_2d(
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
    """SS2D's core: four selective scans over an image, read in place, and their sum in image order.

    The projections are pointwise, so they commute with the reordering: one matrix product in image order serves all
    four directions, and the scans find their positions by index arithmetic.  Nothing is flipped, transposed or
    concatenated.

    Args:
        x: (b, H, W, D) channels last.
        x_proj_weight: (K, R + 2N, D); rows give the step size (R), B (N) and C (N) of a direction.
        dt_projs_weight: (K, D, R).
        dt_projs_bias: (K, D), inside the softplus.
        A_logs: (K*D, N); A = -exp(A_logs).
        Ds: (K*D,) skip term.
        out_dtype: of the result; None for that of `x`.  The sum over a long sequence can overflow float16, so what
            normalises it next had better take it in float32.
        backend: one of `BACKENDS`; None chooses.

    Returns:
        (b, H, W, D).  The scan is the same bit for bit at any number of CPU threads; torch's matrix products around it
        are so at a fixed number.

    Raises:
        ValueError: shapes that do not fit together, an image without pixels, integer tensors, an unknown backend.
        BackendUnavailableError: a backend that cannot run here.
        NotImplementedError: derivatives other than by `backward()`, see `needs_grad`.
    """
    check_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    chosen = resolve_backend(backend, x.device.type)
    if chosen == "numba":
        return _scan_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds).to(out_dtype or x.dtype)
    given, low_rank, weight = project(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds)
    if chosen in PLAIN:
        return scan(x, step_sizes(x, low_rank, weight), *given, True, chosen, out_dtype)
    return scan(x, None, *given, True, chosen, out_dtype, low_rank, weight)


def project(
    x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, dt_projs_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
    """(Bs, Cs, A, Ds, dt_bias) as `scan` takes them, and what `step_sizes` takes, out of SS2D's parameters."""
    directions, channels, rank = dt_projs_weight.shape
    states = A_logs.shape[1]
    projected = linear(x, x_proj_weight.flatten(0, 1)).unflatten(-1, (directions, -1))
    low_rank, Bs, Cs = projected.split((rank, states, states), dim=-1)
    # a copy, so that the backward pass keeps this and not all of the projection
    low_rank = low_rank.flatten(0, 2).transpose(0, 1).contiguous()
    A = -torch.exp(A_logs.to(torch.promote_types(torch.float32, A_logs.dtype))).unflatten(0, (directions, channels))
    given = Bs, Cs, A, Ds.unflatten(0, (directions, channels)), dt_projs_bias
    return given, low_rank, dt_projs_weight.to(low_rank.dtype)


def step_sizes(x: Tensor, low_rank: Tensor, weight: Tensor) -> Tensor:
    """dt (K, b, H, W, D) out of its low-rank form (K, b*H*W, R) and the weight (K, D, R)."""
    return torch.bmm(low_rank, weight.transpose(1, 2)).unflatten(1, x.shape[:3])


def scan(
    x: Tensor,
    dt: Tensor | None,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    delta_softplus: bool,
    backend: str,
    out_dtype: torch.dtype | None = None,
    low_rank: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """The directional scan all public forms share, on the backend named; shapes in the module's docstring.

    The step sizes of K directions are the largest tensor of all.  Where they come as `low_rank` and `weight` (see
    `step_sizes`) instead of `dt`, the backward pass computes them again instead of keeping them.

    Differentiable in every tensor.  Returns y (b,H,W,D) in `out_dtype`, or that of `x`.
    """
    out_dtype = out_dtype or x.dtype
    if backend in PLAIN:
        plain = _reference if backend == "reference" else _portable
        return plain.scan(x, dt, Bs, Cs, A, Ds, dt_bias, delta_softplus).to(out_dtype)
    tensors, save = prepare(x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, weight)
    y, _ = _forward(*tensors, low_rank, weight, delta_softplus, save, backend)
    return y.to(out_dtype)


def prepare(
    x: Tensor,
    dt: Tensor | None,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    low_rank: Tensor | None,
    weight: Tensor | None,
) -> tuple[tuple[Tensor, ...], bool]:
    """The first seven in the dtypes and layouts backends take, and whether anything here needs a gradient."""
    save = needs_grad((x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, weight))
    if low_rank is not None and weight is not None:
        with torch.no_grad():  # the gradient takes the way through these two, see `scan_gradients`
            dt = step_sizes(x, low_rank, weight)
    low = x.dtype if x.dtype in (torch.float16, torch.bfloat16) else torch.float32
    sequences = (t.to(low).contiguous() for t in (x, dt, Bs, Cs) if t is not None)
    parameters = (t.to(torch.float32).contiguous() for t in (A, Ds, dt_bias))
    return (*sequences, *parameters), save


_ONLY_BACKWARD = (
    "the selective scan is differentiable by backward() and once; {} not supported. backend='reference' (or "
    "SWIN_UMAMBA_BACKEND=reference) has every derivative that torch knows, slowly"
)


def needs_grad(given: Iterable[Tensor | None]) -> bool:
    """Whether one of the tensors has a gradient, and none of them a derivative that the operators here do not know.

    Those are looked for before torch leaves them out or trips.

    Raises:
        NotImplementedError: inside `torch.func.grad`, `jvp` or what is made of them (jacrev, per-sample gradients), or
            with a tensor that carries a forward derivative.
    """
    _refuse_functorch()
    tensors = [tensor for tensor in given if tensor is not None]
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:  # else no tensor carries one
        for tensor in tensors:
            if forward_ad.unpack_dual(tensor).tangent is not None:
                raise NotImplementedError(_ONLY_BACKWARD.format("forward-mode differentiation is"))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@torch.compiler.assume_constant_result
def _refuse_functorch_levels() -> None:
    for level in _functorch.get_interpreter_stack() or ():
        if level.key() in (_functorch.TransformType.Grad, _functorch.TransformType.Jvp):
            raise NotImplementedError(
                _ONLY_BACKWARD.format("torch.func's grad, vjp, jvp, jacrev and jacfwd (per-sample gradients too) are")
            )


_refuse_functorch = _refuse_functorch_levels  # see `resolve_backend`


def refuse_second_derivative(ctx, *_) -> None:
    """The gradient of a gradient, for `register_autograd`."""
    raise NotImplementedError(_ONLY_BACKWARD.format("a second derivative is"))


def operator(name: str) -> Callable[[Callable], Any]:
    """`torch.library.custom_op`, called without its wrapper on a CPU.

    That looks at every call whether an output is an input, which torch's own checks (`opcheck`) do once in the tests;
    with them and its further Python it costs 1 to 2 % of a network's prediction.  What stays of it hides the function
    from Dynamo, which would trace it where it meets the operator outside of a graph, and free what addresses stand for.
    """
    hidden = getattr(torch, "_disable_dynamo", torch.compiler.disable)  # the first, which custom_op takes, is lazy

    def register(function: Callable) -> Any:
        registered = torch.library.custom_op(f"swin_umamba::{name}", function, mutates_args=())
        torch.library.impl(f"swin_umamba::{name}", "cpu", hidden(function))
        return registered

    return register


def _backend(name: str):
    return importlib.import_module(f"swin_umamba_nnunet.ops._{name}")


@operator("scan")
def _forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    low_rank: Tensor | None,
    weight: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _backend(backend).forward(x, dt, Bs, Cs, A, Ds, dt_bias, delta_softplus, save_states)


@_forward.register_fake
def _(x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, weight, delta_softplus, save_states, backend):
    return fake_outputs(x, Bs.shape[3], A.shape[2], save_states, backend)


def fake_outputs(x: Tensor, directions: int, states: int, save_states: bool, backend: str) -> tuple[Tensor, Tensor]:
    """y and the states without values."""
    batch, height, width, channels = x.shape
    y = x.new_empty(x.shape, dtype=torch.float32)
    if not save_states:
        return y, y.new_empty(0)
    windows = (height * width + WINDOW - 1) // WINDOW
    if backend == "numba":
        channels = (channels + LANES - 1) // LANES * LANES
    return y, y.new_empty(batch, directions, windows, states, channels)


@operator("scan_backward")
def _backward(
    dy: Tensor,
    x: Tensor,
    dt: Tensor | None,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    low_rank: Tensor | None,
    weight: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    # In here and not where compilers see it: they would find the forward pass's product, and keep that after all.
    if dt is None:
        assert low_rank is not None
        assert weight is not None
        with torch.autocast(x.device.type, enabled=False):
            dt = step_sizes(x, low_rank, weight).to(x.dtype)
    dx, ddt, *others = _backend(backend).backward(dy, x, dt, Bs, Cs, A, Ds, dt_bias, states, delta_softplus)
    return dx, ddt.to(x.dtype), *others


@_backward.register_fake
def _(dy, x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, weight, states, delta_softplus, backend):
    steps = x.new_empty((Bs.shape[3], *x.shape))
    dx, *others = (t.new_empty(t.shape, dtype=torch.float32) for t in (x, Bs, Cs, A, Ds, dt_bias))
    return dx, steps, *others


_backward.register_autograd(refuse_second_derivative)


def save_scan(x, dt, Bs, Cs, A, Ds, dt_bias, low_rank, weight) -> tuple[Tensor | None, ...]:
    """What the gradient of the scan needs, for `ctx.save_for_backward`: all but step sizes that can be had again."""
    return x, dt if low_rank is None else None, Bs, Cs, A, Ds, dt_bias, low_rank, weight


def scan_gradients(ctx, dy: Tensor, saved: Sequence, states: Tensor, backend: str) -> tuple[Tensor | None, ...]:
    """Gradients of the nine tensors given to `save_scan`, the first inputs of the operator; `saved` came from there."""
    x, _, *others, low_rank, weight = saved
    dx, ddt, *rest = _backward(dy, *saved, states, ctx.delta_softplus, backend)
    found = dx.to(x.dtype), *(g.to(t.dtype) for g, t in zip(rest, others))
    if low_rank is None:
        return found[0], ddt, *found[1:], None, None
    ddt = ddt.flatten(1, 3).to(low_rank.dtype)
    need_low_rank, need_weight = ctx.needs_input_grad[7:9]
    return (
        found[0],
        None,
        *found[1:],
        torch.bmm(ddt, weight) if need_low_rank else None,
        torch.bmm(low_rank.transpose(1, 2), ddt).transpose(1, 2) if need_weight else None,
    )


def _setup_context(ctx, inputs, output):
    *tensors, ctx.delta_softplus, _save, ctx.backend = inputs
    ctx.save_for_backward(*save_scan(*tensors), output[1])
    ctx.set_materialize_grads(False)  # else the states, which nobody differentiates, get a zero gradient of their size


def _autograd(ctx, dy, _dstates):
    *saved, states = ctx.saved_tensors
    return *scan_gradients(ctx, dy.contiguous().float(), saved, states, ctx.backend), None, None, None


_forward.register_autograd(_autograd, setup_context=_setup_context)


# What the backend numba does in one operator after the projection: it makes A and the step sizes from their parameters
# as it goes, so that the largest tensor of all never exists, and reads and writes `projected` in place.
#
#     x (b,H,W,D), projected (b,H,W,K*(R+2N)): floating-point, each position's row holding R, N and N values (step size,
#     B and C) of each direction; dt_weight (K,D,R), dt_bias (K,D), A_logs (K*D,N), Ds (K*D,)
#     y (b,H,W,D) float32; states as above


def _scan_2d(
    x: Tensor, x_proj_weight: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> Tensor:
    projected = linear(x, x_proj_weight.flatten(0, 1))
    given = (x, projected, dt_weight, dt_bias, A_logs, Ds)
    return _forward_2d(*given, needs_grad(given))[0]


@operator("scan_2d")
def _forward_2d(
    x: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor, save_states: bool
) -> tuple[Tensor, Tensor]:
    return _backend("numba").forward_2d(x, projected, dt_weight, dt_bias, A_logs, Ds, save_states)


@_forward_2d.register_fake
def _(x, projected, dt_weight, dt_bias, A_logs, Ds, save_states):
    return fake_outputs(x, dt_weight.shape[0], A_logs.shape[1], save_states, "numba")


@operator("scan_2d_backward")
def _backward_2d(
    dy: Tensor,
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _backend("numba").backward_2d(dy, x, projected, dt_weight, dt_bias, A_logs, Ds, states)


@_backward_2d.register_fake
def _(dy, x, projected, dt_weight, dt_bias, A_logs, Ds, states):
    given = (x, projected, dt_weight, dt_bias, A_logs, Ds)
    return tuple(t.new_empty(t.shape, dtype=torch.float32) for t in given)


_backward_2d.register_autograd(refuse_second_derivative)


def _setup_context_2d(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-1], output[1])
    ctx.set_materialize_grads(False)  # see `_setup_context`


def gradients_2d(dy: Tensor, given: Sequence[Tensor], states: Tensor) -> tuple[Tensor, ...]:
    """Of the six tensors `given`, which are those of `_forward_2d`."""
    return tuple(g.to(t.dtype) for g, t in zip(_backward_2d(dy, *given, states), given))


def _autograd_2d(ctx, dy, _dstates):
    *given, states = ctx.saved_tensors
    return *gradients_2d(dy, given, states), None


_forward_2d.register_autograd(_autograd_2d, setup_context=_setup_context_2d)


def _check_1d(u, delta, A, B, C, D, z, delta_bias) -> None:
    batch, dim, length = u.shape if u.dim() == 3 else (0, 0, 0)
    groups = B.shape[1] if B.dim() == 4 else 0
    expected = {
        "u": (u, ("batch", "dim", "L"), (batch, dim, length)),
        "delta": (delta, ("batch", "dim", "L"), (batch, dim, length)),
        "A": (A, ("dim", "N"), (dim, A.shape[-1])),
        "B": (B, ("batch", "G", "N", "L"), (batch, groups, A.shape[-1], length)),
        "C": (C, ("batch", "G", "N", "L"), (batch, groups, A.shape[-1], length)),
        "D": (D, ("dim",), (dim,)),
        "z": (z, ("batch", "dim", "L"), (batch, dim, length)),
        "delta_bias": (delta_bias, ("dim",), (dim,)),
    }
    check_shapes(expected)
    if groups == 0 or dim % groups:
        raise ValueError(f"selective_scan: {dim} channels cannot be shared by {groups} groups of B and C")


def check_2d(x, x_proj_weight, dt_projs_weight, dt_projs_bias, A_logs, Ds) -> None:
    shape = tuple(x.shape) if x.dim() == 4 else (0, 0, 0, 0)
    rank = dt_projs_weight.shape[-1]
    states = A_logs.shape[-1]
    check_shapes(
        {
            "x": (x, ("b", "H", "W", "D"), shape),
            "x_proj_weight": (x_proj_weight, ("4", "R+2N", "D"), (4, rank + 2 * states, shape[3])),
            "dt_projs_weight": (dt_projs_weight, ("4", "D", "R"), (4, shape[3], rank)),
            "dt_projs_bias": (dt_projs_bias, ("4", "D"), (4, shape[3])),
            "A_logs": (A_logs, ("4*D", "N"), (4 * shape[3], states)),
            "Ds": (Ds, ("4*D",), (4 * shape[3],)),
        }
    )


def check_shapes(expected: dict) -> None:
    for name, (tensor, symbols, shape) in expected.items():
        if tensor is None or (tensor.shape == shape and 0 not in shape and tensor.is_floating_point()):
            continue
        if tensor.shape != shape or 0 in shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected ({', '.join(symbols)}) = {shape} with no empty axis"
            )
        if tensor.is_complex():
            raise ValueError(f"{name} is complex; only real selective scans are supported")
        raise ValueError(f"{name} is {tensor.dtype}; selective scans take floating-point tensors: {name}.float()")
