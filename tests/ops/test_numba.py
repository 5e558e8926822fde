"""The CPU backend where it differs from others, and what its host side promises; more of its values: `test_values`."""

import concurrent.futures
import ctypes
import gc
import runpy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.ops import _numba, _numba_vectors, selective_scan_2d
from tests.messages import raises
from tests.ops.cases import (
    assert_agree,
    assert_keeps_contract,
    assert_matches_reference,
    assert_same_bits,
    inputs_1d,
    inputs_2d,
    inputs_core,
    relative_error,
    selective_scan,
    values_and_gradients,
)


@pytest.mark.parametrize("states", [1, 3, 16])
@pytest.mark.parametrize("factor", [-0.1, 1e6], ids=["growing", "decay to nothing"])
def test_unusual_decays(factor, states):
    """A positive A is unusual but allowed: exponents above zero take their own branch."""
    arguments = inputs_1d(1, 4, 20, states)
    arguments[2] = factor * arguments[2]
    assert_matches_reference(selective_scan, arguments, backend="numba", delta_softplus=True)


def test_nan_reaches_the_output():
    for index in range(7):
        arguments = [a.float() for a in inputs_1d(1, 4, 10, 3)]
        arguments[index].view(-1)[0] = float("nan")
        assert selective_scan(*arguments, delta_softplus=True, backend="numba").isnan().any(), index


def test_a_channel_switched_off_by_its_bias():
    arguments = [a.float() for a in inputs_1d(2, 5, 70, 4)]
    arguments[6][1] = -float("inf")
    expected, found = (
        values_and_gradients(selective_scan, arguments, backend=name, delta_softplus=True)
        for name in ("reference", "numba")
    )
    assert torch.equal(found[0][:, 1], (arguments[5][1] * arguments[0][:, 1]).double())  # the skip term is left
    assert_agree(found, expected)


def test_every_output_element_is_written(monkeypatch):
    empty = torch.empty

    def poisoned(*shape, **settings):
        tensor = empty(*shape, **settings)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", poisoned)
    assert_matches_reference(selective_scan_2d, inputs_2d(2, 7, 11, 21, 5), backend="numba")


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 66), (66, 1), (9, 8)], ids=str)
def test_numbers_of_directions(directions, size):
    assert_keeps_contract(_numba, inputs_core(2, *size, 24, directions, 4))


def test_strides_of_every_argument():
    generator = torch.Generator().manual_seed(0)
    arguments = [a.float() for a in inputs_2d(2, 6, 5, 32, 8)]
    expected = values_and_gradients(selective_scan_2d, arguments, backend="numba")
    for _ in range(5):
        strided = []
        for a in arguments:
            order = torch.randperm(a.dim(), generator=generator).tolist()
            back = [order.index(axis) for axis in range(a.dim())]
            strided.append(a.permute(order).contiguous().permute(back))
        found = values_and_gradients(selective_scan_2d, strided, backend="numba")
        for f, e in zip(found, expected, strict=True):
            assert relative_error(f, e) < 1e-6


def test_python_threads_where_openmp_is_absent(monkeypatch, set_threads):
    arguments = [a.float() for a in inputs_2d(2, 9, 8, 80, 16)]
    expected = values_and_gradients(selective_scan_2d, arguments, backend="numba")
    monkeypatch.setattr(_numba, "_openmp", lambda: None)
    set_threads(3)
    found = values_and_gradients(selective_scan_2d, arguments, backend="numba")
    assert torch.equal(found[0], expected[0])
    for f, e in zip(found, expected, strict=True):
        assert relative_error(f, e) < 1e-6  # torch's matrix products depend on the number of threads


@pytest.mark.parametrize("where", ["submit", "kernel", "wait"])
def test_an_interrupt_waits_for_python_threads(where, monkeypatch):
    """They write to memory that the caller frees.  A second interrupt changes nothing."""
    begun, may_end, ended, waited = threading.Event(), threading.Event(), threading.Event(), []
    pool, wait = ThreadPoolExecutor(1), concurrent.futures.wait

    class Kernel:
        @staticmethod
        def ctypes(given):
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                may_end.wait(60)
                ended.set()
            elif where == "kernel":
                assert begun.wait(60)
                raise KeyboardInterrupt("first")
            else:
                assert begun.wait(60)

    class Pool:
        @staticmethod
        def submit(*task):
            future = pool.submit(*task)
            if where == "submit":
                assert begun.wait(60)
                raise KeyboardInterrupt("first")
            return future

    def interrupted_wait(helpers):
        waited.append(list(helpers))
        if len(waited) == 1:
            raise KeyboardInterrupt("first" if where == "wait" else "second")
        may_end.set()
        return wait(helpers)

    monkeypatch.setattr(_numba, "_openmp", lambda: None)
    monkeypatch.setattr(_numba, "_pool", lambda threads: Pool)
    monkeypatch.setattr(_numba, "wait", interrupted_wait)
    try:
        with raises(KeyboardInterrupt, "first"):
            _numba._run(Kernel, (ctypes.c_int64 * 1)(), 2)
        assert ended.is_set()
    finally:
        may_end.set()
        pool.shutdown()


def test_python_threads_that_have_not_begun_are_not_waited_for(monkeypatch):
    """Another caller may keep them busy; what they would find is that no task is left."""
    calls, pending = [], []

    class Kernel:
        @staticmethod
        def ctypes(given):
            calls.append(threading.current_thread())

    class Pool:
        @staticmethod
        def submit(*task):
            pending.append(task)

    monkeypatch.setattr(_numba, "_openmp", lambda: None)
    monkeypatch.setattr(_numba, "_pool", lambda threads: Pool)
    _numba._run(Kernel, np.zeros(1, np.int64), 3)
    for function, *arguments in pending:  # later, when the memory is no longer there
        function(*arguments)
    assert len(pending) == 2
    assert calls == [threading.current_thread()]


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with another OpenMP, or with none")
def test_torchs_own_threads_are_found():
    assert "OpenMP" not in torch.__config__.parallel_info() or _numba._openmp() is not None


def everything(*sizes):
    """A function that gives all results of the backend's, in both forms, forward and backward."""
    batch, height, width, channels, states = sizes
    core = inputs_core(batch, height, width, channels, 4, states)
    x, x_proj, *parameters = (a.float() for a in inputs_2d(*sizes))
    given = x, torch.nn.functional.linear(x, x_proj.flatten(0, 1)), *parameters

    def results():
        y, saved = _numba.forward(*core, True, True)
        y_2d, saved_2d = _numba.forward_2d(*given, True)
        gradients = *_numba.backward(y, *core, saved, True), *_numba.backward_2d(y_2d, *given, saved_2d)
        return [y, saved, y_2d, saved_2d, *gradients]

    return results


def test_bits_do_not_depend_on_threads(set_threads):
    results, found = everything(3, 12, 9, 96, 16), []
    for count in (1, 2, 5, 2):
        set_threads(count)
        found.append(results())
    assert_same_bits(*found)


def test_several_callers_at_once():
    arguments = [a.float() for a in inputs_2d(2, 10, 10, 64, 16)]
    expected = selective_scan_2d(*arguments, backend="numba")
    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(selective_scan_2d, *arguments, backend="numba") for _ in range(4)]
    assert all(torch.equal(call.result(), expected) for call in calls)


def test_works_after_fork():
    """A data-loading worker forked from a process that has used the operator can use it too."""
    script = """
import os, torch
from swin_umamba_nnunet.ops import selective_scan
torch.set_num_threads(2)
arguments = [torch.randn(4, 64, 300) for _ in range(2)]
arguments += [-torch.rand(64, 4), torch.randn(4, 4, 300), torch.randn(4, 4, 300)]
expected = selective_scan(*arguments, delta_softplus=True, backend="numba")
child = os.fork()
if child == 0:
    torch.set_num_threads(1)
    same = torch.equal(selective_scan(*arguments, delta_softplus=True, backend="numba"), expected)
    torch.set_num_threads(2)
    os._exit(0 if same else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_exp2_and_softplus_over_their_whole_range():
    """Softplus keeps its relative accuracy where it is tiny: step sizes of 1e-8 are real."""
    z = torch.linspace(-40, 40, 1601, dtype=torch.float64)
    one = torch.ones(1, 1, z.numel(), dtype=torch.float64)
    # a single position per sequence: y = softplus(z) * B * C
    arguments = [one, z[None, None], torch.full((1, 1), -1.0, dtype=torch.float64), one, one]
    arguments = [a.transpose(0, 2) if a.dim() == 3 else a for a in arguments]
    y = selective_scan(*(a.float() for a in arguments), delta_softplus=True, backend="numba").flatten().double()
    exact = torch.nn.functional.softplus(z.float().double(), threshold=100)
    assert ((y - exact) / exact).abs().max() < 5e-6
    assert relative_error(y, exact) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_default_dtype_and_device_do_not_matter(dtype):
    results = everything(1, 5, 6, 24, 4)
    expected = results()
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        found = results()
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(former)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == torch.float32
        assert torch.equal(f, e)


def test_where_processes_cannot_fork():
    """Windows has no os.register_at_fork."""
    script = (
        "import os, torch; del os.register_at_fork; "
        "from swin_umamba_nnunet.ops import backend_report; "
        "raise SystemExit(backend_report('cpu')['numba'] != 'available')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_compiled_code_lies_in_the_users_cache(tmp_path, monkeypatch, caplog):
    """And not in the package's folder, which `pip uninstall` would have to leave behind.  Each version has its own."""
    code, cache = tmp_path / "code.py", tmp_path / "cache"
    (tmp_path / "file").touch()
    monkeypatch.setattr(_numba_vectors._config, "CACHE_DIR", "")
    text = "def kernel(arguments):\n    arguments[0] = 7\n"
    for folder, source, vectors, expected in (
        (cache, text, b"1", 1),
        (cache, text, b"1", 1),
        (cache, text + "\n", b"1", 2),
        (cache, text, b"2", 3),
        (tmp_path / "file" / "cache", text, b"1", 3),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        monkeypatch.setattr(_numba_vectors, "_SOURCE", vectors)
        _numba_vectors._writable_cache.cache_clear()
        code.write_text(source, encoding="utf-8")
        gc.collect()  # or numba may still have what it else reads, which names a module to be imported
        names = runpy.run_path(str(code), run_name=__name__)
        given = (ctypes.c_int64 * 1)()
        _numba_vectors.compile_kernel(names["kernel"]).ctypes(given)
        assert given[0] == 7
        assert len(list(cache.rglob("*.nbi"))) == expected
        assert ("XDG_CACHE_HOME" in caplog.text) == (folder != cache)
        assert len(list(tmp_path.rglob("*.nbi"))) == expected
    _numba_vectors._writable_cache.cache_clear()


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "arc4random"), reason="glibc's since 2.36"
)
def test_large_tensors_are_no_mappings_of_their_own():
    """Whose pages the system takes back each time; what the heap does with a freed block, chance has a part in."""

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd"]] + [
            ("others", ctypes.c_size_t * 5)
        ]

    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Info
    before = libc.mallinfo2().hblkhd
    tensor = torch.ones(1 << 24)  # 64 MiB, more than glibc by itself ever takes from the heap
    assert libc.mallinfo2().hblkhd - before < tensor.nbytes
