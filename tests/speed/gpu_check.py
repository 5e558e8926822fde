"""Check and measure the package on a GPU in less than nine minutes; torch, Triton and pytest are all it needs.

    python -m tests.speed.gpu_check [--budget SECONDS] [--out FOLDER] [--sweep]

First the tests that run on the device (it stops if one fails), then a training of 300 iterations that must stay finite,
then times from CUDA events, most important first, until the budget is used up: the scan and SS2D's core per stage
shape, fused against materialised (`materialised.py`), the SS2D block, whole networks.  What was measured goes to one
JSON file after each figure; at the end come the tables, the first of which compares it with what is to be reached.
"""

import argparse
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.speed.bench import network_jobs, saved_jobs
from tests.speed.clock import Clock
from tests.speed.materialised import pipelines
from tests.speed.models import NETWORKS
from tests.speed.networks import Builder, Setting, set_up_like_nnunet, stays_finite
from tests.speed.record import (
    BLOCK,
    COMPILED,
    CORE,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    RESULTS,
    STEP,
    new_document,
    write_document,
)
from tests.speed.scans import (
    PLAIN_GLUE,
    STAGES,
    Stage,
    block,
    cuts,
    scan_alone,
    scan_with_projections,
)
from tests.speed.session import Job, problem_of, run_jobs
from tests.speed.table import markdown

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 500.0  # seconds; with what runs at the end of it less than nine minutes
ITERATIONS = 300
TEST_FILES = ("tests/ops/test_triton*.py", "tests/networks/test_training.py", "tests/networks/test_vm_unet.py")
VALUES = "values of the operators on the device"
_HALF, _BF16, _FULL = torch.float16, torch.bfloat16, torch.float32


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; returns the exit status: 1 if a test fails, 2 without a GPU, 130 if interrupted."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = "cpu" if options.rehearse else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        logger.error("torch %s finds no CUDA device here; gpu_check measures nothing else", torch.__version__)
        return 2
    set_up_like_nnunet(device)
    clock = Clock(device, options.budget, seconds=0.15)
    document = new_document("gpu_check", device, {"budget": options.budget, "sweep": options.sweep})
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / _file_name(document)
    try:
        if not (options.no_tests or options.rehearse):
            document["checks"] += run_tests(clock)
            for check in document["checks"]:
                logger.info("%s: %s, %s", "passed" if check["passed"] else "FAILED", check["name"], check["detail"])
            write_document(file, document)
            if any(check["name"] == VALUES and check.get("wrong") for check in document["checks"]):
                logger.error("wrong values: nothing is measured (but with --no-tests); written to %s", file)
                return 1
        document["checks"].append(_finite(device, tiny=options.rehearse))
        finished = run_jobs(plan(clock, options.rehearse, options.sweep), clock, document, file, logger.info)
    except KeyboardInterrupt:
        finished = False
    logger.info("\n%s", markdown(document))
    if document["figures"]:
        logger.info("written to %s", file)
    return 0 if finished else 130


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds in all (default: {BUDGET:.0f})")
    out = Path(os.environ.get("OUT") or RESULTS)
    parser.add_argument("--out", type=Path, default=out, help=f"folder of the JSON file (default: $OUT, or {RESULTS})")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    parser.add_argument("--sweep", action="store_true", help="also time the scan for every way to cut the sequence")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU, to try this script itself")
    return parser.parse_args(arguments)


def _file_name(document: dict[str, Any]) -> str:
    name = f"{document['device']['name']}-{document['date'][:16]}.json"
    return "".join(c if c.isalnum() or c in "-." else "-" if c.isspace() else "" for c in name).lower()


def run_tests(clock: Clock) -> list[dict[str, Any]]:
    """The tests that use the device, side by side where pytest-xdist is there (they mostly wait for compilation).

    Only wrong values of the operators are a reason not to measure; what else fails, or takes too long, is recorded.
    """
    files = [path.relative_to(ROOT).as_posix() for pattern in TEST_FILES for path in sorted(ROOT.glob(pattern))]
    if not files:
        return [{"name": VALUES, "passed": True, "detail": f"none: {ROOT} is no checkout of the repository"}]
    networks = [file for file in files if "networks" in file]
    code = [file for file in files if "compiled" in file]
    values = [file for file in files if file not in networks and file not in code]
    parallel = ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    groups = ((VALUES, [*parallel, *values]), ("networks on the device", ["-m", "gpu", *networks]),
              ("compiled code", [*parallel, *code]))  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "default"]
    checks = []
    for name, chosen in groups:
        started, wrong = time.monotonic(), False
        try:
            # a third of what is left, and two minutes if that is little: the figures need the rest
            done = subprocess.run([*command, *chosen], cwd=ROOT, timeout=max(120.0, clock.left() / 3), check=False)
            wrong, detail = done.returncode != 0, f"pytest ended with {done.returncode}"
            passed = not wrong
        except subprocess.TimeoutExpired:
            passed, detail = False, "not finished"
        seconds = time.monotonic() - started
        checks.append({"name": name, "passed": passed, "wrong": wrong, "detail": f"{detail} ({seconds:.0f} s)"})
        if wrong and name == VALUES:
            break
    return checks


def _finite(device: str, tiny: bool) -> dict[str, Any]:
    """The training that others report to become NaN."""
    name = "a training under mixed precision stays finite"
    try:
        size, iterations, dtype = (32, 2, _BF16) if tiny else (128, ITERATIONS, _HALF)
        passed, detail = stays_finite(device, dtype, iterations, size)
    except Exception as error:  # this must not cost the measurements
        passed, detail = False, problem_of(error)
    logger.info("%s: %s, %s", "passed" if passed else "FAILED", name, detail)
    return {"name": name, "passed": passed, "detail": detail}


def plan(clock: Clock, tiny: bool, sweep: bool) -> list[Job]:
    """What to measure, in order of importance: first what the targets are about."""
    builder = Builder()
    here = pipelines(clock.device)

    def networks(names: Sequence[str], passes: Sequence[str], dtype: torch.dtype, batch: int = 12, size: int = 320,
                 modes: Sequence[str] = ("eager",), also: Sequence[str] = ()) -> list[Job]:  # fmt: skip
        settings = [
            Setting(name, batch, (size, size), dtype, each, pipeline, mode)
            for name in names for mode in modes for each in passes for pipeline in (FUSED, *also)
        ]  # fmt: skip
        return network_jobs(clock, builder, [s for s in settings if s.makes_sense and s.pipeline in here])

    if tiny:
        small = Stage(1, (32, 32), 4, 16, _FULL)
        return [*stage_jobs(clock, small), *saved_jobs(clock.device),
                *networks(("SwinUMambaD",), (STEP, INFERENCE), _FULL, 1, 32, also=(OWN,))]  # fmt: skip

    def stages(batch: int, size: int, dtype: torch.dtype) -> list[Job]:
        return [
            job for stride, channels in STAGES
            for job in stage_jobs(clock, Stage(batch, (size, size), stride, channels, dtype))
        ]  # fmt: skip

    swin, both, materialised = ("SwinUMambaD", "SwinUMamba"), (STEP, INFERENCE), (OWN, MAMBA_SSM)
    others = [name for name in NETWORKS if name not in swin]
    compiled = [*networks(swin[:1], (STEP,), _HALF, modes=(COMPILED,)),
                *networks(swin[:1], (INFERENCE,), _HALF, 1, modes=(COMPILED,))]  # fmt: skip
    return [
        *stages(12, 320, _HALF),
        *networks(swin[:1], (STEP,), _HALF, also=materialised),
        *networks(swin, (INFERENCE,), _HALF, 1, modes=("eager", GRAPH)),
        *stages(12, 256, _HALF),
        *saved_jobs(clock.device),
        *blocks(clock, 12, 320, _HALF),
        *compiled,
        *(_sweep(clock) if sweep else ()),
        *networks(swin[1:], (STEP,), _HALF, also=materialised),
        *networks(swin, (INFERENCE,), _HALF, also=materialised),
        *networks(others, both, _HALF),
        *networks(swin, (INFERENCE,), _HALF, 4),  # one slice, mirrored as nnU-Net does
        *stages(12, 320, _BF16),
        *networks(swin, (STEP,), _BF16, also=materialised),
        *stages(30, 320, _HALF),
        *networks(swin, both, _HALF, 30),
        *networks(swin, both, _HALF, 12, 256, also=materialised),
        *networks(others, both, _BF16),
        *networks(others, both, _HALF, 30),
        *networks(others, both, _HALF, 12, 256),
        *stages(1, 320, _HALF),
        *stages(30, 256, _HALF),
        *stages(12, 256, _BF16),
        *stages(12, 320, _FULL),
        *networks(swin[1:], (STEP,), _HALF, modes=(COMPILED,)),
    ]


def stage_jobs(clock: Clock, stage: Stage) -> list[Job]:
    """The scan alone, and the core in every pipeline that runs here."""
    alone = Job(stage.figure("scan", FUSED, "forward"), partial(scan_alone, clock, stage))
    return [alone, *(
        Job(stage.figure(CORE, each, "forward"), partial(scan_with_projections, clock, stage, each))
        for each in pipelines(clock.device)
    )]  # fmt: skip


def blocks(clock: Clock, batch: int, size: int, dtype: torch.dtype) -> list[Job]:
    """The SS2D block of each stage, with norm and gate fused behind the scan and with separate ones."""
    stages = [Stage(batch, (size, size), stride, channels, dtype) for stride, channels in STAGES]
    forms = (FUSED, PLAIN_GLUE) if importlib.util.find_spec("swin_umamba_nnunet.ops._glue") else (FUSED,)
    return [
        Job(stage.figure(BLOCK, form, "forward"), partial(block, clock, stage, form))
        for stage in stages for form in forms
    ]  # fmt: skip


def _sweep(clock: Clock) -> list[Job]:
    return [
        Job(stage.figure("scan", FUSED, "forward"), partial(cuts, clock, stage))
        for batch in (12, 1) for stage in (Stage(batch, (320, 320), r, c, _HALF) for r, c in STAGES)
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
