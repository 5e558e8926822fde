"""`make gpu-check` on a CPU: phases with stand-ins for their jobs, tests that crash, and what a bare machine needs."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from swin_umamba_nnunet.ops import _triton
from tests.messages import assert_names
from tests.speed import check, made_up, plan
from tests.speed.jobs import Group, problem_of, run_group
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
    SAVED,
    SCAN,
    SEQUENCE,
    STEP,
    Check,
    Figure,
    read_document,
)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Runs phases as if there were a GPU; each has the group of `jobs[phase]`, of kinds in `made_up.RUN`."""
    jobs = {}

    def group(phase, document):
        return [Group(phase, "tests.speed.made_up:planted", tuple(jobs[phase]))]

    monkeypatch.setattr(_triton, "unavailable_reason", lambda device: None)
    monkeypatch.setattr(check, "new_document", lambda *head: made_up.document([], settings=head[2]))
    monkeypatch.setattr(check, "groups", group)
    file = tmp_path / "new folder" / "h200.json"

    def run(*phases, seconds=300, **named):
        jobs.update(named)
        return check.main(["--phase", *phases, "--json", str(file), "--seconds", str(seconds)]), file

    return run


def problems(file):
    return {each.name: each.problem for each in read_document(file)["checks"]}


def test_what_breaks_costs_itself_and_another_phase_goes_on_with_the_document(gpu, capsys):
    kinds = ["fine.1", "crash", "fine.2", "hang", "late", "raises", "exit", "wrong", "loss", "fine.3"]
    code, file = gpu("values", values=kinds)
    found, document = problems(file), read_document(file)
    assert code == 1
    assert list(found) == [kind for kind in kinds if kind != "late"]
    facts = {"crash": "SIGSEGV", "hang": "0.2 s", "raises": r"'off by\n one'", "exit": "code 3", "wrong": "off by one"}
    assert {name for name, problem in found.items() if problem} == set(facts)
    for name, fact in facts.items():
        assert_names(found[name], fact)
    assert document["not_run"] == ["values: late"]
    assert document["done"] == ["fine.1", "fine.2", "loss", "fine.3"]
    assert_names(file.with_suffix(".log").read_text(), "Segmentation fault")
    out = capsys.readouterr().out
    assert_names(out, "to paste", file, "FAILED: crash", "- values: late", "| not measured |")
    assert file.with_suffix(".md").read_text() in out

    code, _ = gpu("kernels", "values", kernels=["fine.4"], values=["fine.1", "crash", "fine.5"])
    assert code == 1  # the crash is tried again, what went well is not
    assert_names(said := capsys.readouterr().out, "is continued", "passed: fine.4", "passed: fine.5")
    assert "] passed: fine.1" not in said
    assert list(problems(file))[-3:] == ["fine.4", "crash", "fine.5"]
    assert read_document(file)["not_run"] == []


def test_a_group_that_cannot_begin_says_why(gpu):
    code, file = gpu("values", values=["unable"])
    assert (code, problems(file)) == (1, {"values": "ImportError: no such module here"})


def test_problems_in_one_clause():
    assert problem_of(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")) == "out of memory"


def test_time_that_is_up_is_no_failure(gpu):
    code, file = gpu("values", seconds=0, values=["fine"])
    assert (code, problems(file), read_document(file)["not_run"]) == (0, {}, ["values: values"])


def test_the_document_is_there_before_the_first_job(gpu, monkeypatch):
    seen = []
    monkeypatch.setattr(check, "_run", lambda *given: seen.append(read_document(given[4])))
    gpu("values", values=[])
    assert seen[0]["command"] == "gpu-check"


def test_interrupted_it_keeps_what_there_is(gpu, monkeypatch):
    monkeypatch.setattr(check, "say", lambda text: text.startswith("[") and os.kill(os.getpid(), signal.SIGINT))
    code, file = gpu("values", "kernels", values=["fine", "wait"], kernels=["fine"])
    assert (code, problems(file), read_document(file)["not_run"]) == (130, {"fine": None}, ["values: wait"])


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
    (group,) = check._tests({"a kernel": (str(tmp_path / "test_planted.py"),)})
    arguments = (group, set(), time.monotonic() + 300, tmp_path / "log", lambda *each: kept.append(each))
    assert run_group(*arguments, threading.Event()) == []
    results = {name.partition("::test_")[2]: result for name, result in kept if result}
    facts = {"right": "", "wrong": "off by one", "skipped": "no time", "crash": "SIGSEGV", "last": ""}
    assert list(results) == list(facts)
    for name, result in results.items():
        assert_names(result.problem or result.detail, facts[name])
        assert (bool(result.problem), result.skipped) == (name in ("wrong", "crash"), name == "skipped")
    assert {result.group for result in results.values()} == {"a kernel"}


@pytest.fixture
def jobs(monkeypatch):
    """{phase: the figure or check that stands for each job}, where mamba_ssm is too."""
    monkeypatch.setattr(plan, "pipelines", lambda device: [FUSED, OWN, MAMBA_SSM])
    return {phase: [job.stands_for for job in plan.of_a_gpu(phase, Clock("cuda"))] for phase in ("kernels", "networks")}


def test_what_the_targets_need_comes_first_and_what_compiles_last(jobs):
    kernels, networks = jobs["kernels"], jobs["networks"]
    assert [f.what for f in kernels[:8]] == [LAUNCHES] * 8
    assert {f.what for f in kernels} == {LAUNCHES, SCAN, CORE, BLOCK}
    assert [f.pipeline for f in networks[:3]] == [FUSED, OWN, MAMBA_SSM]
    compiled = [f.mode == COMPILED for f in networks]
    assert compiled == sorted(compiled)
    wanted = {"SwinUMambaD", "SwinUMamba", "VMUNet", "UMambaBot", "UMambaEnc", "PlainConvUNet"}
    assert {f.what for f in networks if f.passes == STEP} == wanted


def test_what_is_not_installed_is_named(jobs, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    left_out = [job for job in plan.of_a_gpu("networks", Clock("cpu")) if isinstance(job.stands_for, Check)][-1]
    (said,) = left_out.run()
    assert said.skipped
    assert_names(said.line(), "UMambaBot", "PlainConvUNet", "trainers", "nnunetv2")


@pytest.mark.parametrize(
    ("figure", "kernels"),
    [
        (made_up.scan_figure(SCAN, passes="forward"), KERNELS[:2]),
        (made_up.scan_figure(SCAN, passes=BACKWARD), KERNELS),
        (made_up.scan_figure(pipeline=MAMBA_SSM), ()),
        (made_up.scan_figure(passes=SAVED), ()),
        (made_up.scan_figure(BLOCK, passes=BOTH), KERNELS + GLUE_KERNELS),
        (made_up.network_figure(passes=INFERENCE), KERNELS[:2] + GLUE_KERNELS[:1]),
        (made_up.network_figure("PlainConvUNet"), ()),
    ],
)
def test_only_what_is_right_is_timed(figure, kernels):
    assert plan.kernels_in(figure) == set(kernels)
    job = plan.Job(figure, lambda: [figure])
    assert plan.unless(job, set()) is job
    (result,) = plan.unless(job, {"backward_kernel"}).run()
    assert result == replace(figure, problem="the values of backward_kernel are wrong")


def test_a_cpu(monkeypatch):
    first, *jobs = plan.of_a_cpu()
    (result,) = first.run()
    assert result.problem is None
    monkeypatch.setattr(plan, "worst_error", lambda *_: 1e-2)
    (result,) = first.run()
    assert_names(result.problem, "1.0e-02", "1e-05")
    timed = {job.stands_for.what for job in jobs if isinstance(job.stands_for, Figure)}
    assert timed >= {SCAN, CORE, SEQUENCE, "SwinUMamba", "SwinUMambaD"}


def test_other_processes_are_told(monkeypatch):
    used, own = check.seconds_used()
    assert used is None or used > own > 0
    monkeypatch.setattr(check, "seconds_used", lambda: (1130.0, 50.0))
    assert_names(check.meanwhile((100.0, 45.0), 60).detail, "1025.0 s", "5 s here", "stop them")
    assert "stop" not in check.meanwhile((1124.0, 45.0), 60).detail


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
from tests.speed.measure import Clock
from swin_umamba_nnunet.networks import SwinUMambaD
assert plan.of_a_gpu("kernels", Clock("cpu")) and plan.of_a_gpu("networks", Clock("cpu"))
network = SwinUMambaD(1, 2, depths=(1, 1), width=8, d_state=2, backend="reference")
assert network(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
for name, chosen in check.TESTS.items():
    code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-W", "default", *chosen])
    assert code == 0, (name, code)
"""


def test_runs_where_torch_triton_numpy_and_pytest_are_all_there_is():
    run = subprocess.run([sys.executable, "-c", _BARE], cwd=check.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
