"""SS2D's form on a CPU against the definition, the portable backend's graph, and the definition itself.

The definition's values are held by `test_drop_in` (the recurrence written out) and, of the four directions, by the
authors' blocks.
"""

import operator

import pytest
import torch

from swin_umamba_nnunet.ops import selective_scan_2d
from tests.ops.cases import SIZES_2D, assert_matches_reference, inputs_1d, inputs_2d, on_a_cpu, selective_scan

# numba's registers take sixteen states at once, then four, then one
NUMBERS_OF_STATES = [(1, 5, 15, 20, states) for states in (1, 2, 8, 16, 24, 64)]
RANKS = [(1, 7, 10, 35, states, r) for r, states in ((1, 2), (2, 16), (5, 2), (6, 16), (12, 2), (17, 16), (48, 2))]


@on_a_cpu
@pytest.mark.parametrize("size", SIZES_2D + NUMBERS_OF_STATES + RANKS, ids=str)
def test_2d_matches_the_reference(size, backend):
    assert_matches_reference(selective_scan_2d, inputs_2d(*size), backend=backend)


@on_a_cpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_2d_in_other_precisions(dtype, backend):
    assert_matches_reference(selective_scan_2d, inputs_2d(2, 6, 7, 24, 16), backend=backend, dtype=dtype)
    arguments = [a.to(dtype) for a in inputs_2d(1, 2, 2, 4, 2)]
    assert selective_scan_2d(*arguments, backend=backend).dtype == dtype


def test_one_step_gives_every_argument_a_gradient():
    leaves = [a.requires_grad_() for a in inputs_1d(2, 5, 1, 8)]
    selective_scan(*leaves, backend="portable", delta_softplus=True).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)
    assert (leaves[2].grad == 0).all()


def test_portable_keeps_float64():
    arguments = inputs_2d(1, 4, 5, 3, 2)
    found, expected = (selective_scan_2d(*arguments, backend=name) for name in ("portable", "reference"))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_its_graph_holds_pytorchs_own_operations_only():
    class Scan(torch.nn.Module):
        def forward(self, *arguments):
            return selective_scan_2d(*arguments, backend="portable")

    arguments = tuple(a.float() for a in inputs_2d(1, 8, 8, 6, 4))
    program = torch.export.export(Scan(), arguments, strict=False)
    called = {node.target for node in program.graph.nodes if node.op == "call_function"} - {operator.getitem}
    assert called
    assert {target.namespace for target in called} == {"aten"}
    torch.testing.assert_close(program.module()(*arguments), Scan()(*arguments))


def test_gradients_by_finite_differences():
    """Which needs float64 throughout."""
    arguments = [a.requires_grad_() for a in inputs_1d(1, 2, 4, 2)]
    assert torch.autograd.gradcheck(
        lambda *a: selective_scan(*a, delta_softplus=True, backend="reference"), arguments, atol=1e-6
    )
