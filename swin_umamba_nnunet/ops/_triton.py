"""CUDA backend: the directional scan in Triton (kernels in `_triton_kernels.py`), launched with fixed settings.

No autotuning: the same launch always computes the same bits, and nothing is compiled again when the image size, the
batch size or the number of channels changes (only dtype, K, N, softplus, and whether channels come in full blocks).

Under TRITON_INTERPRET=1 the same kernels run on CPU tensors in numpy, slowly: that is how they are tested without a
GPU.
"""

import functools
import importlib.util
import math
import os
from typing import Any

import torch
from torch import Tensor

from swin_umamba_nnunet.ops._select import BackendUnavailableError

WINDOW = 64
LOG2E = 1.4426950408889634
BLOCK = 32  # channels of one program, one warp: lane = channel where states are walked forwards
GROUP = 3  # steps between the checkpoints inside a window, which the backward kernel is written out for
MIN_CAPABILITY = (7, 5)
MAX_STATES = 256  # 16 warps of 16 states each

# Warps of a multiprocessor that its registers hold, three and two for each of its four schedulers: programs are cut to
# fill them.  The other figures come from a model of the machine code (first passes relative to the main one, which is
# 1).  No GPU has judged any of them yet; `make gpu-check` does.
FORWARD_WARPS = 12
BACKWARD_WARPS = 8
FORWARD_FIRST_PASS = 0.85  # finding what enters each chunk
BACKWARD_FIRST_PASS = 0.17
CARRY = 0.05  # walking over the chunks before (or behind) one's own, in windows per chunk
# Registers of a thread in the kernels that hold no gradients: so many let ptxas keep the loads first, where the source
# has them; left alone it sinks them and a step waits for them one by one (predicted by a model, no GPU has judged it).
REGISTERS = 160


@functools.cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def unavailable_reason(device_type: str) -> str | None:
    """None if tensors on `device_type` can be scanned here, else one clause that says why not."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device_type == "cpu":
        return None if _interpreted() else "Triton needs a GPU (TRITON_INTERPRET=1 runs it on the CPU, for tests only)"
    if device_type != "cuda":
        return f"Triton has no kernels for {device_type!r} devices here"
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        return "torch finds no CUDA device" + ("" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})")
    reasons = [_too_old(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())]
    if all(reasons):  # with one that will do, the others are refused when it is their turn
        return reasons[0]
    try:
        from swin_umamba_nnunet.ops import _triton_kernels  # noqa: F401
    except ImportError as error:
        return f"the package triton does not load: {error}"
    return None


def _too_old(gpu: Any) -> str | None:
    """One clause about a GPU, from its properties, that Triton compiles nothing for."""
    if torch.version.hip is not None or (gpu.major, gpu.minor) >= MIN_CAPABILITY:
        return None
    needed = ".".join(map(str, MIN_CAPABILITY))
    return f"Triton needs compute capability {needed} or more, the {gpu.name} has {gpu.major}.{gpu.minor}"


def forward(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """y and the states before each window; shapes in `_scan.py`, except that a window's states lie as (D, N)."""
    ys, saved = forward_parts(x, dt, Bs, Cs, A, Ds, dt_bias, delta_softplus, save_states)
    return _sum(ys, 1), saved


def forward_parts(
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """Like `forward`, with the directions not yet summed: (b,K,H,W,D) float32, each at the position it belongs to."""
    from swin_umamba_nnunet.ops import _triton_kernels as kernels

    batch, height, width, channels = x.shape
    directions, _, states = A.shape
    length = height * width
    windows = _ceil(length, WINDOW)
    blocks = _ceil(channels, BLOCK)
    rows = batch * directions
    options = _options(directions, states, channels, delta_softplus)
    slots = _slots(x.device, FORWARD_WARPS, options)
    chunks, chunk_windows = _chunks(windows, rows * blocks, slots, FORWARD_FIRST_PASS, turns=False)
    Bs, Cs = Bs.float(), Cs.float()
    A_rows = (A * LOG2E).transpose(1, 2).contiguous()
    sizes = (height, width, length, channels, chunks, chunk_windows, batch, 0)
    registers = _registers(x.device, options["num_warps"])

    ends = sums = A_rows  # placeholders of the right type, not read if there is one chunk
    with _on(x.device):
        if chunks > 1:
            ends = _empty(x, batch, directions, chunks, states, channels)
            sums = _empty(x, batch, directions, chunks, channels)
            kernels.state_kernel[(rows * blocks * (chunks - 1),)](
                x, dt, Bs, A_rows, dt_bias, ends, sums, *sizes, **options, **registers
            )
        ys = _empty(x, batch, directions, height, width, channels)
        saved = _empty(x, batch, directions, windows, states, channels) if save_states else _empty(x, 0)
        kernels.forward_kernel[(rows * blocks * chunks,)](
            x, dt, Bs, Cs, A_rows, Ds, dt_bias, ends, sums, ys, saved, *sizes, SAVE=save_states, **options, **registers
        )
    return ys, saved


def backward(
    dy: Tensor,
    x: Tensor,
    dt: Tensor,
    Bs: Tensor,
    Cs: Tensor,
    A: Tensor,
    Ds: Tensor,
    dt_bias: Tensor,
    states: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of everything that went into `forward`, float32 but for ddt; `states` as `forward` returned them."""
    from swin_umamba_nnunet.ops import _triton_kernels as kernels

    batch, height, width, channels = x.shape
    directions, _, n_states = A.shape
    length = height * width
    windows = _ceil(length, WINDOW)
    blocks = _ceil(channels, BLOCK)
    rows = batch * directions
    options = _options(directions, n_states, channels, delta_softplus)
    slots = _slots(x.device, BACKWARD_WARPS * (2 if n_states == 1 else 1), options)  # one state: half the registers
    chunks, chunk_windows = _chunks(windows, rows * blocks, slots, BACKWARD_FIRST_PASS, turns=True)
    Bs, Cs = Bs.float(), Cs.float()
    A2 = A * LOG2E
    sizes = (height, width, length, channels, chunks, chunk_windows, batch)

    heads = sums = A2  # placeholders of the right type, not read if there is one chunk
    with _on(x.device):
        if chunks > 1:
            heads = _empty(x, batch, directions, chunks, channels, n_states)
            sums = _empty(x, batch, directions, chunks, channels)
            A_rows, registers = A2.transpose(1, 2).contiguous(), _registers(x.device, options["num_warps"])
            kernels.adjoint_kernel[(rows * blocks * (chunks - 1),)](
                dy, dt, Cs, A_rows, dt_bias, heads, sums, *sizes, 0, **options, **registers
            )
        items = rows * blocks * chunks
        programs = min(items, slots)
        scratch = _empty(x, programs, _ceil(WINDOW, GROUP), BLOCK, options["NP"])
        dx = _empty(x, batch, directions, height, width, channels)
        ddt = _empty(x, directions, batch, height, width, channels, dtype=x.dtype)
        dBs = _empty(x, blocks, batch, height, width, directions, n_states)
        dCs = _empty(x, blocks, batch, height, width, directions, n_states)
        dA = _empty(x, batch * chunks, directions, channels, n_states)
        dDs = _empty(x, batch * chunks, directions, channels)
        ddt_bias = _empty(x, batch * chunks, directions, channels)
        kernels.backward_kernel[(programs,)](
            dy,
            x,
            dt,
            Bs,
            Cs,
            A2,
            Ds,
            dt_bias,
            states,
            heads,
            sums,
            scratch,
            dx,
            ddt,
            dBs,
            dCs,
            dA,
            dDs,
            ddt_bias,
            *sizes,
            items,
            **options,
        )
    return _sum(dx, 1), ddt, _sum(dBs, 0), _sum(dCs, 0), _sum(dA, 0), _sum(dDs, 0), _sum(ddt_bias, 0)


def _options(directions: int, states: int, channels: int, delta_softplus: bool) -> dict[str, Any]:
    """Compile-time settings: states padded to a power of two, 16 of them to a warp."""
    if states > MAX_STATES:
        raise ValueError(
            f"the triton backend scans up to {MAX_STATES} states per channel, not {states}; use the backend 'reference'"
        )
    padded = 1 << (states - 1).bit_length()
    # FP fusion (FFMA) is what Triton does up to 3.9 and what the instruction counts rest on
    return {
        "K": directions,
        "N": states,
        "NP": padded,
        "BD": BLOCK,
        "SOFTPLUS": delta_softplus,
        "EVEN": channels % BLOCK == 0,
        "num_warps": max(1, padded // 16),
        "enable_fp_fusion": True,
    }


def _registers(device: torch.device, warps: int) -> dict[str, int]:
    """The launch option, where the compiler knows it; 16 warps of a program share all that there are."""
    known = device.type == "cuda" and torch.version.hip is None
    return {"maxnreg": min(REGISTERS, 65536 // 32 // warps)} if known else {}


@functools.lru_cache(maxsize=1024)
def _chunks(windows: int, programs: int, slots: int, first_pass: float, turns: bool) -> tuple[int, int]:
    """How to cut the sequence so that it takes the least time: (chunks, windows in each chunk but the last).

    Args:
        windows: length of the sequence.
        programs: how many would run if it were not cut.
        slots: how many keep the machine busy.
        first_pass: cost of finding what enters each chunk, relative to the main pass; saved if there is one chunk.
        turns: more programs than slots take turns (the slots stay the same programs) instead of sharing the machine.
    """
    best, best_time = (1, windows), float("inf")
    for chunk_windows in range(windows, 0, -1):
        chunks = _ceil(windows, chunk_windows)
        load = programs * chunks / slots
        rounds = math.ceil(load) if turns else max(1.0, load)
        passes = 1.0 if chunks == 1 else 1.0 + first_pass
        time = rounds * chunk_windows * passes + CARRY * (chunks - 1)
        if time < best_time:
            best, best_time = (chunks, chunk_windows), time
    return best


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """How many the device has; refuses a GPU that is too old, where another of this machine is not."""
    if device.type != "cuda":
        return 1
    gpu = torch.cuda.get_device_properties(device)
    if (reason := _too_old(gpu)) is not None:
        raise BackendUnavailableError(
            f"the backend 'triton' cannot run on {device}: {reason}; use another GPU (CUDA_VISIBLE_DEVICES chooses "
            "those that torch sees) or another backend (SWIN_UMAMBA_BACKEND)"
        )
    units: int = gpu.multi_processor_count
    return units


def _slots(device: torch.device, warps: int, options: dict[str, Any]) -> int:
    """Programs that run at the same time, at so many warps of a multiprocessor."""
    return max(1, warps // options["num_warps"]) * _multiprocessors(device)


def _on(device: torch.device) -> Any:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else torch.no_grad()


def _empty(like: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


def _sum(parts: Tensor, axis: int) -> Tensor:
    """Sum of what the programs wrote side by side, in a fixed order."""
    return parts.squeeze(axis) if parts.shape[axis] == 1 else parts.sum(axis)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
