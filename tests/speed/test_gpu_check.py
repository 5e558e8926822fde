"""`make gpu-check`, rehearsed on the CPU with tiny shapes."""

import json
import subprocess
import sys

import pytest
import torch

from tests.speed import gpu_check, scans
from tests.speed.measure import Clock
from tests.speed.networks import Builder
from tests.speed.record import (
    BLOCK,
    COMPILED,
    CORE,
    FUSED,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    STEP,
    new_document,
    read_document,
)
from tests.speed.test_networks import tiny as build


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(gpu_check, "Builder", lambda: Builder(build))
    monkeypatch.setattr(gpu_check, "saved_jobs", lambda device: [])
    monkeypatch.setattr("tests.speed.networks.build_network", build)


def test_rehearsal(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    assert gpu_check.main(["--rehearse", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    document = read_document(file)
    assert (document["command"], document["device"]["type"]) == ("gpu_check", "cpu")
    figures = document["figures"]
    assert not [f.line() for f in figures if f.problem]
    assert {f.what for f in figures} == {"scan", CORE, "SwinUMambaD"}
    assert {f.passes for f in figures} == {"forward", "backward", "forward+backward", STEP, INFERENCE}
    assert [check["passed"] for check in document["checks"]] == [True]
    assert "| not measured | training step of dagger" in caplog.text
    assert f"written to {file}" in caplog.text


def test_interrupted_in_the_middle(tiny, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(scans, "scan_with_projections", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert gpu_check.main(["--rehearse", "--out", str(tmp_path)]) == 130
    (file,) = tmp_path.glob("*.json")
    assert {f.what for f in read_document(file)["figures"]} == {"scan"}
    assert len(json.loads(file.read_text())["not_run"]) == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_said_and_nothing_is_written(tmp_path, caplog):
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in caplog.text
    assert not list(tmp_path.iterdir())


def test_what_the_targets_need_comes_first(monkeypatch):
    clock = Clock("cpu")
    clock.device = "cuda"
    for module in (gpu_check, scans):
        monkeypatch.setattr(module, "pipelines", lambda device: [FUSED, OWN, MAMBA_SSM])
    jobs = [job.stands_for for job in gpu_check.plan(clock, tiny=False, sweep=True)]
    assert len(jobs) > 100
    first = jobs[:50]
    assert {f.batch for f in first if f.channels} == {12}
    for size in (320, 256):
        assert len([f for f in first if f.what == CORE and f.size == (size, size) and f.passes == "forward"]) == 12
    assert [f.pipeline for f in first if f.what == "SwinUMambaD" and f.passes == STEP] == [FUSED, OWN, MAMBA_SSM]
    assert len([f for f in first if f.batch == 1 and f.passes == INFERENCE]) == 4
    assert len([f for f in jobs if f.what == BLOCK]) == 8  # with norm and gate fused, and without
    assert COMPILED in {f.mode for f in jobs[:60]}
    wanted = {"SwinUMambaD", "SwinUMamba", "VMUNet", "UMambaBot", "UMambaEnc", "PlainConvUNet"}
    for batch in (12, 30):
        assert {f.what for f in jobs if f.batch == batch and f.passes == STEP} >= wanted


def test_a_check_that_fails_is_written_down(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(gpu_check, "stays_finite", lambda *_: (False, "in layer x"))
    assert not gpu_check._finite("cpu", tiny=True)["passed"]
    monkeypatch.setattr(gpu_check, "stays_finite", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in gpu_check._finite("cpu", tiny=True)["detail"]
    assert caplog.text.count("FAILED") == 2


@pytest.fixture
def pytest_ends(monkeypatch):
    """What pytest ends with for files of such a name, "late" for never; the commands that were run."""
    codes, seen = {}, []

    def run(command, **_):
        seen.append(command)
        code = next((code for name, code in codes.items() if any(name in word for word in command)), 0)
        if code == "late":
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    return codes, seen


def test_failing_tests_end_it(pytest_ends, monkeypatch, tmp_path, caplog):
    codes, seen = pytest_ends
    codes["test_triton.py"] = 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "set_up_like_nnunet", lambda device: None)
    monkeypatch.setattr(gpu_check, "Clock", lambda *_, **__: Clock("cpu", 100))
    monkeypatch.setattr(gpu_check, "new_document", lambda *_: new_document("gpu_check", "cpu", {}))
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    assert len(seen) == 1
    assert "tests/ops/test_triton.py" in seen[0]
    assert "wrong values: nothing is measured" in caplog.text
    (file,) = tmp_path.glob("*.json")
    (check,) = json.loads(file.read_text())["checks"]
    assert not check["passed"]
    assert "pytest ended with 1" in check["detail"]


def test_what_is_slow_or_fails_beside_the_operators_costs_no_figures(pytest_ends):
    pytest_ends[0].update(networks=1, compiled="late")
    checks = gpu_check.run_tests(Clock("cpu", 100))
    assert [check["passed"] for check in checks] == [True, False, False]
    assert checks[0]["name"] == gpu_check.VALUES


_BARE = """
import sys
ABSENT = ("nnunetv2", "dynamic_network_architectures", "batchgenerators", "numba", "llvmlite", "SimpleITK")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import pytest, torch
from tests.speed import gpu_check
from tests.speed.measure import Clock, MissingPackageError
from tests.speed.networks import build_network
from swin_umamba_nnunet.networks import SwinUMambaD
assert gpu_check.plan(Clock("cpu"), tiny=False, sweep=False)
network = SwinUMambaD(1, 2, depths=(1, 1), width=8, d_state=2, backend="reference")
assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
try:
    build_network("UMambaBot", (32, 32))
except MissingPackageError:
    pass
else:
    raise AssertionError("U-Mamba without nnU-Net's building blocks")
files = [str(p) for pattern in gpu_check.TEST_FILES for p in gpu_check.ROOT.glob(pattern)]
assert len(files) >= 4
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-W", "default", *files]))
"""


def test_runs_where_torch_triton_and_pytest_are_all_there_is():
    run = subprocess.run([sys.executable, "-c", _BARE], cwd=gpu_check.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "tests collected" in run.stdout
