"""Inputs, reference results and tolerances that the operator tests of all backends share."""

import os

import pytest
import torch

from swin_umamba_nnunet import ops
from swin_umamba_nnunet.ops import _scan

# Relative L2 error allowed against the float64 reference on the same (rounded) inputs: outputs, gradients.
TOLERANCE = {
    torch.float64: (1e-5, 1e-5),  # computed in float32 by every backend but the reference
    torch.float32: (1e-5, 1e-5),
    torch.float16: (2e-3, 5e-3),
    torch.bfloat16: (1e-2, 3e-2),
}

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETER else "cuda"  # where Triton's values are computed
values = pytest.mark.kernels


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, **settings):
    """The operator without a gate: what is differentiated comes first, in the order of `inputs_1d`."""
    return ops.selective_scan(u, delta, A, B, C, D, None, delta_bias, **settings)


def normal(dtype=torch.float64):
    """A function (*shape) -> normally distributed numbers, each time others, every run the same."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)


def inputs_2d(batch, height, width, channels, states, rank=3):
    """Float64 arguments of `selective_scan_2d`, with decays from nearly 1 to nearly 0."""
    random = normal()
    return [
        random(batch, height, width, channels),
        random(4, rank + 2 * states, channels) / channels**0.5,
        random(4, channels, rank) / rank**0.5,
        random(4, channels) - 2,
        torch.log(torch.arange(1, states + 1.0, dtype=torch.float64)).repeat(4 * channels, 1)
        + 0.1 * random(4 * channels, states),
        1 + 0.1 * random(4 * channels),
    ]


def inputs_1d(batch, dim, length, states, groups=None):
    """Float64 arguments of `selective_scan` up to `delta_bias`; `groups` None gives B and C three axes."""
    random = normal()
    shape = (batch, states, length) if groups is None else (batch, groups, states, length)
    return [
        random(batch, dim, length),
        random(batch, dim, length),
        -torch.exp(0.5 * random(dim, states)),
        random(*shape),
        random(*shape),
        random(dim),
        random(dim) - 2,
    ]


def inputs_core(batch, height, width, channels, directions, states, *, dtype=torch.float32, softplus=True, sets=1):
    """x, dt, Bs, Cs (in `dtype`), A, Ds, dt_bias as a backend's module is given them (`_scan`)."""
    random, parameters = normal(torch.float32), (sets * directions, channels)
    x, dt = random(batch, height, width, channels), random(directions, batch, height, width, channels)
    Bs, Cs = (random(batch, height, width, directions, states) for _ in "BC")
    A, Ds, dt_bias = -torch.exp(random(*parameters, states)), random(*parameters), random(*parameters) - 1
    if not softplus:
        dt, dt_bias = 0.3 * dt.abs(), 0.1 * dt_bias.abs()
    return [*(t.to(dtype) for t in (x, dt, Bs, Cs)), A, Ds, dt_bias]


def cotangent(like):
    """Numbers for one fixed derivative that are the same in every precision, none of them zero."""
    odd = 2 * torch.randint(-8, 8, like.shape, generator=torch.Generator().manual_seed(1)) + 1
    return (odd / 8).to(like)


def values_and_gradients(function, arguments, **settings):
    """Outputs and the gradient of every argument that is not None for one fixed cotangent, in float64."""
    leaves = [None if a is None else a.detach().clone().requires_grad_() for a in arguments]
    outputs = function(*leaves, **settings)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.autograd.backward(outputs, [cotangent(output) for output in outputs])
    # None is autograd's zero: nothing depends on A in a sequence of one step
    gradients = [torch.zeros_like(a) if a.grad is None else a.grad for a in leaves if a is not None]
    return [each.detach().double().cpu() for each in (*outputs, *gradients)]


def relative_error(value, reference):
    """L2 norm of the difference over that of the reference; NaN anywhere gives NaN, which passes no comparison."""
    scale = reference.norm().item()
    return (value.to(reference) - reference).norm().item() / (scale if scale > 0 else 1.0)


def assert_agree(found, expected, dtype=torch.float32):
    """An output and what follows it, within `TOLERANCE`."""
    for index, (value, reference) in enumerate(zip(found, expected, strict=True)):
        error, allowed = relative_error(value, reference), TOLERANCE[dtype][min(index, 1)]
        assert error <= allowed, f"{index}: {error:.2e} > {allowed:.0e}"


def assert_same_bits(first, *others):
    """Lists of tensors that are equal."""
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def assert_matches_reference(function, arguments, *, backend, dtype=torch.float32, device="cpu", **settings):
    """Values and all gradients of `backend` on `dtype` inputs against the float64 reference on the same numbers."""
    rounded = [a.to(dtype) for a in arguments]
    expected = values_and_gradients(function, [a.double() for a in rounded], backend="reference", **settings)
    actual = values_and_gradients(function, [a.to(device) for a in rounded], backend=backend, **settings)
    assert_agree(actual, expected, dtype)


def core_reference(inputs, softplus=True):
    """y and the gradients of `inputs_core` by the definition, in float64."""
    return values_and_gradients(lambda *t: _scan.scan(*t, softplus, "reference"), [t.double() for t in inputs])


def assert_keeps_contract(module, inputs, softplus=True, backward=True):
    """y and all gradients of a backend's module, called as `_scan` calls it, against the reference."""
    x, _, Bs, *_ = inputs
    expected, *gradients = core_reference(inputs, softplus)
    y_only, nothing = module.forward(*inputs, softplus, False)
    y, states = module.forward(*inputs, softplus, True)
    found = module.backward(cotangent(y), *inputs, states, softplus) if backward else ()
    backend = module.__name__.rpartition("._")[2]
    like = _scan.fake_outputs(x, *Bs.shape[3:], True, backend)
    assert [(t.shape, t.dtype) for t in (y, states)] == [(t.shape, t.dtype) for t in like]
    assert relative_error(y, expected) < 2e-6
    assert torch.equal(y_only, y)
    assert nothing.numel() == 0
    for index, (gradient, exact) in enumerate(zip(found, gradients, strict=backward)):
        assert gradient.shape == exact.shape, index
        assert gradient.is_contiguous(), index
        assert gradient.dtype == (x.dtype if index == 1 else torch.float32), index
        rounded = gradient.dtype != torch.float32  # of ddt, and Triton's interpreter cuts bfloat16 off
        assert relative_error(gradient, exact) < (torch.finfo(x.dtype).eps / 2 if rounded else 5e-6), index


def assert_registered(name, tensors, further):
    """torch's own checks of an operator's schema, fake kernel and autograd; `further` follows in turn for each save."""
    operator = getattr(torch.ops.swin_umamba, name).default
    for save in (False, True):
        leaves = [None if t is None else t.clone().requires_grad_(save) for t in tensors]
        torch.library.opcheck(
            operator,
            (*leaves, *further(save)),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


SIZES_2D = [  # batch, height, width, channels, states
    (1, 1, 1, 1, 16),
    (2, 1, 2, 17, 8),
    (1, 9, 7, 5, 16),
    (2, 8, 8, 48, 1),
    (1, 5, 13, 33, 16),
    (2, 16, 4, 64, 16),
    (1, 130, 1, 8, 8),
    (1, 3, 50, 96, 20),
]
LENGTHS = [1, 2, 63, 64, 65, 130]
on_a_cpu = pytest.mark.parametrize("backend", ["numba", "portable"])
