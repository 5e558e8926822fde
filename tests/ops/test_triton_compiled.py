"""The machine code of the Triton kernels, built without a GPU: a new Triton must not make them slow unnoticed.

What the loops may cost is what Triton 3.6 and 3.9 produce, plus a margin.  Four accidents are caught: a channel's
states spread over lanes (shuffles in the forward kernels), registers that do not suffice (local memory in a loop),
arithmetic that is no longer fused, and loads that the assembler moves to where they are used, which a model of a
scheduler tells.  What follows the scan is bound by memory: there it is narrow loads, and registers that leave room for
too few warps.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("nothing is compiled in the interpreter", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from swin_umamba_nnunet.ops import _triton, _triton_glue, _triton_glue_kernels, _triton_kernels  # noqa: E402
from tests.ops.scheduler_model import cycles, decode  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
pytestmark = [
    pytest.mark.skipif(VERSION < (3, 3), reason="ASTSource takes other arguments before Triton 3.3"),
    pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="this Triton brings no cuobjdump"),
]

# kernel: (steps in a turn of the main loop, instructions per step, exponentials per step, shuffles per step)
EXPECTED = {
    "state_kernel": (4, 125, 17, 0),
    "forward_kernel": (4, 155, 17, 0),
    "adjoint_kernel": (4, 125, 17, 0),
    "backward_kernel": (3, 440, 22, 40),
}
# kernel: (warps on each scheduler, {states: cycles per step of its loops over groups of steps by `scheduler_model`})
EXPECTED_CYCLES = {
    "state_kernel": (3, {1: [70], 8: [120], 16: [180], 32: [195]}),
    "forward_kernel": (3, {1: [75], 8: [130], 16: [210], 32: [300]}),
    "adjoint_kernel": (3, {1: [70, 70], 8: [125], 16: [180], 32: [195]}),
    "backward_kernel": (2, {1: [65, 155], 8: [165, 550], 16: [250, 850], 32: [300, 1140]}),
}

# kernel: (elements of one warp, instructions for all of them)
EXPECTED_GLUE = {
    "norm_gate_kernel": (_triton_glue.FORWARD, 900),
    "norm_gate_backward_kernel": (_triton_glue.BACKWARD, 640),
}
REGISTERS = 128  # with which a multiprocessor holds 16 warps: what hides the latency of memory

# what comes in half precision under autocast; of the sizes only these are specialised
HALF_PRECISION = ("x_ptr", "dt_ptr", "gate_ptr", "out_ptr", "dout_ptr", "dgate_ptr")
SPECIALISED = ("D", "gate_stride")


def compiled(kernel, constants, warps, capability, **further):
    signature, values, hints = {}, {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
            values[(index,)] = constants[argument]
        elif argument.endswith("_ptr"):
            signature[argument] = "*fp16" if argument in HALF_PRECISION else "*fp32"
            hints[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "fp32" if argument == "eps" else "i32"
            if argument in SPECIALISED:
                hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, values, hints)
    options = {"num_warps": warps, "enable_fp_fusion": True, **further}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]


def machine_code(cubin, folder):
    """[(address, instruction without its predicate, control bits)]; bytes of stack and registers a thread needs."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    environment = {**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}

    def ask(option):
        command = [TOOLS / "cuobjdump", option, file]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    hexadecimal = r"/\* 0x([0-9a-f]{16}) \*/"
    lines = re.findall(
        rf"/\*([0-9a-f]{{4,}})\*/\s+(?:@!?U?P\w+\s+)?(.*?);\s+{hexadecimal}\s+{hexadecimal}", ask("-sass")
    )
    usage = ask("-res-usage")
    stack, registers = (int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("STACK", "REG"))
    return [(int(address, 16), text, int(control, 16)) for address, text, _, control in lines], stack, registers


def inner_loops(code):
    """The instructions of every loop without a loop inside."""
    ends = []
    for address, text, _ in code:
        target = re.match(r"BRA(?:\.\w+)*\s.*?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < address:
            ends.append((int(target[1], 16), address))
    inner = [a for a in ends if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in ends)]
    return [[line for line in code if start <= line[0] <= end] for start, end in inner]


def opcodes_of(code):
    """How often each occurs."""
    return collections.Counter(text.split()[0].split(".")[0] for _, text, _ in code)


def skip_without_assembler(capability):
    if capability >= 100 and not (TOOLS / "ptxas-blackwell").exists():
        pytest.skip("this Triton brings no assembler for sm_100")


def scan_code(name, states, capability, folder):
    """[(inner loop, its opcodes)], bytes of stack and registers of a thread of a scan kernel as it is launched."""
    options = _triton._options(4, states, _triton.BLOCK, True)
    warps, fusion = options.pop("num_warps"), options.pop("enable_fp_fusion")
    assert fusion
    further = {} if name == "backward_kernel" else {"maxnreg": min(_triton.REGISTERS, 65536 // 32 // warps)}
    cubin = compiled(getattr(_triton_kernels, name), options | {"SAVE": True}, warps, capability, **further)
    code, stack, registers = machine_code(cubin, folder)
    return [(loop, opcodes_of(loop)) for loop in inner_loops(code)], stack, registers


def warps_of(name, states):
    """On each scheduler, as launched."""
    usual = EXPECTED_CYCLES[name][0] * (2 if (name, states) == ("backward_kernel", 1) else 1)
    return max(usual, _triton._options(4, states, _triton.BLOCK, True)["num_warps"] // 4)


def cycles_of_walks(name, states, loops):
    """Cycles per step of one warp in each of the loops over groups of steps."""
    steps, warps = EXPECTED[name][0], warps_of(name, states)
    least = steps * (min(16, states) + 1) / 1.5  # of the exponentials; padded states may have none
    walks = [loop for loop, count in loops if count["MUFU"] > least]
    return [cycles([decode(*line[1:]) for line in walk], warps) / steps for walk in walks]


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(("capability", "states"), [(80, 16), (90, 16), (100, 16), (90, 1), (90, 8), (90, 32)])
def test_machine_code(name, capability, states, tmp_path):
    skip_without_assembler(capability)
    steps, instructions, exponentials, shuffles = EXPECTED[name]
    loops, stack, registers = scan_code(name, states, capability, tmp_path)
    counts = [count for _, count in loops]
    spilled = 32 if (name, states) == ("backward_kernel", 32) else 2  # of 1700 instructions
    assert all(count["LDL"] + count["STL"] <= spilled for count in counts), "registers spill inside a loop"
    assert stack <= 4 * max(16, spilled), f"{stack} bytes of stack: registers spill"
    if states == 16:
        main = max(counts, key=lambda count: sum(count.values()))
        assert main["MUFU"] <= steps * exponentials + steps
        assert main["SHFL"] == steps * shuffles
        assert sum(main.values()) <= steps * instructions, dict(main)
    if capability == 90:  # one stands for all: the model takes a second each time
        limits, found = EXPECTED_CYCLES[name][1][states], cycles_of_walks(name, states, loops)
        assert registers <= 65536 // 32 // (4 * warps_of(name, states))
        assert len(found) == len(limits)
        assert all(now <= limit for now, limit in zip(found, limits, strict=True)), f"{found}: loads are waited for"


@pytest.mark.parametrize("name", EXPECTED_GLUE)
@pytest.mark.parametrize("channels", [192, 768])  # of a pixel in one warp, and in several
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_machine_code_of_norm_and_gate(name, channels, capability, tmp_path):
    skip_without_assembler(capability)
    elements, instructions = EXPECTED_GLUE[name]
    rows, options = _triton_glue._tiling(channels, elements)
    assert rows * options["DP"] == elements * options["num_warps"]
    constants = {"K": 4, "DP": options["DP"], "ROWS": rows, "GATED": True, "SAVE": True}
    cubin = compiled(getattr(_triton_glue_kernels, name), constants, options["num_warps"], capability)
    code, stack, registers = machine_code(cubin, tmp_path)
    opcodes = [text.split()[0] for _, text, _ in code]
    assert stack == 0, "registers spill"
    assert not any(opcode.startswith(("LDL", "STL")) for opcode in opcodes), "registers spill"
    assert registers <= REGISTERS
    assert len(opcodes) <= instructions
    narrow = [opcode for opcode in opcodes if opcode.startswith(("LDG", "STG")) and not opcode.endswith(".128")]
    assert len(narrow) <= 2, f"{narrow}: only mean and rstd are no full vectors"


def test_sizes_of_an_image_are_no_constants_of_the_code():
    """Another height, width, batch or number of chunks must not compile anything again."""
    kernels = [getattr(_triton_kernels, name) for name in EXPECTED]
    for kernel in kernels + [getattr(_triton_glue_kernels, name) for name in EXPECTED_GLUE]:
        for parameter in kernel.params:
            size = not parameter.is_constexpr and not parameter.name.endswith("_ptr") and parameter.name != "eps"
            if size and parameter.name not in SPECIALISED:
                assert parameter.do_not_specialize, f"{kernel.__name__}: {parameter.name}"


if __name__ == "__main__":  # python -m tests.ops.test_triton_compiled 24 64: what other numbers of states cost
    for number in map(int, sys.argv[1:]):
        for kernel in EXPECTED:
            with tempfile.TemporaryDirectory() as place:
                walked, bytes_of_stack, used = scan_code(kernel, number, 90, Path(place))
            locals_ = sum(count["LDL"] + count["STL"] for _, count in walked)
            print(
                f"N={number} {kernel}: {used} registers, {bytes_of_stack} bytes of stack, {locals_} local accesses,",
                f"cycles {[round(c) for c in cycles_of_walks(kernel, number, walked)]}",
            )
