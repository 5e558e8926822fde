"""`make gpu-check` on a CPU: phases with stand-ins for their jobs, tests that crash, and what a bare machine needs."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from swin_umamba_nnunet.ops import _triton
from tests.messages import assert_names
from tests.speed import check, made_up, plan, scans
from tests.speed.jobs import Group, failed, is_failure, run_group
from tests.speed.measure import Clock
from tests.speed.record import (
    BACKWARD,
    BLOCK,
    BOTH,
    COMPILED,
    CORE,
    FUSED,
    GLUE_KERNELS,
    INFERENCE,
    KERNELS,
    LAUNCHES,
    MAMBA_SSM,
    OWN,
    PLAIN_GLUE,
    SAVED,
    SCAN,
    STEP,
    read_document,
)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Runs phases as if there were a GPU; each has the group of `jobs[phase]`, of stand-ins from test_jobs."""
    jobs = {}

    def group(phase, document, file):
        return [Group(phase, "tests.speed.test_jobs:planted", tuple(jobs[phase]))]

    monkeypatch.setattr(_triton, "unavailable_reason", lambda device: None)
    monkeypatch.setattr(check, "new_document", lambda *head: made_up.document([], settings=head[2]))
    monkeypatch.setattr(check, "groups", group)
    file = tmp_path / "new folder" / "h200.json"

    def run(*phases, seconds=300, **named):
        jobs.update(named)
        return check.main(["--phase", *phases, "--json", str(file), "--seconds", str(seconds)]), file

    return run


def passed(file):
    return {each["name"]: each["passed"] for each in read_document(file)["checks"]}


def test_phases_go_on_with_one_document(gpu, capsys):
    code, file = gpu("values", values=["fine.1", "crash", "hang", "wrong", "late"])
    assert code == 1
    assert passed(file) == {"fine.1": True, "crash": False, "hang": False, "wrong": False}
    assert read_document(file)["not_run"] == ["values: late"]
    out = capsys.readouterr().out
    assert_names(out, "to paste", file, "FAILED: crash", "SIGSEGV", "- values: late", "| not measured |")
    assert file.with_suffix(".md").read_text() in out

    code, _ = gpu("kernels", "values", kernels=["fine.2"], values=["fine.1", "crash", "fine.3"])
    assert code == 1  # the crash is tried again, what went well is not
    assert_names(said := capsys.readouterr().out, "is continued", "passed: fine.2", "passed: fine.3")
    assert "] passed: fine.1" not in said
    assert list(passed(file)) == ["fine.1", "hang", "wrong", "fine.2", "crash", "fine.3"]
    assert read_document(file)["not_run"] == []


def test_time_that_is_up_is_no_failure(gpu):
    code, file = gpu("values", seconds=0, values=["fine"])
    assert (code, passed(file), read_document(file)["not_run"]) == (0, {}, ["values: values"])


def test_the_document_is_there_before_the_first_job(gpu, monkeypatch):
    seen = []
    monkeypatch.setattr(check, "_run", lambda *given: seen.append(read_document(given[4])))
    gpu("values", values=[])
    assert seen[0]["command"] == "gpu-check"


def test_interrupted_it_keeps_what_there_is(gpu, monkeypatch):
    monkeypatch.setattr(check, "line", lambda result: os.kill(os.getpid(), signal.SIGINT))
    code, file = gpu("values", "kernels", values=["fine", "wait"], kernels=["fine"])
    assert (code, passed(file), read_document(file)["not_run"]) == (130, {"fine": True}, ["values: wait"])


def test_what_cannot_be_begun_or_continued(gpu, monkeypatch, capsys, tmp_path):
    code, file = gpu("values", values=[])
    before = file.read_bytes()
    monkeypatch.setattr(check, "_operators", lambda: "others")
    assert (gpu("values")[0], file.read_bytes()) == (2, before)
    assert_names(capsys.readouterr().err, file, "operators", "others", "--json")
    monkeypatch.undo()
    if not torch.cuda.is_available():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert check.main(["--phase", "kernels", "--json", str(tmp_path / "none.json")]) == 2
        assert_names(capsys.readouterr().err, "--phase kernels", "CUDA_VISIBLE_DEVICES is ''")
    with pytest.raises(SystemExit):
        check.main(["--phase", "cpu", "values"])
    assert_names(capsys.readouterr().err, "--phase cpu values")
    assert [path.name for path in tmp_path.iterdir()] == ["new folder"]


TESTS = """
import os, signal, pytest
def test_right(): pass
def test_wrong(): assert 1 == 2, "off by one"
@pytest.mark.skip(reason="no time")
def test_skipped(): pass
def test_crash(): os.kill(os.getpid(), signal.SIGSEGV)
def test_last(): pass
"""


def test_of_tests_one_may_crash(tmp_path):
    (tmp_path / "test_planted.py").write_text(TESTS)
    kept = []
    group = check._tests("a kernel", (str(tmp_path / "test_planted.py"),), tmp_path / "h200.json")
    arguments = (group, set(), time.monotonic() + 300, tmp_path / "log", lambda *each: kept.append(each))
    assert run_group(*arguments, threading.Event()) == []
    results = {name.partition("::test_")[2]: result for name, result in kept if result}
    expected = {"right": True, "wrong": False, "skipped": None, "crash": False, "last": True}
    assert {name: result["passed"] for name, result in results.items()} == expected
    assert {result["group"] for result in results.values()} == {"a kernel"}
    for name, fact in {"wrong": "off by one", "skipped": "no time", "crash": "SIGSEGV"}.items():
        assert_names(results[name]["detail"], fact)
    (report,) = tmp_path.glob("h200-a-kernel-*.xml")  # of the second process; the first was lost
    assert_names(report.read_text(), "test_last")


@pytest.fixture
def jobs(monkeypatch):
    """{phase: the figure or check that stands for each job}, where mamba_ssm is too."""
    for module in (plan, scans):
        monkeypatch.setattr(module, "pipelines", lambda device: [FUSED, OWN, MAMBA_SSM])
    clock = Clock("cpu")
    clock.device = "cuda"
    return {phase: [job.stands_for for job in plan.of_a_gpu(phase, clock)] for phase in ("kernels", "networks")}


def test_what_the_targets_need_comes_first_and_what_compiles_last(jobs):
    kernels, networks = jobs["kernels"], jobs["networks"]
    assert [f.what for f in kernels[:8]] == [LAUNCHES] * 8
    first = [f for f in kernels[:40] if (f.what, f.size) == (CORE, (320, 320))]
    assert len(first) == 4 * 3 * 2  # stages, pipelines, passes
    assert len([f for f in kernels if f.what == LAUNCHES]) == 8 + 4 * 8
    assert {f.what for f in kernels} == {LAUNCHES, SCAN, CORE, BLOCK}
    assert [f.pipeline for f in networks[:3]] == [FUSED, OWN, MAMBA_SSM]
    compiled = [f.mode == COMPILED for f in networks if not isinstance(f, dict)]
    assert compiled == sorted(compiled)
    wanted = {"SwinUMambaD", "SwinUMamba", "VMUNet", "UMambaBot", "UMambaEnc", "PlainConvUNet"}
    assert {f.what for f in networks if f.passes == STEP} == wanted


def test_what_is_not_installed_is_named(jobs, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    left_out = [job for job in plan.of_a_gpu("networks", Clock("cpu")) if isinstance(job.stands_for, dict)][-1]
    assert_names(left_out.name, "UMambaBot", "PlainConvUNet", "trainers")
    assert_names(next(iter(left_out.run()))["detail"], "nnunetv2")
    assert len(check.groups("networks", made_up.document([]), check.RESULTS / "h200.json")) == 1


@pytest.mark.parametrize(
    ("figure", "kernels"),
    [
        (made_up.scan_figure(SCAN, passes="forward"), KERNELS[:2]),
        (made_up.scan_figure(SCAN, passes=BACKWARD), KERNELS),
        (made_up.scan_figure(pipeline=OWN), KERNELS),
        (made_up.scan_figure(pipeline=MAMBA_SSM), ()),
        (made_up.scan_figure(passes=SAVED), ()),
        (made_up.scan_figure(BLOCK, passes=BOTH), KERNELS + GLUE_KERNELS),
        (made_up.scan_figure(BLOCK, pipeline=PLAIN_GLUE), KERNELS),
        (made_up.network_figure(passes=INFERENCE), KERNELS[:2] + GLUE_KERNELS[:1]),
        (made_up.network_figure("PlainConvUNet"), ()),
    ],
)
def test_only_what_is_right_is_timed(figure, kernels):
    assert plan.kernels_in(figure) == set(kernels)
    job = plan.Job(figure, lambda: [figure])
    assert list(plan._unless(job, set()).run()) == [figure]
    (result,) = plan._unless(job, {"backward_kernel"}).run()
    assert result == failed(figure, "the values of backward_kernel are wrong")


def test_a_cpu(monkeypatch):
    first, *jobs = plan.of_a_cpu()
    (result,) = first.run()
    assert result["passed"], result
    monkeypatch.setattr(plan, "worst_error", lambda *_: 1e-2)
    (result,) = first.run()
    assert is_failure(result)
    assert_names(result["detail"], "1.0e-02", "1e-05")
    assert {name for job in jobs for name in (job.name.split(",")[0],)} >= {
        SCAN,
        CORE,
        "scan of a sequence",
        "SwinUMamba",
    }


_BARE = """
import importlib.util, sys
ABSENT = (
    "nnunetv2", "dynamic_network_architectures", "batchgenerators", "numba", "llvmlite", "SimpleITK", "pandas",
    "matplotlib", "scipy", "PIL", "sklearn", "tifffile",
)
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in ABSENT else find(name, package)
import pytest, torch
from tests.speed import check, plan
from tests.speed.jobs import MissingPackageError
from tests.speed.measure import Clock
from tests.speed.networks import build_network
from swin_umamba_nnunet.networks import SwinUMambaD
assert plan.of_a_gpu("kernels", Clock("cpu")) and plan.of_a_gpu("networks", Clock("cpu"))
network = SwinUMambaD(1, 2, depths=(1, 1), width=8, d_state=2, backend="reference")
assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
try:
    build_network("UMambaBot", (32, 32))
except MissingPackageError:
    pass
else:
    raise AssertionError("U-Mamba without nnU-Net's building blocks")
for name, chosen in check.TESTS.items():
    code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-W", "default", *chosen])
    assert code == 0, (name, code)
"""


def test_runs_where_torch_triton_numpy_and_pytest_are_all_there_is():
    run = subprocess.run([sys.executable, "-c", _BARE], cwd=check.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
