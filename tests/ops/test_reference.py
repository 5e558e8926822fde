"""The definition itself: its gradients, and the precision it keeps.

Its values are held by `test_drop_in` (the recurrence written out) and, of the four directions, by the authors' blocks.
"""

import torch

from tests.ops.cases import inputs_1d, inputs_2d, selective_scan, selective_scan_2d


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
