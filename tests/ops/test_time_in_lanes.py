"""A prototype that no backend uses: the scan with time in the lanes of a warp (`time_in_lanes.cu`), on a CPU.

It is compiled by the NVRTC that CUDA builds of torch bring, runs in the interpreter of `tests/ptx`, and is judged by
the model that judges the Triton kernels.  It would replace them when a GPU has said that it is faster.
"""

import ctypes
import functools
import importlib.util
import math
import tempfile
from pathlib import Path

import pytest
import torch

from tests.ops.cases import core_reference, cotangent, inputs_core, relative_error
from tests.ops.scheduler_model import cycles, decode
from tests.ops.test_triton_compiled import TOOLS, inner_loops, machine_code, opcodes_of
from tests.ptx.interpreter import Machine, Memory

TILE, BLOCK, WARPS, STATES = 64, 32, 4, 16  # steps, channels and warps of a program, as in the source
# pass: (bytes of shared memory, warps on each scheduler, instructions and clocks for 512 state-steps, all of them)
EXPECTED = {"forward": (29_056, 4, 175, 230), "backward": (76_800, 3, 460, 610)}


@functools.cache
def compiled(backward):
    """PTX and machine code for sm_90."""
    places = getattr(importlib.util.find_spec("nvidia"), "submodule_search_locations", None) or ()
    files = [file for place in places for file in Path(place).rglob("libnvrtc.so.*")]
    if not files:
        pytest.skip("no NVRTC (libnvrtc.so), which torch's CUDA builds for Linux bring as a wheel, to compile CUDA C++")
    library, program = ctypes.CDLL(str(max(files))), ctypes.c_void_p()

    def result(what):
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, text)
        return text.raw

    source = Path(__file__).with_name("time_in_lanes.cu").read_bytes()
    options = [b"--gpu-architecture=sm_90", b"--ftz=true", *[b"--define-macro=BACKWARD"] * backward]
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, None, 0, None, None) == 0
    wrong = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    assert not wrong, result("ProgramLog").decode()
    return result("PTX").rstrip(b"\0").decode(), result("CUBIN")


@pytest.mark.parametrize(("batch", "height", "width", "blocks"), [(1, 5, 15, 2), (2, 3, 5, 1)])
def test_values_of_the_prototype(batch, height, width, blocks):
    """Two tiles, the second one short inside a lane, and two blocks of channels; then two images; odd sides."""
    channels, directions = blocks * BLOCK, 4
    x, dt, Bs, Cs, A, Ds, bias = inputs = inputs_core(batch, height, width, channels, directions, STATES)
    inputs[:2] = x, dt = x.half(), dt.half()
    expected = core_reference(inputs)
    dy = cotangent(x.float())

    memory, tiles = Memory(), math.ceil(height * width / TILE)

    def empty(*shape, dtype=torch.float32):
        tensor = torch.full(shape, float("nan"), dtype=dtype)
        memory.tensor(tensor, unwritten=True)
        return tensor

    def run(backward, *tensors):
        ptx = compiled(backward)[0].replace(".nc.", ".").replace("cvta.to.global.u64", "mov.b64")
        machine = Machine(ptx, WARPS, EXPECTED["backward" if backward else "forward"][0], memory)
        sizes = (height, width, height * width, channels, batch)
        machine.run(batch * directions * blocks, [*map(memory.tensor, tensors), *sizes])

    given = (x, dt, Bs, Cs, (A / math.log(2)).transpose(1, 2).contiguous(), Ds, bias)
    ys, states = empty(batch, directions, height, width, channels), empty(batch, directions, tiles, STATES, channels)
    run(False, *given, ys, states)
    dx, ddt = torch.empty_like(ys).fill_(float("nan")), empty(*dt.shape, dtype=dt.dtype)
    dBs, dCs = (empty(blocks, *Bs.shape) for _ in "BC")
    dA, dDs, dbias = (empty(batch, directions, *shape) for shape in [(STATES, channels), (channels,), (channels,)])
    run(True, dy, *given, states, dx, ddt, dBs, dCs, dA, dDs, dbias)
    found = [ys.sum(1), dx.sum(1), ddt, dBs.sum(0), dCs.sum(0), dA.sum(0).transpose(1, 2), dDs.sum(0), dbias.sum(0)]
    for value, reference in zip(found, expected, strict=True):
        assert relative_error(value, reference) < max(1e-6, torch.finfo(value.dtype).eps / 2)


def judged(name, folder):
    """Registers, bytes of stack, and instructions and predicted clocks of a scheduler for 512 state-steps.

    A turn of the outer loop is a tile: 64 steps of 32 channels by four warps, 16 times 512 state-steps of each.
    """
    code, stack, registers = machine_code(compiled(name == "backward")[1], folder)
    over_states = max(inner_loops(code), key=lambda loop: opcodes_of(loop)["MUFU"])
    first, last = over_states[0][0], over_states[-1][0]
    branches = [(int(text.split("0x")[1], 16), at) for at, text, _ in code if text.startswith("BRA") and "0x" in text]
    begin, end = max(span for span in branches if span[0] < first and last < span[1])
    before = [line for line in code if begin <= line[0] < first]
    turn = before + STATES * over_states + [line for line in code if last < line[0] <= end]
    return registers, stack, len(turn) / 16, cycles([decode(*line[1:]) for line in turn], EXPECTED[name][1]) / 16


@pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="this Triton brings no cuobjdump")
@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_model_predicts_of_the_prototype(name, tmp_path):
    shared, warps, most_instructions, most_clocks = EXPECTED[name]
    registers, stack, instructions, clocks = judged(name, tmp_path)
    assert stack == 0, "registers spill"
    assert registers <= 65536 // 32 // (4 * warps)
    assert warps * (shared + 1024) <= 228 * 1024  # so many programs of four warps
    assert instructions <= most_instructions
    assert clocks <= most_clocks


if __name__ == "__main__":  # python -m tests.ops.test_time_in_lanes: what docs/backends-and-speed.md says of it
    for each in EXPECTED:
        with tempfile.TemporaryDirectory() as place:
            used, spilled, issued, predicted = judged(each, Path(place))
        print(
            f"{each}: {used} registers, {spilled} bytes of stack, {EXPECTED[each][1]} warps on each scheduler;",
            f"for 512 state-steps {issued:.0f} instructions, {predicted:.0f} clocks",
        )
