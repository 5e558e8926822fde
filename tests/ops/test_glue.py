"""Sum over directions, norm and gate in one operator with the scan: against float64, and SS2D with it and without.

Triton's values run on CUDA where there is a device, else in its interpreter (`test_in_the_interpreter` of
`test_triton`).  Those need torch, triton, pytest.
"""

import importlib
import logging

import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs
from torch.nn.functional import layer_norm, silu

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import BackendUnavailableError, _glue, _triton, _triton_glue, fuses_glue, selective_scan_2d
from tests.messages import raises
from tests.ops.cases import (
    DEVICE,
    INTERPRETER,
    assert_registered,
    assert_same_bits,
    cotangent,
    inputs_2d,
    inputs_core,
    normal,
    relative_error,
    values,
    values_and_gradients,
)

SWITCH = _glue.ENVIRONMENT_VARIABLE
EPS = 1e-5
# of what is rounded once (the interpreter cuts bfloat16 off instead, which errs twice as much)
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}
DEVICES = {"triton": DEVICE, "numba": "cpu"}
gate_or_none = pytest.mark.parametrize("gate", [True, False])


@pytest.fixture(params=[pytest.param("triton", marks=values), "numba"])
def backend(request):
    return request.param


def plain(y, weight, bias, gate=None):
    expected = layer_norm(y, weight.shape, weight, bias, EPS)
    return expected if gate is None else expected * silu(gate)


def forward(backend, parts, weight, bias, gate, dtype=torch.float32, save=True):
    """The operator with what directions are said to have put out (to scan is slow in an interpreter)."""
    batch, directions, *size = parts.shape
    x, A, states = parts.new_empty(batch, *size, dtype=dtype), parts.new_empty(directions, size[-1], 1), torch.empty(0)
    with pytest.MonkeyPatch.context() as patched:
        if backend == "triton":
            patched.setattr(_triton, "forward_parts", lambda *_: (parts, states))
            return _triton_glue.forward(x, *[x] * 3, A, *[A] * 2, gate, weight, bias, EPS, True, save)[:4]
        scan = importlib.import_module("swin_umamba_nnunet.ops._numba")
        patched.setattr(scan, "forward_2d", lambda *_: (parts.sum(1), states))
        return torch.ops.swin_umamba.scan_2d_norm_gate(*[x] * 6, gate, weight, bias, EPS, save)[:4]


def make(sizes, gated=True, dtype=torch.float32, device="cpu"):
    """parts, weight, bias and a gate that is half of a wider projection, of (batch, directions, H, W, D)."""
    random, (batch, _, *size, channels) = normal(torch.float32), sizes
    parts, weight, bias = 1 + 2 * random(*sizes), random(channels), random(channels)
    gate = 4 * random(batch, *size, 2 * channels).to(device, dtype) if gated else None
    return [*(t.to(device) for t in (parts, weight, bias)), gate[..., channels:] if gated else None]


def check(backend, sizes, gated, dtype=torch.float32, backward=True, device=None):
    """Output and gradients of the kernels against autograd in float64."""
    parts, *norm, gate = given = make(sizes, gated, dtype, device or DEVICES[backend])
    exact = [t.double() for t in (parts.double().sum(1), *norm)] + ([gate.double()] if gated else [])
    expected, *gradients = values_and_gradients(plain, exact)
    only, *nothing = forward(backend, *given, dtype, save=False)
    out, y, *moments = forward(backend, *given, dtype)
    assert (out.dtype, out.shape, out.is_contiguous()) == (dtype, expected.shape, True)
    assert relative_error(out, expected) < ROUNDING[dtype]
    assert relative_error(y, exact[0].cpu()) < 1e-6
    assert torch.equal(only, out)
    assert all(t.numel() == 0 for t in nothing)
    if not backward:
        return
    dy, dgate, *dnorm = _glue._backward(cotangent(out), y, *moments, gate, *norm, backend)
    for found, wanted in zip((dy, *dnorm), gradients, strict=False):
        assert relative_error(found, wanted) < 5e-6
    assert (dgate.dtype, dgate.shape) == ((dtype, out.shape) if gated else (torch.float32, (0,)))
    if gated:
        assert relative_error(dgate, gradients[3]) < ROUNDING[dtype]


TILINGS = [(2, 4, 2, 3 if channels < 100 else 1, channels) for channels in (3, 31, 32, 192, 1536)]
UNEVEN = [(*size, 40) for size in ((1, 1, 1, 1), (1, 4, 1, 7), (3, 2, 5, 1), (2, 4, 7, 3))]


@values
@pytest.mark.parametrize(
    ("sizes", "gated", "dtype"),
    [((2, 4, 3, 5, 40), gated, dtype) for gated in (True, False) for dtype in ROUNDING]
    + [(sizes, True, torch.float16) for sizes in TILINGS]
    + [(sizes, True, torch.float32) for sizes in UNEVEN],
)
def test_values_and_gradients(sizes, gated, dtype, poisoned):
    check("triton", sizes, gated, dtype)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 16), (2, 1, 7, 5, 48), (1, 1, 16, 9, 192), (3, 1, 2, 2, 768)], ids=str)
def test_values_and_gradients_on_a_cpu(sizes, dtype, gated):
    check("numba", sizes, gated, dtype)


@values
def test_one_channel_is_its_bias(poisoned):
    """Whatever it holds, its normalised value is zero."""
    parts = normal(torch.float32)(1, 4, 2, 3, 1).to(DEVICE)
    weight, bias, dout = (torch.full(shape, 3.0, device=DEVICE) for shape in ((1,), (1,), (1, 2, 3, 1)))
    out, *saved = forward("triton", parts, weight, bias, None)
    assert torch.equal(out, torch.full_like(out, 3.0))
    dy, _, dweight, dbias = _triton_glue.backward(dout, *saved, None, weight, bias)
    assert torch.equal(dy, torch.zeros_like(dy))
    assert (float(dweight), float(dbias)) == (0.0, 18.0)


@values
def test_programs_that_take_several_tiles(poisoned, monkeypatch):
    monkeypatch.setattr(_triton_glue, "WARPS", 2)
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    check("triton", (2, 4, 5, 3, 40), True)  # 30 pixels in 8 tiles for two programs, the last tile half empty


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["norm_gate_kernel", "norm_gate_backward_kernel"])
def test_kernel(kernel, poisoned):
    """One after the other, the last stage of a batch of a training."""
    check("triton", (12, 4, 10, 10, 1536), True, torch.float16, backward=kernel == "norm_gate_backward_kernel")


@pytest.mark.gpu
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("sizes", [(12, 4, 80, 80, 192), (2, 4, 37, 41, 96), (3, 4, 7, 9, 100)])
def test_sizes_of_networks(sizes, dtype, gated, poisoned):
    check("triton", sizes, gated, dtype)


@pytest.mark.parametrize("width", [1, 2])
def test_gate_of_any_layout(width, backend):
    """torch calls one of a single column contiguous whatever the stride of the axis of length 1 is."""
    parts, *norm, wide = make((2, 4, 3, width, 16), device=DEVICES[backend])
    gate = wide.contiguous()
    turned = gate.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
    assert width > 1 or turned.stride() == (48, 16, 48, 1)
    forms = (gate, wide, gate.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), turned)
    assert _glue.rows_of(wide)[0] is wide
    results = []
    for form in forms:
        out, *saved = forward(backend, parts, *norm, form)
        results.append((out, *_glue._backward(cotangent(out), *saved, form, *norm, backend)))
    assert_same_bits(*results)


def test_gates_far_out_and_a_constant_row(backend):
    """silu and its slope neither overflow nor lose their limits; a variance of zero is divided by sqrt(eps)."""
    parts, *norm, _ = make((1, 4, 1, 9, 16), device=DEVICES[backend])
    parts[:, :, 0, 0] = 7.0
    gate = torch.linspace(-6e4, 6e4, 144, device=parts.device).reshape(1, 1, 9, 16)
    gate[0, 0, 4, :4] = torch.tensor([-30.0, -0.0, 1e-20, 30.0], device=parts.device)
    out, *saved = forward(backend, parts, *norm, gate)
    exact = [t.double() for t in (saved[0], *norm, gate)]
    expected, exact_dy, *_, exact_dgate = values_and_gradients(plain, exact)
    dy, dgate, *_ = _glue._backward(cotangent(out), *saved, gate, *norm, backend)
    torch.testing.assert_close(out.to(expected), expected, rtol=5e-5, atol=1e-10)
    torch.testing.assert_close(dgate.to(expected), exact_dgate, rtol=5e-5, atol=1e-10)
    assert relative_error(dy, exact_dy) < 5e-5


def test_same_bits_every_time_at_any_number_of_threads(backend, set_threads):
    parts, *norm, gate = make((2, 4, 3, 3, 48) if INTERPRETER else (4, 4, 60, 60, 192), device=DEVICES[backend])
    runs = []
    for count in (1, 2, 5):
        set_threads(count)
        out, *saved = forward(backend, parts, *norm, gate)
        runs.append([out, *saved, *_glue._backward(cotangent(out), *saved, gate, *norm, backend)])
    assert_same_bits(*runs)


@pytest.mark.parametrize("gated", [True, False])
def test_registration(gated, backend):
    x, *others = (t.to(DEVICES[backend]) for t in inputs_core(1, 2, 3, 16, 4, 2))
    _, *norm, gate = make((1, 1, 2, 3, 16), gated, device=x.device)
    norm_gate, random = (None if gate is None else gate.clone(), *norm), normal(torch.float32)
    if backend == "triton":
        scanned = x, *others, random(4, 6, 3).to(x), random(4, 16, 3).to(x)
        assert_registered("scan_norm_gate", (*scanned, *norm_gate), lambda save: (EPS, True, save))
    else:
        _, _, *parameters = (t.float() for t in inputs_2d(1, 2, 3, 16, 2))
        scanned = x, random(1, 2, 3, 28), *parameters
        assert_registered("scan_2d_norm_gate", (*scanned, *norm_gate), lambda save: (EPS, save))
    moments = x[..., 0].clone(), x[..., 1].abs()
    assert_registered("norm_gate_backward", (x, x, *moments, *norm_gate), lambda save: (backend,))


def test_what_does_not_fit_is_said_plainly():
    block = make_block("numba")
    core = (block.x_proj_weight, block.dt_projs_weight, block.dt_projs_bias, block.A_logs, block.Ds)
    x, weight, bias = torch.ones(1, 2, 3, 16), block.out_norm.weight, block.out_norm.bias
    fused = _glue.selective_scan_2d_norm_gate
    with raises(ValueError, "gate has shape (1, 2, 3, 15)"):
        fused(x, *core, weight, bias, x[..., 1:])
    with raises(ValueError, "norm_bias has shape (15,)"):
        fused(x, *core, weight, bias[1:])
    with raises(ValueError, "x is torch.float64"):
        fused(x.double(), *core, weight, bias)
    with raises(ValueError, "no empty axis"):
        fused(x[:, :0], *core, weight, bias)


# ---- SS2D


def make_block(backend, gate=True, width=8, **settings):
    torch.manual_seed(0)
    block = SS2D(width, d_state=2, gate=gate, backend=backend, **settings).to(DEVICES.get(backend, "cpu"))
    torch.nn.init.normal_(block.out_norm.weight)
    torch.nn.init.normal_(block.out_norm.bias)
    return block


def image(block, height=2, width=3):
    weight = block.out_norm.weight
    return normal(torch.float32)(1, height, width, len(weight) // 2).to(weight)


def run(block, x):
    """Output and gradients of input and parameters, of the sum of squares."""
    x = x.detach().clone().requires_grad_()
    block.zero_grad()
    y = block(x)
    y.float().square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in block.parameters())]


@pytest.fixture
def calls(backend, monkeypatch):
    """What the fused operator was called with so far."""
    kernels, seen = importlib.import_module(f"swin_umamba_nnunet.ops._{backend}_glue"), []
    forward = kernels.forward
    monkeypatch.setattr(kernels, "forward", lambda *given: (seen.append(given), forward(*given))[1])
    return seen


@gate_or_none
def test_block_equals_the_reference_with_and_without(gate, backend, calls, monkeypatch, poisoned):
    block = make_block(backend, gate)
    x = image(block)
    block.backend = "reference"
    expected = run(block, x)
    assert not calls
    block.backend = backend
    for switch, n_calls in (("0", 0), ("1", 1)):
        monkeypatch.setenv(SWITCH, switch)
        found = run(block, x)
        assert len(calls) == n_calls
        for f, e in zip(found, expected, strict=True):
            assert f.dtype == e.dtype
            assert relative_error(f, e.double()) < 1e-5
    if gate:
        assert calls[0][7 if backend == "triton" else 1].stride(2) == 32, "the gate was copied"
    with torch.no_grad():
        assert torch.equal(block(x), found[0])
    assert calls[1][-1] is False


@gate_or_none
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["autocast", "half throughout"])
def test_block_in_half_precision(how, dtype, gate, backend, calls, monkeypatch):
    """The product with the gate is rounded once in the fused operator, in torch's own operations twice."""
    block = make_block(backend, gate)
    x, block.backend = image(block, 1, 2), "reference"
    expected = run(block, x)
    block.backend = backend
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        if how == "autocast":
            with torch.autocast(x.device.type, dtype):
                results.append(run(block, x))
        else:
            results.append(run(block.to(dtype), x.to(dtype)))
    assert len(calls) == 1
    for unfused, fused, exact in zip(*results, expected, strict=True):
        assert fused.dtype == unfused.dtype
        error, error_of_unfused = (relative_error(t, exact.double()) for t in (fused, unfused))
        # gradients near float16's smallest number lose more
        assert error < max(4 * ROUNDING[dtype], 2 * error_of_unfused)


def test_large_sums_stay_finite_under_autocast(backend):
    """The squares of what the norm sees, and the sum itself, are far beyond float16's range."""
    block = make_block(backend)
    x = image(block)
    with torch.no_grad():
        block.Ds.mul_(1e6)
    expected = block(x)
    with torch.autocast(x.device.type, torch.float16):
        assert relative_error(block(x), expected.double()) < 0.005


def test_blocks_that_are_not_fused(backend, calls):
    seen = []

    def own_scan(*given, **settings):
        seen.append(given)
        return selective_scan_2d(*given, **settings)

    for settings in ({"mixing": "skip"}, {"scan": own_scan}, *[{"width": 6}] * (backend == "numba")):
        block = make_block(backend, **settings)
        assert block(x := image(block)).shape == x.shape
    assert len(seen) == 1, "a scan given instead of SS2D's own was not called"
    block = make_block(backend).double()
    assert block(image(block)).dtype == torch.float64
    block.float().backend = "portable"
    block(image(block))
    assert not calls


def test_compiled_is_one_graph_and_equal(backend):
    torch.compiler.reset()
    block, recorder = make_block(backend), EagerAndRecordGraphs()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=recorder)
    for size in ((3, 2), (2, 3)):
        x = image(block, *size).requires_grad_()
        assert torch.equal(compiled(x), block(x))
    assert_same_bits(run(compiled, x), run(block, x))
    assert len(recorder.graphs) == 1, "another image size must not compile again"
    assert sum("norm_gate" in str(node.target) for node in recorder.graphs[0].graph.nodes) == 1


@gate_or_none
def test_compiled_ahead_of_time_with_backward(gate, backend):
    torch.compiler.reset()
    block = make_block(backend, gate)
    x = image(block, 1, 2)
    found = run(torch.compile(block, fullgraph=True, backend="aot_eager"), x)
    for f, e in zip(found, run(block, x), strict=True):
        torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6)


def test_switch(backend, monkeypatch, caplog):
    device = DEVICES[backend]
    assert fuses_glue(backend, device)
    assert not fuses_glue("portable", device)
    assert backend == "triton" or not fuses_glue("numba", "cpu", 40)  # only whole vectors
    assert backend == "triton" or not fuses_glue("numba", "mps")  # and only on a CPU
    monkeypatch.setenv(SWITCH, "0")
    _glue._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger=_glue.logger.name):
        assert not any(fuses_glue(backend, device) for _ in range(2))
    assert [SWITCH in message for message in caplog.messages] == [True]
    monkeypatch.setenv(SWITCH, "maybe")
    with raises(ValueError, f"{SWITCH} is 'maybe'; set it to 1 or 0"):
        fuses_glue(backend, device)


@pytest.mark.skipif(INTERPRETER or torch.cuda.is_available(), reason="Triton can run here")
def test_where_triton_cannot_run():
    with raises(BackendUnavailableError, "triton"):
        fuses_glue("triton", "cpu")


def test_where_the_compiler_gives_up():
    """The operator is met outside of a graph then, and Dynamo would trace what it calls."""
    _, *norm, gate = make((1, 1, 6, 5, 32))
    x, projection, *others = (t.float() for t in inputs_2d(1, 6, 5, 32, 3))
    given = [x, x @ projection.flatten(0, 1).T, *others, gate, *norm]

    def call(*given):
        try:
            torch._dynamo.graph_break()
            return torch.ops.swin_umamba.scan_2d_norm_gate(*given, 0.1, False)[0]
        finally:
            pass

    for found in [torch.compile(call, backend="eager")(*given) for _ in range(2)]:
        assert torch.equal(found, call(*given))
