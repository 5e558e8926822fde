"""Sum over directions, norm and gate in one operator with the scan: against float64, and SS2D with it and without.

Values run on CUDA where there is a device, else in Triton's interpreter (`test_in_the_interpreter` of `test_triton`).
Needs torch, triton, pytest.
"""

import logging

import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs
from torch.nn.functional import layer_norm, silu

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import BackendUnavailableError, _glue, _triton, fuses_glue, selective_scan_2d

pytest.importorskip("triton")

from swin_umamba_nnunet.ops import _triton_glue  # noqa: E402
from tests.messages import raises
from tests.ops.test_triton import (  # noqa: E402
    DEVICE,
    HERE,
    INTERPRETER,
    make_inputs,
    poisoned,  # noqa: F401  (a fixture)
    relative_error,
    values,
)

SWITCH = "SWIN_UMAMBA_FUSED_GLUE"
EPS = 1e-5
# of what is rounded once (the interpreter cuts bfloat16 off instead, which errs twice as much)
ROUNDING = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    monkeypatch.delenv("SWIN_UMAMBA_BACKEND", raising=False)
    monkeypatch.delenv(SWITCH, raising=False)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@pytest.fixture
def given(monkeypatch):
    """Instead of scanning (slow in the interpreter): what the directions are said to have put out."""
    outputs = []
    monkeypatch.setattr(_triton, "forward_parts", lambda *_: (outputs[-1], outputs[-1].new_empty(0)))
    return outputs


def glue(parts, gate, weight, bias, dtype, save=True):
    """The forward pass behind outputs that `given` holds already -> out, y, mean, rstd."""
    batch, directions, *size = parts.shape
    x, A = parts.new_empty(batch, *size, dtype=dtype), parts.new_empty(directions, size[-1], 1)
    return _triton_glue.forward(x, *[x] * 3, A, *[A] * 2, gate, weight, bias, EPS, True, save)[:4]


def check(given, sizes, gated, dtype=torch.float32, backward=True):
    """Output and gradients of the kernels against autograd in float64; sizes: batch, directions, H, W, D."""
    batch, _, height, width, channels = sizes
    parts, dout = random(*sizes, seed=0), random(batch, height, width, channels, seed=4, dtype=dtype)
    weight, bias = 1 + 0.5 * random(channels, seed=1), random(channels, seed=2)
    gate = random(batch, height, width, 2 * channels, seed=3, dtype=dtype)[..., channels:] if gated else None
    given.append(parts)

    y64, weight64, bias64 = exact = [t.double().requires_grad_() for t in (parts.double().sum(1), weight, bias)]
    expected = layer_norm(y64, (channels,), weight64, bias64, EPS)
    if gated:
        exact.append(gate.double().requires_grad_())
        expected = expected * silu(exact[-1])
    out, y, mean, rstd = glue(parts, gate, weight, bias, dtype)
    assert (out.dtype, out.shape, out.is_contiguous()) == (dtype, expected.shape, True)
    assert relative_error(out, expected.detach()) < ROUNDING[dtype]
    assert relative_error(y, y64.detach()) < 1e-6
    only, *nothing = glue(parts, gate, weight, bias, dtype, save=False)
    assert torch.equal(only, out)
    assert all(t.numel() == 0 for t in nothing)
    if not backward:
        return
    expected.backward(dout.double())
    dy, dgate, dweight, dbias = _triton_glue.backward(dout, y, mean, rstd, gate, weight, bias)
    assert relative_error(dy, y64.grad) < 5e-6
    assert relative_error(dweight, weight64.grad) < 5e-6
    assert relative_error(dbias, bias64.grad) < 5e-6
    assert (dgate.dtype, dgate.shape) == ((dtype, out.shape) if gated else (torch.float32, (0,)))
    if gated:
        assert relative_error(dgate, exact[3].grad) < ROUNDING[dtype]


TILINGS = [(2, 4, 2, 3 if channels < 100 else 1, channels) for channels in (3, 31, 32, 192, 1536)]
UNEVEN = [(*size, 40) for size in ((1, 1, 1, 1), (1, 4, 1, 7), (3, 2, 5, 1), (2, 4, 7, 3))]


@values
@pytest.mark.parametrize(
    ("sizes", "gated", "dtype"),
    [((2, 4, 3, 5, 40), gated, dtype) for gated in (True, False) for dtype in ROUNDING]
    + [(sizes, True, torch.float16) for sizes in TILINGS]
    + [(sizes, True, torch.float32) for sizes in UNEVEN],
)
def test_values_and_gradients(sizes, gated, dtype, given, poisoned):
    check(given, sizes, gated, dtype)


@values
def test_one_channel_is_its_bias(given, poisoned):
    """Whatever it holds, its normalised value is zero."""
    given.append(random(1, 4, 2, 3, 1))
    weight, bias, dout = (torch.full(shape, 3.0, device=DEVICE) for shape in ((1,), (1,), (1, 2, 3, 1)))
    out, y, mean, rstd = glue(given[0], None, weight, bias, torch.float32)
    assert torch.equal(out, torch.full_like(out, 3.0))
    dy, _, dweight, dbias = _triton_glue.backward(dout, y, mean, rstd, None, weight, bias)
    assert torch.equal(dy, torch.zeros_like(dy))
    assert (float(dweight), float(dbias)) == (0.0, 18.0)


@values
def test_programs_that_take_several_tiles(given, poisoned, monkeypatch):
    monkeypatch.setattr(_triton_glue, "WARPS", 2)
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    check(given, (2, 4, 5, 3, 40), True)  # 30 pixels in 8 tiles for two programs, the last tile half empty


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["norm_gate_kernel", "norm_gate_backward_kernel"])
def test_kernel(kernel, given, poisoned):
    """One after the other, the last stage of a batch of a training."""
    check(given, (12, 4, 10, 10, 1536), True, torch.float16, backward=kernel == "norm_gate_backward_kernel")


@pytest.mark.gpu
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(12, 4, 80, 80, 192), (2, 4, 37, 41, 96), (3, 4, 7, 9, 100)])
def test_sizes_of_networks(sizes, dtype, gated, given, poisoned):
    check(given, sizes, gated, dtype)


@values
@pytest.mark.parametrize("width", [1, 2])
def test_gate_of_any_layout(width, given):
    """torch calls one of a single column contiguous whatever the stride of the axis of length 1 is."""
    given.append(random(2, 4, 3, width, 5))
    weight, bias = random(5, seed=1), random(5, seed=2)
    dout, gate = (random(2, 3, width, 5, seed=seed) for seed in (3, 4))
    wide = torch.cat((gate, gate + 1), dim=-1)
    turned = gate.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
    assert width > 1 or turned.stride() == (15, 5, 15, 1)
    forms = (gate, wide.chunk(2, dim=-1)[0], gate.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), turned)
    assert _glue.rows_of(forms[1])[0] is forms[1]
    results = []
    for form in forms:
        out, *saved = glue(given[0], form, weight, bias, torch.float32)
        results.append((out, *_triton_glue.backward(dout, *saved, form, weight, bias)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@values
def test_gates_far_out(given):
    """silu and its slope neither overflow nor lose their limits."""
    given.append(random(1, 4, 1, 9, 4))
    norm, dout = [random(4, seed=1), random(4, seed=2)], random(1, 1, 9, 4, seed=4)
    gate = torch.linspace(-6e4, 6e4, 36, device=DEVICE).reshape(1, 1, 9, 4)
    gate[0, 0, 4] = torch.tensor([-30.0, -0.0, 1e-20, 30.0], device=DEVICE)
    out, y, mean, rstd = glue(given[0], gate, *norm, torch.float32)
    leaf = gate.double().requires_grad_()
    expected = layer_norm(y.double(), (4,), *(t.double() for t in norm), EPS) * silu(leaf)
    expected.backward(dout.double())
    torch.testing.assert_close(out.double(), expected.detach(), rtol=2e-5, atol=1e-10)
    dgate = _triton_glue.backward(dout, y, mean, rstd, gate, *norm)[1]
    torch.testing.assert_close(dgate.double(), leaf.grad, rtol=2e-5, atol=1e-10)


@values
def test_same_bits_every_time(given):
    sizes = (2, 4, 3, 3, 40) if INTERPRETER else (4, 4, 60, 60, 192)
    given.append(random(*sizes))
    batch, _, height, width, channels = sizes
    norm = [random(channels, seed=1), random(channels, seed=2)]
    gate, dout = (random(batch, height, width, channels, seed=seed) for seed in (3, 4))
    runs = []
    for _ in range(2):
        out, *saved = glue(given[0], gate, *norm, torch.float32)
        runs.append([out, *saved, *_triton_glue.backward(dout, *saved, gate, *norm)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@values
@pytest.mark.parametrize("gated", [True, False])
def test_registration(gated):
    """torch's own checks of schema, fake kernel and autograd registration."""
    scanned, dout = make_inputs(1, 2, 3, 8, 4, 2)
    norm = [random(8, seed=1), random(8, seed=2)]
    gate = random(1, 2, 3, 8, seed=3) if gated else None
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    factors = [random(4, 6, 3, seed=4), random(4, 8, 3, seed=5)]
    for save in (False, True):
        leaves = [None if t is None else t.clone().requires_grad_(save) for t in (*scanned, *factors, gate, *norm)]
        torch.library.opcheck(
            torch.ops.swin_umamba.scan_norm_gate.default, (*leaves, EPS, True, save), test_utils=tests
        )
    saved = (dout, random(1, 2, 3, 8), random(1, 2, 3), random(1, 2, 3).abs(), gate, *norm, "triton")
    torch.library.opcheck(torch.ops.swin_umamba.norm_gate_backward.default, saved, test_utils=tests[::2])


@values
def test_what_does_not_fit_is_said_plainly():
    block = make_block(True)
    core = (block.x_proj_weight, block.dt_projs_weight, block.dt_projs_bias, block.A_logs, block.Ds)
    x, weight, bias = random(1, 2, 3, 12), block.out_norm.weight, block.out_norm.bias
    fused = _glue.selective_scan_2d_norm_gate
    with raises(ValueError, "gate has shape (1, 2, 3, 11)"):
        fused(x, *core, weight, bias, x[..., 1:])
    with raises(ValueError, "norm_bias has shape (11,)"):
        fused(x, *core, weight, bias[1:])
    with raises(ValueError, "x is torch.float64"):
        fused(x.double(), *core, weight, bias)
    with raises(ValueError, "no empty axis"):
        fused(x[:, :0], *core, weight, bias)


# ---- SS2D


def make_block(gate, **settings):
    torch.manual_seed(0)
    block = SS2D(6, d_state=2, gate=gate, **settings).to(DEVICE)
    torch.nn.init.normal_(block.out_norm.weight)
    torch.nn.init.normal_(block.out_norm.bias)
    return block


def values_and_gradients(block, x, function=None):
    """Output and gradients of input and parameters, of the sum of squares."""
    x = x.detach().clone().requires_grad_()
    block.zero_grad()
    y = block(x) if function is None else function(x)
    y.float().square().sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in block.parameters())]


@pytest.fixture
def calls(monkeypatch):
    """What the fused operator was called with so far."""
    seen, forward = [], _triton_glue.forward
    monkeypatch.setattr(_triton_glue, "forward", lambda *given: (seen.append(given), forward(*given))[1])
    return seen


@values
@pytest.mark.parametrize("gate", [True, False])
def test_block_equals_the_reference_with_and_without(gate, calls, monkeypatch, poisoned):
    block, x = make_block(gate), random(1, 2, 3, 6)
    block.backend = "reference"
    expected = values_and_gradients(block, x)
    assert not calls
    block.backend = "triton"
    for switch, n_calls in (("0", 0), ("1", 1)):
        monkeypatch.setenv(SWITCH, switch)
        found = values_and_gradients(block, x)
        assert len(calls) == n_calls
        for f, e in zip(found, expected, strict=True):
            assert f.dtype == e.dtype
            assert relative_error(f, e.double()) < 1e-5
    if gate:
        assert calls[0][7].stride(2) == 24, "the gate was copied"
    with torch.no_grad():
        assert torch.equal(block(x), found[0])
    assert calls[1][-1] is False


@values
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("how", ["autocast", "half throughout"])
def test_block_in_half_precision(how, dtype, gate, calls, monkeypatch):
    block, x = make_block(gate, backend="reference"), random(1, 1, 2, 6)
    expected = values_and_gradients(block, x)
    block.backend = "triton"
    results = []
    for switch in ("0", "1"):
        monkeypatch.setenv(SWITCH, switch)
        if how == "autocast":
            with torch.autocast(DEVICE, dtype):
                results.append(values_and_gradients(block, x))
        else:
            results.append(values_and_gradients(block.to(dtype), x.to(dtype)))
    assert len(calls) == 1
    for plain, fused, exact in zip(*results, expected, strict=True):
        assert fused.dtype == plain.dtype
        error, error_of_plain = (relative_error(t, exact.double()) for t in (fused, plain))
        # gradients near float16's smallest number lose more
        assert error < max(4 * ROUNDING[dtype], 2 * error_of_plain)


@values
def test_large_sums_stay_finite_under_autocast(calls):
    """The squares of what the norm sees, and the sum itself, are far beyond float16's range."""
    block, x = make_block(True, backend="triton"), random(1, 1, 2, 6)
    with torch.no_grad():
        block.Ds.mul_(1e6)
    expected = block(x)
    with torch.autocast(DEVICE, torch.float16):
        found = block(x)
    assert calls[-1][0].dtype == torch.float16
    assert relative_error(found, expected.double()) < 0.005


@values
def test_blocks_that_are_not_fused(calls):
    x = random(1, 1, 2, 6)
    make_block(True, mixing="skip", backend="triton")(x)
    assert make_block(True, backend="triton").double()(x.double()).dtype == torch.float64
    make_block(True, backend="portable")(x)
    seen = []
    make_block(True, backend="triton", scan=lambda *a, **k: (seen.append(a), selective_scan_2d(*a, **k))[1])(x)
    assert len(seen) == 1, "a scan given instead of SS2D's own was not called"
    assert not calls


@values
def test_compiled_is_one_graph_and_equal(calls):
    torch.compiler.reset()
    block, recorder = make_block(True, backend="triton"), EagerAndRecordGraphs()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=recorder)
    for size in ((3, 3, 2, 6), (2, 2, 3, 6)):
        x = random(*size).requires_grad_()
        assert torch.equal(compiled(x), block(x))
    found = values_and_gradients(block, x, compiled)
    assert all(torch.equal(f, e) for f, e in zip(found, values_and_gradients(block, x), strict=True))
    assert len(recorder.graphs) == 1, "another image size must not compile again"
    assert sum("scan_norm_gate" in str(node.target) for node in recorder.graphs[0].graph.nodes) == 1


@values
@pytest.mark.parametrize("gate", [True, False])
def test_compiled_ahead_of_time_with_backward(gate):
    torch.compiler.reset()
    block, x = make_block(gate, backend="triton"), random(1, 1, 2, 6)
    found = values_and_gradients(block, x, torch.compile(block, fullgraph=True, backend="aot_eager"))
    for f, e in zip(found, values_and_gradients(block, x), strict=True):
        torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-6)


@values
def test_switch(monkeypatch, caplog):
    assert fuses_glue("triton", DEVICE)
    assert not fuses_glue("portable", DEVICE)
    monkeypatch.setenv(SWITCH, "0")
    _glue._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger=_glue.logger.name):
        assert not any(fuses_glue("triton", DEVICE) for _ in range(2))
    assert [SWITCH in message for message in caplog.messages] == [True]
    monkeypatch.setenv(SWITCH, "maybe")
    with raises(ValueError, f"{SWITCH} is 'maybe'; set it to 1 or 0"):
        fuses_glue("triton", DEVICE)


@pytest.mark.skipif(HERE, reason="Triton can run here")
def test_where_triton_cannot_run():
    assert not fuses_glue("reference", "cpu")
    with raises(BackendUnavailableError, "triton"):
        fuses_glue("triton", "cpu")
