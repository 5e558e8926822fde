"""The portable backend: values and gradients of the definition, in a graph without operators of our own."""

import operator

import pytest
import torch

from tests.ops.cases import (
    SIZES_2D,
    assert_matches_reference,
    inputs_1d,
    inputs_2d,
    selective_scan,
    selective_scan_2d,
)


@pytest.mark.parametrize("size", SIZES_2D)
def test_2d_matches_the_reference(size):
    assert_matches_reference(selective_scan_2d, inputs_2d(*size), backend="portable")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_2d_in_other_precisions(dtype):
    assert_matches_reference(selective_scan_2d, inputs_2d(2, 6, 7, 24, 16), backend="portable", dtype=dtype)


def test_one_step_gives_every_argument_a_gradient():
    leaves = [a.requires_grad_() for a in inputs_1d(2, 5, 1, 8)]
    selective_scan(*leaves, backend="portable", delta_softplus=True).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)
    assert (leaves[2].grad == 0).all()


def test_keeps_float64():
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
