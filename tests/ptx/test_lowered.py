"""The machine-level code of the Triton kernels, run on a CPU: layouts, shuffles, vectors, masks and barriers.

The wrappers' own launches are compiled by Triton's JIT for a GPU that is not there, and run in `interpreter`.
"""

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

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from swin_umamba_nnunet import ops  # noqa: E402
from swin_umamba_nnunet.ops import _triton, _triton_glue, _triton_kernels  # noqa: E402
from tests.ops.cases import assert_keeps_contract, inputs_core  # noqa: E402
from tests.ops.test_glue import check as check_glue  # noqa: E402
from tests.ptx.interpreter import Machine, Memory, PtxError  # noqa: E402


class _Driver:
    def __init__(self, capability):
        self.capability = capability

    def get_current_device(self):
        return self.capability  # kernels are cached by device

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)


class Launcher:
    """While installed, a launch runs on the CPU; `edit` (of the PTX text) plants a fault."""

    def __init__(self, monkeypatch, capability, edit=lambda ptx: ptx):
        self.memory, self.edit, self.runs = Memory(), edit, []
        active = type(driver)
        monkeypatch.setattr(active, "active", property(lambda _: _Driver(capability)))
        monkeypatch.setattr(JITFunction, "__getitem__", lambda kernel, grid: lambda *a, **k: self(kernel, grid, a, k))
        monkeypatch.setattr(_triton, "_empty", self.empty)

    def empty(self, like, *shape, dtype=torch.float32):
        tensor = torch.full(shape, float("nan"), dtype=dtype)
        self.memory.tensor(tensor, unwritten=True)
        return tensor

    def __call__(self, kernel, grid, arguments, constants):
        compiled = kernel.run(*arguments, grid=grid, warmup=True, **constants)
        passed = {**dict(zip(kernel.arg_names, arguments, strict=False)), **constants}
        names = [name for name, kind in compiled.src.signature.items() if kind != "constexpr"]
        values = [self.memory.tensor(v) if isinstance(v, torch.Tensor) else v for v in map(passed.get, names)]
        ptx, meta = self.edit(compiled.asm["ptx"]), compiled.metadata
        machine = Machine(ptx, meta.num_warps, meta.shared, self.memory)
        machine.run(grid[0], values)
        self.runs.append((kernel.__name__, grid[0], machine.counts))


def scan(monkeypatch, sizes, dtype=torch.float32, softplus=True):
    """All scan kernels on (batch, H, W, D, K, N), a window to a chunk, against the float64 reference, same numbers."""
    monkeypatch.setattr(_triton, "_chunks", lambda windows, *_, **__: (windows, 1))
    assert_keeps_contract(_triton, inputs_core(*sizes, dtype=dtype, softplus=softplus), softplus)


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
    kernels = [f"{name}_kernel" for name in ("state", "forward", "state", "forward", "adjoint", "backward")]
    assert [name for name, _, _ in launcher.runs] == kernels  # forward without a gradient, then with
    assert launcher.runs[-1][1] == 1 + (sizes[-1] == 1)  # programs for four items, four, and twelve
    assert launcher.runs[-1][2]["fma.rn.f32"] > 1000


@pytest.mark.parametrize(
    ("capability", "channels", "warps", "gated", "dtype"),
    [(80, 40, 1, True, torch.float16), (90, 576, 4, True, torch.float32), (90, 40, 1, False, torch.bfloat16)],
)
def test_norm_and_gate(monkeypatch, capability, channels, warps, gated, dtype):
    """A pixel in one warp, and in several; programs that go round more than once."""
    launcher = Launcher(monkeypatch, capability)
    monkeypatch.setattr(_triton, "_multiprocessors", lambda device: 1)
    monkeypatch.setattr(_triton_glue, "WARPS", 2 * warps)
    check_glue("triton", (1, 4, 3, 5, channels), gated, dtype, device="cpu")
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
