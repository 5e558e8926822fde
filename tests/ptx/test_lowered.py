"""The machine-level code of the Triton kernels, run on a CPU: layouts, shuffles, vectors, masks and barriers."""

import contextlib
import importlib.util
import os
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled in Triton's interpreter", allow_module_level=True)
if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 6):
    pytest.skip(f"Triton {triton.__version__} is launched in another way", allow_module_level=True)

from torch.nn.functional import layer_norm, silu  # noqa: E402

from swin_umamba_nnunet import ops  # noqa: E402
from swin_umamba_nnunet.ops import _scan, _triton, _triton_glue, _triton_kernels  # noqa: E402
from tests.ops.cases import relative_error  # noqa: E402
from tests.ptx.interpreter import PtxError  # noqa: E402
from tests.ptx.launch import Launcher  # noqa: E402


def agree(found, expected):
    for value, reference in zip(found, expected, strict=True):
        # what leaves in half precision is rounded once
        assert relative_error(value.double(), reference) < max(1e-5, torch.finfo(value.dtype).eps / 2)


def scan(monkeypatch, sizes, dtype=torch.float32, softplus=True):
    """All scan kernels on (batch, H, W, D, K, N), a window to a chunk, against the float64 reference, same numbers."""
    batch, height, width, channels, directions, states = sizes
    torch.manual_seed(0)
    rows = (batch, height, width)
    sequences = [
        torch.randn(*rows, channels),
        torch.randn(directions, *rows, channels),
        *(torch.randn(*rows, directions, states) for _ in "BC"),
    ]
    inputs = [t.to(dtype) for t in sequences] + [
        -torch.exp(torch.randn(directions, channels, states)),
        torch.randn(directions, channels),
        torch.randn(directions, channels) - 1,
    ]
    if not softplus:
        inputs[1], inputs[6] = inputs[1].abs() / 4, inputs[6].abs() / 8
    dy = torch.randn(*rows, channels)
    monkeypatch.setattr(_triton, "_chunks", lambda windows, *_, **__: (windows, 1))
    exact = [t.double().requires_grad_() for t in inputs]
    expected = _scan.scan(*exact, softplus, "reference")
    expected.backward(dy.double())
    y, saved = _triton.forward(*inputs, softplus, True)
    agree([y, *_triton.backward(dy, *inputs, saved, softplus)], [expected.detach(), *(t.grad for t in exact)])


@pytest.mark.parametrize(
    ("capability", "dtype", "softplus", "sizes"),
    [
        (80, torch.float16, True, (1, 5, 13, 33, 1, 20)),  # two warps, two blocks, masks; full vectors in what follows
        (90, torch.bfloat16, False, (1, 5, 13, 32, 2, 16)),
        (90, torch.float32, True, (1, 9, 15, 3, 4, 1)),
    ],
)
def test_scan(monkeypatch, capability, dtype, softplus, sizes):
    """Chunks, the last one short; odd sides, channels that fill no block or one, states below their power of two."""
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    for name in ("FORWARD_WARPS", "BACKWARD_WARPS"):
        monkeypatch.setattr(_triton, name, 1)
    launcher = Launcher(monkeypatch, capability)
    scan(monkeypatch, sizes, dtype, softplus)
    assert [name for name, _, _ in launcher.runs] == [
        "state_kernel",
        "forward_kernel",
        "adjoint_kernel",
        "backward_kernel",
    ]
    assert launcher.runs[-1][1] == 1 + (sizes[-1] == 1)  # programs for four items, four, and twelve
    assert launcher.runs[-1][2]["fma.rn.f32"] > 1000


@pytest.mark.parametrize(
    ("capability", "channels", "warps", "gated", "dtype"),
    [(80, 40, 1, True, torch.float16), (90, 576, 4, True, torch.float32), (90, 40, 1, False, torch.bfloat16)],
)
def test_norm_and_gate(monkeypatch, capability, channels, warps, gated, dtype):
    """A pixel in one warp, and in several; programs that go round more than once."""
    launcher = Launcher(monkeypatch, capability)
    torch.manual_seed(0)
    rows = (1, 3, 5)
    parts, dout = torch.randn(1, 4, *rows[1:], channels), torch.randn(*rows, channels).to(dtype)
    gate, weight, bias = torch.randn(*rows, 2 * channels).to(dtype), torch.randn(channels), torch.randn(channels)
    gate = gate[..., channels:] if gated else None
    leaves = [parts.sum(1), gate, weight, bias] if gated else [parts.sum(1), weight, bias]
    exact = [t.double().requires_grad_() for t in leaves]
    expected = layer_norm(exact[0], (channels,), *exact[-2:], 1e-5) * (silu(exact[1]) if gated else 1)
    expected.backward(dout.double())
    monkeypatch.setattr(_triton, "forward_parts", lambda *_: (parts, torch.empty(0)))
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    monkeypatch.setattr(_triton_glue, "WARPS", 2 * warps)
    x = torch.empty(*rows, channels, dtype=dtype)
    A = torch.empty(4, channels, 1)
    out, y, mean, rstd, _ = _triton_glue.forward(x, x, x, x, A, A, A, gate, weight, bias, 1e-5, True, True)
    found = [t for t in _triton_glue.backward(dout, y, mean, rstd, gate, weight, bias) if t.numel()]
    agree([out, *found], [expected.detach(), *(t.grad for t in exact)])
    assert launcher.runs[-1][1] == 2
    assert launcher.runs[-1][2]["ret"] == 2 * warps


# fault: (edits of the kernels' source, sizes, what the interpreter says)
SHUFFLED = ("tl.store(slot + group * (BD * NP), h)", "tl.store(slot + group * (BD * NP) + tl.minimum(D, 0), h)")
FAULTS = {
    # an offset of unknown alignment is stored one by one, so that other threads load what one stored.  As the kernel is
    # they are the same, and leaving the barrier out harms nothing yet
    "none": ([SHUFFLED], (1, 1, 7, 3, 1, 4), None),
    "barrier": (
        [SHUFFLED, ("tl.debug_barrier()  # what one thread stored another may load", "")],
        (1, 1, 7, 3, 1, 4),
        "without a barrier",
    ),
    "last column": (
        [("(s % H) * W + s // H, s)", "(s % H) * W + s // H + 1, s)")],
        (1, 2, 3, 3, 2, 3),
        "out of bounds",
    ),
    "odd offset": (
        [("(base + pos.to(tl.int64) * width)", "(base + tl.multiple_of(pos.to(tl.int64) * width + 1, 16))")],
        (1, 1, 7, 3, 1, 4),
        "no multiple",
    ),
    "accumulator": (
        [("dA = tl.zeros((BD, NP), dtype=tl.float32)", "dA = tl.load(dA_ptr + k * D * N + tile, mask=tile_ok)")],
        (1, 1, 7, 3, 1, 4),
        "nobody wrote",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_planted_in_the_source_are_found(monkeypatch, tmp_path, fault):
    edits, sizes, message = FAULTS[fault]
    source = Path(_triton_kernels.__file__).read_text()
    for old, new in edits:
        assert source.count(old) == 1
        source = source.replace(old, new)
    (tmp_path / "kernels.py").write_text(source)
    spec = importlib.util.spec_from_file_location(f"kernels_{id(edits)}", tmp_path / "kernels.py")
    spec.loader.exec_module(kernels := importlib.util.module_from_spec(spec))
    monkeypatch.setattr(ops, "_triton_kernels", kernels)
    Launcher(monkeypatch, 90)
    with pytest.raises(PtxError, match=message) if message else contextlib.nullcontext():
        scan(monkeypatch, sizes)


def test_an_unknown_instruction_is_named(monkeypatch):
    Launcher(monkeypatch, 90, lambda ptx: ptx.replace("ex2.approx.ftz.f32", "tanh.approx.f32"))
    with pytest.raises(PtxError, match=r"unknown instruction tanh\.approx\.f32"):
        scan(monkeypatch, (1, 1, 3, 3, 1, 1))
