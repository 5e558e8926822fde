"""The Triton backend against the float64 reference, its compiled code, and its manners at import.

Values run on CUDA where there is a device.  Elsewhere they run in Triton's interpreter, which has to be switched on
before Triton is imported and therefore gets its own process (`test_in_the_interpreter`).  Needs torch, triton, pytest.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from swin_umamba_nnunet.ops import BackendUnavailableError, _triton, selective_scan, selective_scan_2d
from tests.messages import raises
from tests.ops import test_drop_in
from tests.ops.cases import (
    DEVICE,
    INTERPRETER,
    assert_keeps_contract,
    assert_matches_reference,
    assert_same_bits,
    core_reference,
    cotangent,
    inputs_2d,
    inputs_core,
    relative_error,
    values,
)

triton = pytest.importorskip("triton")
# PyTorch 2.4's raises on most of these kernels and gives NaN for the rest
OLD_INTERPRETER = triton.__version__.startswith("3.0.")

SIZES = [  # batch, height, width, channels, directions, states
    *((1, 1, length, 3, 1, 2) for length in (1, 64, 65)),  # at the edges of a window
    *((1, height, width, 3, 4, 2) for height, width in ((1, 1), (1, 5), (4, 1), (2, 3))),
    *((1, 1, 2, 5, 4, states) for states in (1, 3, 8, 16, 24)),
    *((2, 1, 3, channels, 1, 4) for channels in (1, 31, 32, 33, 70)),  # that fill no block, one, and more
]


def make_inputs(*sizes, **settings):
    return [t.to(DEVICE) for t in inputs_core(*sizes, **settings)]


def check(sizes, dtype=torch.float32, softplus=True, backward=True):
    inputs = make_inputs(*sizes, dtype=dtype, softplus=softplus)
    assert_keeps_contract(_triton, inputs, softplus, backward)


@values
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes, poisoned):
    check(sizes)


@values
@pytest.mark.parametrize(("dtype", "softplus"), [(torch.float16, True), (torch.bfloat16, False)])
def test_half_precision_inputs_and_no_softplus(dtype, softplus, poisoned):
    check((1, 1, 3, 4, 4, 4), dtype, softplus)


@values
@pytest.mark.parametrize(
    ("chunk_windows", "sizes"),
    [(1, (1, 5, 13, 2, 2, 2)), (1, (1, 10, 13, 2, 1, 2)), (2, (1, 10, 13, 2, 1, 2))],  # of two windows, and of three
)
def test_chunks_give_what_one_pass_gives(chunk_windows, sizes, poisoned, monkeypatch):
    monkeypatch.setattr(_triton, "_chunks", lambda windows, *_, **__: (-(-windows // chunk_windows), chunk_windows))
    check(sizes)


@values
def test_programs_that_take_turns(poisoned, monkeypatch):
    """Backward, one program for eight items: what it leaves behind of one must not reach the next."""
    monkeypatch.setattr(_triton, "_slots", lambda *_: 1)
    monkeypatch.setattr(_triton, "_chunks", lambda *_, **__: (2, 1))
    check((2, 1, 65, 33, 1, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kernel", ["forward_kernel", "state_kernel", "backward_kernel", "adjoint_kernel"])
def test_kernel(kernel, dtype, poisoned, monkeypatch):
    """One after the other, the last stage of a batch of a training: more work than a GPU has slots for backward."""
    backward = kernel in ("backward_kernel", "adjoint_kernel")
    cut, slots, given = kernel in ("state_kernel", "adjoint_kernel"), _triton._slots, []

    def chunks(windows, *_, turns, **__):
        return (windows, 1) if cut and turns == backward else (1, windows)

    monkeypatch.setattr(_triton, "_chunks", chunks)
    monkeypatch.setattr(_triton, "_slots", lambda *a: given.append(slots(*a)) or given[-1])
    check((12, 10, 10, 1536, 4, 16), dtype, backward=backward)
    assert not backward or given[-1] < 12 * 4 * 1536 // 32, "no program had a second piece of work"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(2, 37, 41, 96, 4, 16), (1, 20, 20, 768, 4, 16), (3, 7, 9, 100, 4, 16)])
def test_sizes_of_networks(sizes, dtype, poisoned):
    check(sizes, dtype)


@values
def test_step_sizes_of_all_magnitudes(poisoned):
    """softplus and its derivative keep their digits from 1e-13 to 60."""
    inputs = make_inputs(1, 1, 9, 4, 1, 2)
    inputs[1] = torch.linspace(-30, 60, 36, device=DEVICE).reshape(1, 1, 1, 9, 4)
    expected, _, exact, *_ = core_reference(inputs)
    y, states = _triton.forward(*inputs, True, True)
    ddt = _triton.backward(cotangent(y), *inputs, states, True)[1]
    assert relative_error(y, expected) < 2e-6
    torch.testing.assert_close(ddt.to(exact), exact, rtol=2e-5, atol=1e-16)


@values
def test_same_bits_every_time():
    inputs, runs = make_inputs(*((2, 1, 2, 5, 4, 4) if INTERPRETER else (4, 60, 60, 96, 4, 16))), []
    for _ in range(2):
        y, states = _triton.forward(*inputs, True, True)
        runs.append([y, *_triton.backward(cotangent(y), *inputs, states, True)])
    assert_same_bits(*runs)


@values
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_public_functions_and_autograd(dtype):
    arguments = inputs_2d(1, 3, 2, 4, 2)
    assert_matches_reference(selective_scan_2d, arguments, backend="triton", dtype=dtype, device=DEVICE)
    # as under autocast: parameters stay float32
    leaves = [
        a.to(DEVICE, d).requires_grad_() for a, d in zip(arguments, [dtype] * 3 + [torch.float32] * 3, strict=True)
    ]
    y = selective_scan_2d(*leaves, backend="triton")
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]


@values
def test_one_dimensional_form_with_groups():
    """And its last state, against the recurrence written out."""
    test_drop_in.check("triton", test_drop_in.make(7, groups=2), True, device=DEVICE)


@values
def test_too_many_states_is_said_plainly():
    inputs = make_inputs(1, 1, 2, 1, 1, 257)
    with raises(ValueError, "up to 256 states"):
        _triton.forward(*inputs, True, False)


@pytest.mark.skipif(INTERPRETER, reason="this is the interpreter")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the values are checked on the CUDA device itself")
@pytest.mark.skipif(OLD_INTERPRETER, reason="the interpreter of Triton 3.0 fails on these kernels")
def test_in_the_interpreter():
    files = [str(Path(__file__).with_name(name)) for name in ("test_triton.py", "test_glue.py")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "kernels", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 65, run.stdout[-2000:]


@pytest.mark.skipif(INTERPRETER, reason="not about values")
def test_import_wakes_neither_kernels_nor_cuda():
    """Loader workers are forked: importing the operators must not wake a driver.  (Torch may import triton itself.)"""
    code = (
        "import sys, torch, swin_umamba_nnunet.ops; from swin_umamba_nnunet.ops import _triton;"
        "from swin_umamba_nnunet.ops import _triton_glue;"
        "assert not [name for name in sys.modules if 'umamba' in name and 'kernels' in name], 'kernels imported';"
        "assert not torch.cuda.is_initialized(), 'CUDA initialised'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(INTERPRETER, reason="the interpreter accepts CPU tensors")
def test_where_it_cannot_run():
    assert "TRITON_INTERPRET" in _triton.unavailable_reason("cpu")
    assert "mps" in _triton.unavailable_reason("mps")
    with raises(BackendUnavailableError, "triton"):
        selective_scan(*(torch.zeros(1, 1, 1),) * 2, torch.zeros(1, 1), *(torch.zeros(1, 1, 1),) * 2, backend="triton")


def test_gpus_of_one_machine_are_judged_one_by_one(monkeypatch):
    gpus = [SimpleNamespace(name="old one", major=6, minor=1), SimpleNamespace(name="new one", major=9, minor=0)]
    gpus[1].multi_processor_count = 132
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpus[torch.device(device).index or 0])
    monkeypatch.setattr(torch.version, "hip", None)
    assert _triton.unavailable_reason("cuda") is None
    assert _triton._multiprocessors.__wrapped__(torch.device("cuda:1")) == 132
    with raises(BackendUnavailableError, "cuda:0", "7.5", "old one has 6.1", "CUDA_VISIBLE_DEVICES"):
        _triton._multiprocessors.__wrapped__(torch.device("cuda:0"))
    gpus.pop()
    assert re.search(r"7\.5.*old one has 6\.1", _triton.unavailable_reason("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is ''" in _triton.unavailable_reason("cuda")


def test_chunks_cover_the_sequence_and_only_come_where_programs_are_few():
    assert _triton._chunks(100, programs=4000, slots=1056, first_pass=0.85, turns=False) == (1, 100)
    chunks, _ = _triton._chunks(100, programs=24, slots=1056, first_pass=0.85, turns=False)
    assert chunks > 20
    for windows in (1, 2, 7, 25, 100, 401):
        for programs in (1, 24, 288, 1152):
            chunks, chunk_windows = _triton._chunks(windows, programs, 1056, 0.22, turns=True)
            assert (chunks - 1) * chunk_windows < windows <= chunks * chunk_windows
