"""The wrappers' own launches, compiled by Triton's JIT for a GPU that is not there, run in `interpreter`."""

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from swin_umamba_nnunet.ops import _triton
from tests.ptx.interpreter import Machine, Memory


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
