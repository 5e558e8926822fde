"""What training needs of a network: recomputation, autocast, determinism, compilers."""

import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs

from swin_umamba_nnunet.networks import set_backend
from tests import golden


def switch_checkpointing(network, on):
    parts = [module for module in network.modules() if hasattr(module, "gradient_checkpointing")]
    for part in parts:
        part.gradient_checkpointing = on
    return len(parts)


def outputs_and_gradients(network, x, seed=1):
    torch.manual_seed(seed)  # DropPath
    network.zero_grad()
    outputs = network(x)
    sum(y.square().mean() for y in outputs).backward()
    return [y.detach() for y in outputs], [p.grad.clone() for p in network.parameters()]


def assert_same(first, second):
    for these, those in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(these, those))


@pytest.mark.parametrize("training", [True, False])
def test_checkpointing_changes_nothing_but_memory(tiny_network, training):
    network = tiny_network(deep_supervision=True, drop_path_rate=0.5).train(training)
    x = torch.randn(2, 1, 33, 20)
    plain = outputs_and_gradients(network, x)
    assert switch_checkpointing(network, True) >= 6
    assert_same(outputs_and_gradients(network, x), plain)


def test_checkpointing_keeps_fewer_tensors(tiny_network):
    """The setting of the constructor reaches every block."""

    def saved_bytes(network):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(1, 1, 64, 64))
        return sum(sizes)

    assert saved_bytes(tiny_network(gradient_checkpointing=True)) < 0.35 * saved_bytes(tiny_network())


def test_same_seed_same_gradients(tiny_network):
    network = tiny_network(deep_supervision=True)
    x = torch.randn(2, 1, 32, 40)
    assert_same(outputs_and_gradients(network, x), outputs_and_gradients(network, x))
    assert not torch.equal(outputs_and_gradients(network, x, seed=2)[0][0], outputs_and_gradients(network, x)[0][0])


def check_autocast(network, dtype, tolerance, factor):
    """Outputs within `tolerance` of float32's, all gradients together within `factor` times that."""
    x = torch.randn(2, 1, 33, 50)
    plain, plain_gradients = outputs_and_gradients(network, x)
    with torch.autocast("cpu", dtype):
        outputs, gradients = outputs_and_gradients(network, x)
    for found, expected in zip(outputs, plain):
        assert golden.relative_error(found, expected) < tolerance
    assert all(gradient.isfinite().all() for gradient in gradients)
    flat = [torch.cat([g.flatten() for g in each]) for each in (gradients, plain_gradients)]
    assert golden.relative_error(*flat) < factor * tolerance


autocasts = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])


@autocasts
def test_autocast(tiny_network, dtype, tolerance):
    factor = 7 if torch.__version__.startswith("2.4.") else 6  # its float16 convolutions round more
    check_autocast(tiny_network(deep_supervision=True).eval(), dtype, tolerance, factor)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005), (None, 1e-4)])
def test_cuda_agrees_with_cpu(tiny_network, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # else convolutions round to 10 bits
    network = tiny_network(deep_supervision=True).eval()
    x = torch.randn(2, 1, 33, 50)
    set_backend(network, "portable")  # needs no numba
    plain, _ = outputs_and_gradients(network, x)
    set_backend(network, None)
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        outputs, gradients = outputs_and_gradients(network.cuda(), x.cuda())
    for found, expected in zip(outputs, plain):
        assert golden.relative_error(found.cpu(), expected) < tolerance
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_whole_network_in_another_dtype(tiny_network, dtype):
    """Float64: `test_properties`."""
    network = tiny_network().eval()
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = network(x)
        found = network.to(dtype)(x.to(dtype))
    assert found.dtype == dtype
    assert golden.relative_error(found, expected) < 0.05


def test_compiles_without_a_graph_break(tiny_network):
    """One graph, new values without a new graph, the same outputs and gradients."""
    network = tiny_network(deep_supervision=True, depths=(1, 1))
    torch.compiler.reset()
    recorder = EagerAndRecordGraphs()
    compiled = torch.compile(network, backend=recorder, fullgraph=True)
    for _ in range(2):
        x = torch.randn(2, 1, 33, 50)
        torch.manual_seed(1)
        found = compiled(x)
        assert_same([found], outputs_and_gradients(network, x)[:1])
    (graph,) = recorder.graphs
    assert any("swin_umamba" in str(node.target) for node in graph.graph.nodes)


def test_compiles_ahead_of_time_with_backward(tiny_network):
    """aot_eager traces through the operator's fake and autograd registrations."""
    network = tiny_network(deep_supervision=True, depths=(1, 1)).eval()
    x = torch.randn(1, 1, 9, 16)
    plain = outputs_and_gradients(network, x)
    torch.compiler.reset()
    network.compile(backend="aot_eager", fullgraph=True)
    # torch 2.4 takes some gradients apart into other operations: the same up to rounding
    torch.testing.assert_close(outputs_and_gradients(network, x), plain, rtol=1e-4, atol=1e-6)


def test_exports(tiny_network):
    network = tiny_network(deep_supervision=True, depths=(1, 1)).eval()
    x = torch.randn(1, 1, 33, 50)
    program = torch.export.export(network, (x,))
    with torch.no_grad():
        assert_same([program.module()(x)], [network(x)])
