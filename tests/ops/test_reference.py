"""The definition itself, against the recurrence written out for one channel and one state, and against autograd."""

import math

import torch

from tests.ops.cases import inputs_1d, inputs_2d, selective_scan, selective_scan_2d


def test_recurrence_written_out():
    u, delta, a, b, c, d, bias = [0.5, -1.0, 2.0], [0.1, 0.7, -0.3], -0.8, [1.0, 0.5, -2.0], [0.3, -1.0, 0.7], 1.5, 0.2
    h, expected = 0.0, []
    for u_l, delta_l, b_l, c_l in zip(u, delta, b, c):
        step = math.log1p(math.exp(delta_l + bias))
        h = math.exp(step * a) * h + step * b_l * u_l
        expected.append(c_l * h + d * u_l)
    tensors = [torch.tensor(v, dtype=torch.float64) for v in (u, delta, b, c)]
    u_, delta_, b_, c_ = (t.reshape(1, 1, 3) for t in tensors)
    scalar = [torch.tensor([v], dtype=torch.float64) for v in (d, bias)]
    A = torch.tensor([[a]], dtype=torch.float64)
    y = selective_scan(u_, delta_, A, b_, c_, *scalar, delta_softplus=True, backend="reference")
    torch.testing.assert_close(y.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_four_directions_are_scans_of_reordered_images():
    x, x_proj, dt_projs, dt_bias, A_logs, Ds = inputs_2d(2, 3, 5, 4, 2)
    sequences = [x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)]
    sequences += [s.flip(1) for s in sequences]
    expected = torch.zeros_like(x)
    for k, s in enumerate(sequences):
        projected = s @ x_proj[k].T
        delta = projected[..., :3] @ dt_projs[k].T
        own = slice(4 * k, 4 * k + 4)
        y = selective_scan(
            s.mT,
            delta.mT,
            -A_logs[own].exp(),
            projected[..., 3:5].mT,
            projected[..., 5:].mT,
            Ds[own],
            dt_bias[k],
            delta_softplus=True,
            backend="reference",
        ).mT
        y = y.flip(1) if k >= 2 else y
        expected += y.unflatten(1, (5, 3)).transpose(1, 2) if k % 2 else y.unflatten(1, (3, 5))
    actual = selective_scan_2d(x, x_proj, dt_projs, dt_bias, A_logs, Ds, backend="reference")
    torch.testing.assert_close(actual, expected)


def test_gradients_by_finite_differences():
    arguments = [a.requires_grad_() for a in inputs_1d(1, 2, 4, 2)]
    assert torch.autograd.gradcheck(
        lambda *a: selective_scan(*a, delta_softplus=True, backend="reference"), arguments, atol=1e-6
    )


def test_float64_is_kept():
    arguments = inputs_2d(1, 4, 4, 3, 2)
    exact = selective_scan_2d(*arguments, backend="reference")
    rounded = selective_scan_2d(*(a.float() for a in arguments), backend="reference")
    assert exact.dtype == torch.float64
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 1e-5
