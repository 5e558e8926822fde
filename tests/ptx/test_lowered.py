"""The machine-level code of the Triton kernels, run on a CPU: layouts, shuffles, vectors, masks and barriers."""

import contextlib
import os
import re

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled in Triton's interpreter", allow_module_level=True)
if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 6):
    pytest.skip(f"Triton {triton.__version__} is launched in another way", allow_module_level=True)

from torch.nn.functional import layer_norm, silu  # noqa: E402

from swin_umamba_nnunet.ops import _scan, _triton, _triton_glue  # noqa: E402
from tests.ops.cases import relative_error  # noqa: E402
from tests.ptx.interpreter import PtxError  # noqa: E402
from tests.ptx.launch import Launcher  # noqa: E402


def scan(monkeypatch, sizes, dtype=torch.float32, chunk_windows=1):
    """All scan kernels on (batch, H, W, D, K, N) against the float64 reference, on the same numbers."""
    batch, height, width, channels, directions, states = sizes
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    rows = (batch, height, width)
    sequences = [
        draw(*rows, channels),
        draw(directions, *rows, channels),
        *(draw(*rows, directions, states) for _ in "BC"),
    ]
    inputs = [t.to(dtype) for t in sequences] + [
        -torch.exp(draw(directions, channels, states)),
        draw(directions, channels),
        draw(directions, channels) - 1,
    ]
    dy = draw(*rows, channels)
    monkeypatch.setattr(_triton, "_chunks", lambda windows, *_, **__: (-(-windows // chunk_windows), chunk_windows))
    exact = [t.double().requires_grad_() for t in inputs]
    expected = _scan.scan(*exact, True, "reference")
    expected.backward(dy.double())
    y, saved = _triton.forward(*inputs, True, True)
    found = [y, *_triton.backward(dy, *inputs, saved, True)]
    for value, reference in zip(found, [expected.detach(), *(t.grad for t in exact)], strict=True):
        # what leaves in half precision is rounded once
        assert relative_error(value.double(), reference) < max(1e-5, torch.finfo(value.dtype).eps / 2)


@pytest.mark.parametrize(
    ("capability", "dtype", "sizes"),
    [(80, torch.float16, (1, 5, 13, 33, 1, 20)), (90, torch.float32, (1, 5, 13, 3, 4, 3))],  # two warps, and one
)
def test_scan(monkeypatch, capability, dtype, sizes):
    """Two chunks, the last one short; odd sides, channels that fill no block, states below their power of two."""
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    for name in [name for name in vars(_triton) if "PROGRAMS" in name or name.endswith("_WARPS")]:
        monkeypatch.setattr(_triton, name, 1)
    launcher = Launcher(monkeypatch, capability)
    scan(monkeypatch, sizes, dtype)
    assert [name for name, _, _ in launcher.runs] == [
        "state_kernel",
        "forward_kernel",
        "adjoint_kernel",
        "backward_kernel",
    ]
    assert launcher.runs[-1][1] == 1  # for four items, and for eight
    assert launcher.runs[-1][2]["fma.rn.f32"] > 1000


@pytest.mark.parametrize(("capability", "channels", "warps"), [(80, 40, 1), (90, 576, 4)])
def test_norm_and_gate(monkeypatch, capability, channels, warps):
    """A pixel in one warp, and in several; programs that go round more than once."""
    launcher = Launcher(monkeypatch, capability)
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=random)  # noqa: E731
    parts, dout, gate = draw(1, 4, 3, 5, channels), draw(1, 3, 5, channels), draw(1, 3, 5, 2 * channels)
    gate, weight, bias = gate[..., channels:], draw(channels), draw(channels)
    exact = [t.double().requires_grad_() for t in (parts.sum(1), gate, weight, bias)]
    expected = layer_norm(exact[0], (channels,), *exact[2:], 1e-5) * silu(exact[1])
    expected.backward(dout.double())
    monkeypatch.setattr(_triton, "forward_parts", lambda *_: (parts, torch.empty(0)))
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    monkeypatch.setattr(_triton_glue, "WARPS", 2 * warps)
    x = torch.empty(1, 3, 5, channels)
    A = torch.empty(4, channels, 1)
    out, y, mean, rstd, _ = _triton_glue.forward(x, x, x, x, A, A, A, gate, weight, bias, 1e-5, True, True)
    found = [out, *_triton_glue.backward(dout, y, mean, rstd, gate, weight, bias)]
    for value, reference in zip(found, [expected.detach(), *(t.grad for t in exact)], strict=True):
        assert relative_error(value.double(), reference) < 1e-5
    assert launcher.runs[-1][1] == 2
    assert launcher.runs[-1][2]["ret"] == 2 * warps


FAULTS = {
    "none": ("$^", "", None),
    "barrier": (r"\tbar\.(warp\.)?sync[^;]*;", "", "without a barrier"),
    "last column": (r"setp\.lt\.s32(.*), (%r\d+);", r"setp.le.s32\1, \2;", "out of bounds"),
    "odd offset": (r"(ld\.global\.b32 \{ %r\d+ \}, \[ %rd\d+ \+) 0", r"\1 2", "no multiple"),
    "accumulator": (r"mov\.b32 \t%r\d+, 0f00000000;", "", "nobody wrote"),
    "instruction": (r"ex2\.approx\.ftz\.f32", "tanh.approx.f32", "unknown instruction tanh.approx.f32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(monkeypatch, fault):
    pattern, replacement, message = FAULTS[fault]
    Launcher(monkeypatch, 90, lambda ptx: re.sub(pattern, replacement, ptx))
    with pytest.raises(PtxError, match=message) if message else contextlib.nullcontext():
        scan(monkeypatch, (1, 1, 3, 3, 1, 3))
