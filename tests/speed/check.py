"""Check and measure the package on this machine, in phases of three minutes at most.

    make gpu-check                                    values, kernels and networks, in nine minutes
    make gpu-check ARGS="--phase values"              only that; the next continues the same document
    make bench                                        cpu

values    every Triton kernel against float64, each in a process of its own, then all tests that run on a GPU; needs
          torch, Triton, numpy and pytest
kernels   the time of each kernel beside what a model of its machine code predicts, of the scan and SS2D's core fused
          and materialised (`materialised.py`), and which settings of the launches would be faster; needs no more
networks  300 iterations of our trainers that must stay finite, then training steps and inference, compiled ones last;
          what needs nnU-Net is named where that is not installed
cpu       each backend against the reference, the scan stage by stage, other code for it, whole networks beside
          themselves without scans, and what is kept for backward, which is counted

A job that fails, crashes, hangs or leaves the GPU in an illegal state costs itself: the next goes on in a new process.
A kernel whose values are wrong is not timed.  No job begins without time for it, none runs longer than its own limit,
and what runs at the end of its phase is ended; everything that was not reached is named, and the same command goes on
with that and with what failed.  The document is on disk before the first job and after every one.  It holds for one
machine, one torch and Triton, and the operators as they are: after a change of them it has to be another.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path

from swin_umamba_nnunet._atomic import write_text
from tests.speed.jobs import LONG, Group, finish, run_group, tidy
from tests.speed.record import GLUE_KERNELS, KERNELS, RESULTS, Check, new_document, read_document, write_document
from tests.speed.report import markdown

say = partial(print, flush=True)
ROOT = Path(__file__).resolve().parents[2]
PHASES = ("values", "kernels", "networks", "cpu")
SECONDS = 165.0  # of a phase; with what it takes to begin and to end, three minutes
TEST_SECONDS = 90.0  # of one test: the first of a kind waits for the compilers
MOST_FAILURES = 20  # of a process of tests
AT_ONCE = 8  # groups of tests, which mostly wait for compilers
SCANS, GLUE = "tests/ops/test_triton.py", "tests/ops/test_glue.py"
NETWORKS = [f"tests/networks/test_{name}.py" for name in ("training", "vm_unet", "backbones")]
TESTS = {  # group -> what pytest is given
    **{kernel: (f"{SCANS}::test_kernel", "-k", kernel) for kernel in KERNELS},
    **{kernel: (f"{GLUE}::test_kernel", "-k", kernel) for kernel in GLUE_KERNELS},
    "scan, sizes of networks": (SCANS, "-m", "gpu", "-k", "not test_kernel"),
    "scan, small sizes": (SCANS, "-m", "kernels"),
    "norm and gate": (GLUE, "-m", "gpu or kernels", "-k", "not test_kernel"),
    "networks on the GPU": (*NETWORKS, "-m", "gpu"),
}
TRAINERS = {"trainers on the GPU": ("tests/trainers/test_float16.py", "-m", "gpu")}  # need nnU-Net


def main(arguments=None):
    """Run the phases; returns the exit status.

    0; 1 if a check fails or a figure could not be had; 2 without a GPU, or for a document that cannot be continued; 130
    if interrupted.
    """
    options = _options(arguments)
    say(f"{', '.join(options.phase)}; looking at the machine")
    try:
        file, document = _document(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    try:
        for phase in options.phase:
            _run(phase, groups(phase, document), options.seconds, document, file, stop)
    except KeyboardInterrupt:
        say("\ninterrupted; what there is was kept")
    text, shown = markdown(document), file.with_suffix(".md")
    write_text(shown, text)
    say(f"\n---- to paste into an issue, also in {shown} ----\n\n{text}----")
    say(f"figures: {file}; what the processes said: {file.with_suffix('.log')}")
    return 130 if stop.is_set() else int(any(each.problem for each in document["checks"] + document["figures"]))


def _options(arguments):
    parser = argparse.ArgumentParser(
        prog="check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--phase", choices=PHASES, nargs="+", default=PHASES[:3], help="which (default: those of a GPU, in this order)")
    add("--seconds", type=float, default=SECONDS, metavar="S", help=f"for each phase (default: {SECONDS:.0f})")
    named = "default: named by device and date, of a GPU in tests/speed/results, of a CPU in build"
    add("--json", type=Path, metavar="FILE", help=f"the document; continued if it is there ({named})")
    options = parser.parse_args(arguments)
    if "cpu" in options.phase and len(options.phase) > 1:
        parser.error(f"--phase {' '.join(options.phase)}: cpu stands alone, with a document of its own")
    return options


def _document(options):
    """The document to go on with, on disk.

    Raises:
        ValueError: there is no GPU that will do, or the file is not one that can be continued.
    """
    import torch

    device = "cpu" if "cpu" in options.phase else "cuda"
    if device == "cuda":
        from swin_umamba_nnunet.ops import _triton

        if reason := _triton.unavailable_reason(device):
            raise ValueError(f"--phase {' '.join(options.phase)} needs a GPU: {reason} (torch {torch.__version__})")
    new = new_document("gpu-check" if device == "cuda" else "bench", device, {"operators": _operators()})
    name = re.sub("[^a-z0-9]+", "-", f"{new['device']['name']}-{new['date'][:10]}".lower())
    file = options.json or (RESULTS if device == "cuda" else Path("build")) / f"{name}.json"
    document = new
    if file.exists():
        document = read_document(file)
        here = _holds_for(new)
        for what, held in _holds_for(document).items():
            if held != here[what]:
                raise ValueError(f"{file} holds for {what} {held}, not {here[what]}; name another file with --json")
        say(f"{file} is continued")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_document(file, document)
    return file, document


def _holds_for(document):
    versions = {name: document["versions"].get(name) for name in ("torch", "triton")}
    return {"device": document["device"]["name"], **versions, **document["settings"]}


def _operators():
    """Stands for their code as it is: figures of other code do not belong into the same document."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "swin_umamba_nnunet" / "ops").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def groups(phase, document):
    """What runs in a process of its own, or several after each other."""
    if phase == "values":
        return _tests(TESTS)
    wrong = {check.group for check in document["checks"] if check.problem}
    trained = TRAINERS if phase == "networks" and importlib.util.find_spec("nnunetv2") else {}
    measured = Group(phase, "tests.speed.plan:measure", (phase, document["device"]["type"], wrong))
    return [*_tests(trained), measured]


def _tests(chosen):
    return [Group(name, "tests.speed.check:tests", (name, given)) for name, given in chosen.items()]


def _run(phase, chosen, seconds, document, file, stop):
    """One phase: groups of tests side by side, for no times are taken there; measurements one after the other."""
    began, lock, done = time.monotonic(), threading.Lock(), {*document["done"]}
    before = seconds_used()
    document["not_run"] = [name for name in document["not_run"] if not name.startswith(f"{phase}: ")]

    def keep(name, result):
        with lock:
            if result is None:
                document["done"].append(name)
            else:
                there = document["checks" if isinstance(result, Check) else "figures"]
                kept = [e for e in there if e.name != result.name and not (e.problem and e.name == name)]
                there[:] = [*kept, result]
                say(f"[{time.monotonic() - began:3.0f} s] {result.line()}")
            write_document(file, document)

    def work(group):
        return run_group(group, done, began + seconds, file.with_suffix(".log"), keep, stop)

    say(f"\n{phase}: {seconds:.0f} s at most")
    side_by_side = min(AT_ONCE, (os.cpu_count() or 1) // 2) if phase == "values" else 1
    with ThreadPoolExecutor(max(1, side_by_side)) as pool:
        found = [pool.submit(work, group) for group in chosen]
        try:
            wait(found)
        except KeyboardInterrupt:
            stop.set()
            raise
        finally:
            document["not_run"] += [f"{phase}: {name}" for each in found for name in each.result()]
            write_document(file, document)
    if phase == "cpu":
        keep("", meanwhile(before, time.monotonic() - began))


def seconds_used():
    """Of the cores since the machine was started (None where that is not told), and by this and its children."""
    own = sum(os.times()[:4])
    try:
        used = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    except OSError:
        return None, own
    user, nice, system, _idle, _waiting, *interrupts = (int(each) / os.sysconf("SC_CLK_TCK") for each in used)
    return sum((user, nice, system, *interrupts)), own


def meanwhile(before, seconds):
    """How busy others have kept the cores: threads wait for each other, so one that waits for a core costs all."""
    (used_before, own_before), (used, own) = before, seconds_used()
    if used is None:
        return Check("other processes", detail="this system does not tell what they used", skipped=True)
    others = max(0.0, used - used_before - (own - own_before))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "; times are too long: stop them and repeat" if others > 0.05 * cores * seconds else ""
    detail = f"used {others:.1f} s of the cores in {seconds:.0f} s, beside {own - own_before:.0f} s here{advice}"
    return Check("other processes", detail=detail)


def tests(send, done, end, group, chosen):
    """In a group's process: tests on the device, told one by one."""
    import pytest

    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whatever else is installed

    class Told:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items):
            send(("jobs", {item.nodeid: Check(item.nodeid, group) for item in items}))
            items[:] = [item for item in items if item.nodeid not in done]

        def pytest_runtest_logstart(self, nodeid):
            self.result = Check(nodeid, group)
            send(("begin", nodeid, TEST_SECONDS))

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self):
            result = yield
            if not tidy():  # a kernel's fault is told late
                raise RuntimeError("the GPU is in an illegal state: a kernel has read or written where nothing is")
            return result

        def pytest_runtest_logreport(self, report):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                said = crash.message if crash else str(report.longrepr)
                self.result = replace(self.result, problem=" ".join(said.split())[:LONG])
            elif report.skipped:
                self.result = replace(self.result, skipped=True, detail=report.longrepr[2])

        def pytest_runtest_logfinish(self):
            send(("result", self.result))
            finish(send)

    switches = ("-q", f"--maxfail={MOST_FAILURES}", "-p", "no:cacheprovider")
    code = pytest.main([*chosen, *switches, "-W", "default"], plugins=[Told()])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest {' '.join(chosen)} ended with {code!r}; the log says why")


if __name__ == "__main__":
    sys.exit(main())
