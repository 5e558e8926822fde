"""Inputs, reference results and tolerances that the operator tests of all backends share."""

import torch
from torch import Tensor

from swin_umamba_nnunet import ops
from swin_umamba_nnunet.ops import selective_scan_2d

# Relative L2 error allowed against the float64 reference on the same (rounded) inputs: outputs, gradients.
TOLERANCE = {
    torch.float64: (1e-5, 1e-5),  # computed in float32 by every backend but the reference
    torch.float32: (1e-5, 1e-5),
    torch.float16: (2e-3, 5e-3),
    torch.bfloat16: (1e-2, 3e-2),
}


def selective_scan(u, delta, A, B, C, D=None, delta_bias=None, **settings):
    """The operator without a gate: what is differentiated comes first, in the order of `inputs_1d`."""
    return ops.selective_scan(u, delta, A, B, C, D, None, delta_bias, **settings)


def inputs_2d(batch: int, height: int, width: int, channels: int, states: int, rank: int = 3, seed: int = 0):
    """Float64 arguments of `selective_scan_2d`, with decays from nearly 1 to nearly 0."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        normal(batch, height, width, channels),
        normal(4, rank + 2 * states, channels) / channels**0.5,
        normal(4, channels, rank) / rank**0.5,
        normal(4, channels) - 2,
        torch.log(torch.arange(1, states + 1.0, dtype=torch.float64)).repeat(4 * channels, 1)
        + 0.1 * normal(4 * channels, states),
        1 + 0.1 * normal(4 * channels),
    ]


def inputs_1d(batch: int, dim: int, length: int, states: int, groups: int | None = None, seed: int = 0):
    """Float64 arguments of `selective_scan` up to `delta_bias`; `groups` None gives B and C three axes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (batch, states, length) if groups is None else (batch, groups, states, length)
    return [
        normal(batch, dim, length),
        normal(batch, dim, length),
        -torch.exp(0.5 * normal(dim, states)),
        normal(*shape),
        normal(*shape),
        normal(dim),
        normal(dim) - 2,
    ]


def values_and_gradients(function, arguments, **settings) -> list[Tensor]:
    """Outputs and the gradient of every argument that is not None for one fixed cotangent, in float64."""
    leaves = [None if a is None else a.detach().clone().requires_grad_() for a in arguments]
    outputs, generator = function(*leaves, **settings), torch.Generator().manual_seed(1)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    cotangents = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in outputs]
    torch.autograd.backward(outputs, cotangents)
    # None is autograd's zero: nothing depends on A in a sequence of one step
    gradients = [torch.zeros_like(a) if a.grad is None else a.grad for a in leaves if a is not None]
    return [each.detach().double().cpu() for each in (*outputs, *gradients)]


def relative_error(value: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over that of the reference; NaN anywhere gives NaN, which passes no comparison."""
    scale = reference.norm().item()
    return (value.double() - reference).norm().item() / (scale if scale > 0 else 1.0)


def assert_matches_reference(function, arguments, *, backend: str, dtype=torch.float32, device="cpu", **settings):
    """Values and all gradients of `backend` on `dtype` inputs against the float64 reference on the same numbers."""
    rounded = [a.to(dtype) for a in arguments]
    expected = values_and_gradients(function, [a.double() for a in rounded], backend="reference", **settings)
    actual = values_and_gradients(function, [a.to(device) for a in rounded], backend=backend, **settings)
    for index, (value, reference) in enumerate(zip(actual, expected, strict=True)):
        allowed = TOLERANCE[dtype][min(index, 1)]
        error = relative_error(value, reference)
        assert error <= allowed, f"{'output' if index == 0 else f'gradient {index - 1}'}: {error:.2e} > {allowed:.0e}"


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

__all__ = [
    "LENGTHS",
    "SIZES_2D",
    "TOLERANCE",
    "assert_matches_reference",
    "inputs_1d",
    "inputs_2d",
    "relative_error",
    "selective_scan",
    "selective_scan_2d",
    "values_and_gradients",
]
