"""The public functions: checks of what comes in, choice of backend, and behaviour under torch's compilers."""

import logging
import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs

from swin_umamba_nnunet import ops
from swin_umamba_nnunet.ops import _select, selective_scan_2d
from tests.messages import raises
from tests.ops.cases import (
    assert_registered,
    assert_same_bits,
    inputs_1d,
    inputs_2d,
    inputs_core,
    normal,
    selective_scan,
    values_and_gradients,
)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # of torch's jvp


def small(dtype=torch.float32):
    return [a.to(dtype) for a in inputs_2d(1, 4, 5, 16, 4)]


def test_every_axis_of_every_argument():
    for function, arguments in (
        (selective_scan_2d, small()),
        (selective_scan, [a.float() for a in inputs_1d(1, 6, 10, 4, 2)]),
    ):
        for index, argument in enumerate(arguments):
            image = index == 0 and function is selective_scan_2d  # of any size but none
            for axis, size in enumerate(argument.shape):
                wrong = argument.narrow(axis, 0, 0 if image else size - 1)
                with pytest.raises(ValueError, match="has shape|cannot be shared"):
                    function(*arguments[:index], wrong, *arguments[index + 1 :])


def test_sequence_arguments_are_checked():
    u, delta, A, B, C, D, bias = (a.float() for a in inputs_1d(1, 6, 10, 4, 2))
    for wrong in ((u[..., :0], delta[..., :0], A, B[..., :0], C[..., :0]), (u[0], delta, A, B, C)):
        with raises(ValueError, "has shape"):
            selective_scan(*wrong, D, bias)
    with raises(ValueError, "cannot be shared"):
        selective_scan(u[:, :5], delta[:, :5], A[:5], B, C)
    with raises(ValueError, "C has shape"):
        selective_scan(u, delta, A, A, C[:, :, :3])
    with raises(ValueError, "complex"):
        selective_scan(u, delta, A.to(torch.complex64), B, C)


@pytest.mark.parametrize("backend", ["numba", "portable", "reference"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool], ids=str)
def test_integers_are_refused_and_not_rounded_to(backend, dtype):
    for index in range(7):
        arguments = [a.float() for a in inputs_1d(1, 6, 10, 4)]
        arguments[index] = arguments[index].to(dtype)
        with pytest.raises(ValueError, match=f"{str(dtype)}.*floating-point"):
            selective_scan(*arguments, backend=backend)
    arguments = small()
    with raises(ValueError, f"x is {dtype}"):
        selective_scan_2d(arguments[0].to(dtype), *arguments[1:], backend=backend)


# ---- choice of a backend


def test_cpu_runs_numba_and_says_so_once(caplog):
    with caplog.at_level(logging.INFO, logger="swin_umamba_nnunet"):
        assert ops.resolve_backend(None, "cpu") == "numba"
        assert ops.resolve_backend(None, "cpu") == "numba"
    assert [r.getMessage() for r in caplog.records] == ["selective scan on cpu: backend 'numba' (chosen automatically)"]


def test_environment_variable(monkeypatch):
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "reference")
    assert ops.resolve_backend(None, "cpu") == "reference"
    assert ops.resolve_backend("numba", "cpu") == "numba"
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "auto")
    assert ops.resolve_backend(None, "cpu") == "numba"


def test_unknown_name(monkeypatch):
    with raises(ValueError, "the argument `backend` names the backend 'cuda'", "choose one of triton"):
        selective_scan_2d(*small(), backend="cuda")
    monkeypatch.setenv("SWIN_UMAMBA_BACKEND", "numbra")
    with raises(ValueError, "SWIN_UMAMBA_BACKEND names the backend 'numbra'"):
        selective_scan_2d(*small())


def test_explicit_choice_that_cannot_run():
    with raises(ops.BackendUnavailableError, "'mamba_ssm' was asked for by the argument"):
        selective_scan_2d(*small(), backend="mamba_ssm")
    with raises(ops.BackendUnavailableError, "'numba'", "computes on the CPU only"):
        ops.resolve_backend("numba", "cuda")


def test_nothing_fast_is_an_error_and_never_the_plain_loop():
    with raises(ops.BackendUnavailableError, "SWIN_UMAMBA_BACKEND=reference"):
        ops.resolve_backend(None, "xpu")


def test_report_names_every_backend():
    report = ops.backend_report("cpu")
    assert list(report) == list(ops.BACKENDS)
    assert report["numba"] == report["reference"] == "available"


def test_backend_that_fails_to_load_is_a_reason_and_no_crash(monkeypatch):
    def explode(name):
        raise OSError("cannot allocate memory")

    monkeypatch.setattr(_select.importlib, "import_module", explode)
    assert "OSError: cannot allocate memory" in _select.unavailable_reason.__wrapped__("numba", "cpu")


def test_importing_the_room_loads_no_backend():
    """They are loaded when first used, which may be while torch.export has functions of its own in these places."""
    script = (
        "import builtins, math, sys; from swin_umamba_nnunet import ops; "
        "bad = {'numba', 'mamba_ssm', 'nnunetv2', 'swin_umamba_nnunet.ops._triton'} & set(sys.modules); "
        "math.pow = builtins.min = lambda *numbers: numbers[0]; "
        "raise SystemExit(str(bad) if bad else ops.resolve_backend('numba', 'cpu') != 'numba')"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- derivatives: what the operators have no formula for is refused, some of which torch answers with zeros


def _double_backward(function, x):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


def _dual(function, x):
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(function(torch.autograd.forward_ad.make_dual(x, x))).tangent


DERIVATIVES = {
    "jvp": lambda function, x: torch.func.jvp(function, (x,), (x,))[1],
    "dual": _dual,
    "grad": lambda function, x: torch.func.grad(lambda x: function(x).sum())(x),
    "jacrev": lambda function, x: torch.func.jacrev(function)(x),
    "per sample": lambda function, x: torch.func.vmap(torch.func.grad(lambda x: function(x[None]).sum()))(x),
    "double backward": _double_backward,
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_refused_in_words_of_our_own(name):
    x, *parameters = small()
    with raises(NotImplementedError, "not supported", "backend='reference'"):
        DERIVATIVES[name](lambda x: selective_scan_2d(x, *parameters, backend="numba"), x)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_the_backend_that_the_message_names_has_it(name):
    x, *parameters = (a.double() for a in small())
    found = DERIVATIVES[name](lambda x: selective_scan_2d(x, *parameters, backend="reference"), x)
    assert found.isfinite().all()
    assert found.abs().max() > 0


def test_refused_in_compiled_code_too():
    torch._dynamo.reset()
    x, *parameters = small()

    def tangent(x):
        return torch.func.jvp(lambda x: selective_scan_2d(x, *parameters, backend="numba"), (x,), (x,))[1]

    with raises(Exception, "not supported", "backend='reference'"):
        torch.compile(tangent, backend="eager")(x)


def test_ordinary_training_inside_a_level_that_does_not_concern_it():
    arguments = [a.requires_grad_() for a in small()]
    with torch.autograd.forward_ad.dual_level():
        selective_scan_2d(*arguments, backend="numba").sum().backward()
    assert all(a.grad is not None for a in arguments)


# ---- torch and its compilers


def test_registration():
    x, dt, Bs, Cs, *parameters = inputs_core(1, 2, 3, 16, 4, 2)
    random = normal(torch.float32)
    for factors in ((None, None), (random(4, 6, 3), random(4, 16, 3))):
        tensors = (x, dt, Bs, Cs, *parameters, *factors)
        assert_registered("scan", tensors, lambda save: (True, save, "numba"))


def test_registration_of_the_form_with_projections():
    x, _, *others = (a.float() for a in inputs_2d(1, 2, 3, 16, 2))
    tensors = x, normal(torch.float32)(1, 2, 3, 4 * 7), *others
    assert_registered("scan_2d", tensors, lambda save: (save,))
    states = torch.ops.swin_umamba.scan_2d(*tensors, True)[1]
    assert_registered("scan_2d_backward", (x, *tensors, states), lambda save: ())


def test_step_sizes_are_not_kept_for_backward():
    """They are K times as large as the image; what makes them is R / D of that."""
    arguments = [a.float().requires_grad_() for a in inputs_2d(2, 6, 7, 48, 5)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        selective_scan_2d(*arguments, backend="numba")
    assert not [t.shape for t in kept if t.numel() >= 4 * 2 * 6 * 7 * 48]


def test_nor_by_compiled_code():
    """Inductor's partitioner keeps a matrix product that both passes make; it must not see the second."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    torch._dynamo.reset()
    given = []

    def backward_graph(graph, _inputs):
        given.extend(n.meta["val"].shape for n in graph.graph.nodes if n.op == "placeholder" and "val" in n.meta)
        return make_boxed_func(graph.forward)

    backend = aot_autograd(
        fw_compiler=lambda graph, _: make_boxed_func(graph.forward),
        bw_compiler=backward_graph,
        partition_fn=min_cut_rematerialization_partition,
    )
    compiled = torch.compile(selective_scan_2d, fullgraph=True, backend=backend)
    arguments = [a.float() for a in inputs_2d(2, 6, 7, 48, 5)]
    expected = values_and_gradients(selective_scan_2d, arguments)
    for found, wanted in zip(values_and_gradients(compiled, arguments), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert given
    assert not [shape for shape in given if shape.numel() >= 4 * 2 * 6 * 7 * 48]


def test_compiled_is_one_graph_and_equal():
    torch._dynamo.reset()
    recorder = EagerAndRecordGraphs()
    compiled = torch.compile(selective_scan_2d, fullgraph=True, backend=recorder, dynamic=True)
    # all sizes differ: torch takes equal ones for the same dynamic size
    arguments = [a.float() for a in inputs_2d(2, 6, 7, 16, 5)]
    assert_same_bits(*(values_and_gradients(function, arguments) for function in (compiled, selective_scan_2d)))
    values_and_gradients(compiled, [a + 0.1 for a in arguments])
    values_and_gradients(compiled, [a.float() for a in inputs_2d(2, 9, 11, 16, 5)])
    assert len(recorder.graphs) == 1, "new values or another image size must not compile again"
    assert sum("swin_umamba.scan" in str(node.target) for node in recorder.graphs[0].graph.nodes) == 1


def test_sum_that_overflows_float16_can_be_had_in_float32():
    arguments = small(torch.float16)
    arguments[5] = arguments[5] * 2e4
    assert not selective_scan_2d(*arguments).isfinite().all()
    wide = selective_scan_2d(*arguments, out_dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert wide.isfinite().all()
