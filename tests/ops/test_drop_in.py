"""`selective_scan` in place of mamba_ssm's function: all of its options against a recurrence written out here."""

import itertools

import pytest
import torch
from torch.nn.functional import silu, softplus

from swin_umamba_nnunet.ops import selective_scan
from tests.ops.cases import LENGTHS, assert_agree, inputs_1d, normal, on_a_cpu, relative_error, values_and_gradients

BACKENDS = ("numba", "portable", "reference")
BATCH, DIM, STATES = 2, 6, 5
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def plain_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """(y, last state) in the inputs' precision, one step after the other."""
    batch, dim, length = u.shape

    def at_every_step(t):  # -> (batch, dim, N, L)
        if t.dim() == 2:
            return t[None, :, :, None].expand(batch, -1, -1, length)
        t = t[:, None] if t.dim() == 3 else t
        return t.repeat_interleave(dim // t.shape[1], dim=1)

    B, C = at_every_step(B), at_every_step(C)
    delta = delta if delta_bias is None else delta + delta_bias[:, None]
    delta = softplus(delta) if delta_softplus else delta
    state, outputs = u.new_zeros(batch, dim, A.shape[1]), []
    for step in range(length):
        now = delta[..., step, None]
        state = torch.exp(now * A) * state + now * B[..., step] * u[..., step, None]
        outputs.append((state * C[..., step]).sum(-1))
    y = torch.stack(outputs, dim=-1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * silu(z), state


def make(length, variable_B=True, variable_C=True, groups=None, has_D=True, has_z=True, has_delta_bias=True):
    """Float64 arguments in mamba_ssm's order, up to delta_bias; step sizes are positive without softplus."""
    u, delta, A, B, C, D, delta_bias = inputs_1d(BATCH, DIM, length, STATES, groups)
    random = normal()
    return [
        u,
        0.5 * delta.sigmoid(),
        A,
        B if variable_B else random(DIM, STATES),
        C if variable_C else random(DIM, STATES),
        D if has_D else None,
        delta if has_z else None,
        0.5 * delta_bias.sigmoid() if has_delta_bias else None,
    ]


def check(backend, arguments, delta_softplus, dtype=torch.float32, device="cpu"):
    rounded = [None if a is None else a.to(device, dtype) for a in arguments]
    expected = values_and_gradients(
        lambda *a: plain_scan(*a, delta_softplus), [None if a is None else a.double() for a in rounded]
    )
    found = values_and_gradients(lambda *a: selective_scan(*a, delta_softplus, True, backend=backend), rounded)
    assert_agree(found, expected, dtype)
    y = selective_scan(*rounded, delta_softplus, backend=backend)
    assert y.dtype == dtype
    torch.testing.assert_close(y.cpu(), found[0].to(dtype))


@each_backend
@pytest.mark.parametrize(
    ("variable_B", "variable_C", "groups"), list(itertools.product((True, False), (True, False), (None, 2)))
)
def test_forms_of_B_and_C(variable_B, variable_C, groups, backend):
    check(backend, make(70, variable_B, variable_C, groups), True)


@each_backend
@pytest.mark.parametrize("given", list(itertools.product((True, False), repeat=3)), ids=str)
@pytest.mark.parametrize("delta_softplus", [True, False])
def test_what_may_be_left_out(given, delta_softplus, backend):
    has_D, has_z, has_delta_bias = given
    check(backend, make(20, has_D=has_D, has_z=has_z, has_delta_bias=has_delta_bias), delta_softplus)


@on_a_cpu
@pytest.mark.parametrize("length", [*LENGTHS, 257, 4096])
def test_lengths(length, backend):
    check(backend, make(length, groups=2), True)


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variable", [True, False])
def test_half_precision(dtype, variable, backend):
    check(backend, make(60, variable_C=variable), True, dtype)


@each_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_reading_the_state_takes_no_time_without_softplus(mixed, dtype, backend):
    """Whatever minus the bias would be rounded to; `mixed` has parameters in float32, as under autocast."""
    arguments = make(20, groups=2)
    arguments[2] = 20 * arguments[2] - 5  # a decay that would show what time passes
    arguments = [a.to(torch.float32 if mixed and a.dim() < 3 else dtype) for a in arguments]
    expected = values_and_gradients(lambda *a: plain_scan(*a, False), [a.double() for a in arguments])
    found = values_and_gradients(lambda *a: selective_scan(*a, False, True, backend=backend), arguments)
    assert relative_error(found[1], expected[1]) < 1e-5  # float32 inside, and in the state
    assert_agree(found, expected, dtype)
    leaves = [a.requires_grad_() for a in arguments]
    y, last = selective_scan(*leaves, False, True, backend=backend)
    (y.float().sum() + last.sum()).backward()
    assert (y.dtype, last.dtype) == (dtype, torch.float32)
    assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]


def test_the_gate_is_applied_before_rounding():
    arguments = [a.half() for a in make(200)]
    y = selective_scan(*arguments, True)
    exact, _ = plain_scan(*(a.double() for a in arguments), True)
    # rounded once: within half a unit in the last place, but for float32's own error
    assert ((y.double() - exact).abs() <= 2.0**-11 * exact.abs() * 1.01 + 1e-6).all()
