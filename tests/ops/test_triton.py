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

from swin_umamba_nnunet.ops import BackendUnavailableError, _scan, _triton, selective_scan, selective_scan_2d
from tests.messages import raises
from tests.ops import test_drop_in
from tests.ops.cases import assert_matches_reference, inputs_2d, relative_error

triton = pytest.importorskip("triton")

# PyTorch 2.4's raises on most of these kernels and gives NaN for the rest
OLD_INTERPRETER = triton.__version__.startswith("3.0.")
INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETER else "cuda"
HERE = INTERPRETER or torch.cuda.is_available()
values = pytest.mark.kernels
NAMES = ("x", "dt", "Bs", "Cs", "A", "Ds", "dt_bias")


@pytest.fixture
def poisoned(monkeypatch):
    """Every buffer a kernel has to fill starts as NaN."""

    def nan(like, *shape, dtype=torch.float32):
        return torch.full(shape, float("nan"), dtype=dtype, device=like.device)

    monkeypatch.setattr(_triton, "_empty", nan)


def make_inputs(batch, height, width, channels, directions, states, dtype=torch.float32, softplus=True):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    sequences = [
        random(batch, height, width, channels),
        random(directions, batch, height, width, channels),
        random(batch, height, width, directions, states),
        random(batch, height, width, directions, states),
    ]
    parameters = [
        -torch.exp(random(directions, channels, states)),
        random(directions, channels),
        random(directions, channels) - 1,
    ]
    if not softplus:
        sequences[1] = 0.3 * sequences[1].abs()
        parameters[2] = 0.1 * parameters[2].abs()
    dy = random(batch, height, width, channels)
    return [*(t.to(DEVICE, dtype) for t in sequences), *(t.to(DEVICE) for t in parameters)], dy.to(DEVICE)


def check(sizes, dtype=torch.float32, softplus=True, backward=True):
    """y and all gradients of the backend, called as `_scan.py` calls it, against autograd through the reference."""
    inputs, dy = make_inputs(*sizes, dtype=dtype, softplus=softplus)
    exact = [t.double().requires_grad_() for t in inputs]
    expected = _scan.scan(*exact, softplus, "reference")
    y, states = _triton.forward(*inputs, softplus, True)
    assert y.shape == expected.shape
    assert y.dtype == torch.float32
    assert relative_error(y, expected.detach()) < 2e-6
    y_only, nothing = _triton.forward(*inputs, softplus, False)
    assert torch.equal(y_only, y)
    assert nothing.numel() == 0
    if not backward:
        return
    expected.backward(dy.double())
    gradients = _triton.backward(dy, *inputs, states, softplus)
    for name, found, tensor in zip(NAMES, gradients, exact, strict=True):
        assert found.shape == tensor.shape, name
        assert found.is_contiguous(), name
        rounded = found.dtype == dtype != torch.float32  # of ddt, and the interpreter cuts bfloat16 off
        assert found.dtype == (dtype if name == "dt" else torch.float32)
        assert relative_error(found, tensor.grad) < (torch.finfo(dtype).eps if rounded else 5e-6), name


# batch, height, width, channels, directions, states
@values
@pytest.mark.parametrize("length", [1, 64, 65])
def test_one_direction_at_the_edges_of_a_window(length, poisoned):
    check((1, 1, length, 3, 1, 2))


@values
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 1), (2, 3)])
def test_four_directions_at_uneven_sizes(height, width, poisoned):
    check((1, height, width, 3, 4, 2))


@values
@pytest.mark.parametrize("states", [1, 3, 8, 16, 24])
def test_numbers_of_states(states, poisoned):
    check((1, 1, 2, 5, 4, states))


@values
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 70])
def test_channels_that_fill_no_block(channels, poisoned):
    check((2, 1, 3, channels, 1, 4))


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
    inputs, dy = make_inputs(1, 1, 9, 4, 1, 2)
    inputs[1] = torch.linspace(-30, 60, 36, device=DEVICE).reshape(1, 1, 1, 9, 4)
    exact = [t.double().requires_grad_() for t in inputs]
    expected = _scan.scan(*exact, True, "reference")
    expected.backward(dy.double())
    y, states = _triton.forward(*inputs, True, True)
    ddt = _triton.backward(dy, *inputs, states, True)[1]
    assert relative_error(y, expected.detach()) < 2e-6
    torch.testing.assert_close(ddt.double(), exact[1].grad, rtol=2e-5, atol=1e-16)


@values
def test_same_bits_every_time():
    inputs, dy = make_inputs(2, 1, 2, 5, 4, 4) if INTERPRETER else make_inputs(4, 60, 60, 96, 4, 16)
    runs = []
    for _ in range(2):
        y, states = _triton.forward(*inputs, True, True)
        runs.append([y, *_triton.backward(dy, *inputs, states, True)])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


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
    inputs, _ = make_inputs(1, 1, 2, 1, 1, 257)
    with raises(ValueError, "up to 256 states"):
        _triton.forward(*inputs, True, False)


@pytest.mark.skipif(INTERPRETER, reason="this is the interpreter")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the values are checked on the CUDA device itself")
@pytest.mark.skipif(OLD_INTERPRETER, reason="the interpreter of Triton 3.0 fails on these kernels")
def test_in_the_interpreter():
    files = [str(Path(__file__).with_name(name)) for name in ("test_triton.py", "test_triton_glue.py")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
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
