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
from pathlib import Path
from typing import Any

import torch

from tests.speed.materialised import pipelines
from tests.speed.measure import Clock, Job, problem_of, run_jobs
from tests.speed.networks import NETWORKS, Builder, makes_sense, network_jobs, set_up_like_nnunet, stays_finite
from tests.speed.record import (
    COMPILED,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    RESULTS,
    STEP,
    Figure,
    new_document,
    write_document,
)
from tests.speed.report import markdown
from tests.speed.scans import block_jobs, saved_jobs, stage_jobs, stages, sweep_jobs

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 500.0  # seconds; with what runs at the end of it less than nine minutes
ITERATIONS = 300
TEST_FILES = ("tests/ops/test_triton*.py", "tests/networks/test_training.py", "tests/networks/test_vm_unet.py")
VALUES = "values of the operators on the device"


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
    name = f"{document['device']['name']}-{document['date'][:16]}.json".replace(" ", "-").lower()
    file = options.out / "".join(c for c in name if c.isalnum() or c in "-.")
    try:
        if not (options.no_tests or options.rehearse):
            document["checks"] += run_tests(clock)
            write_document(file, document)
            if any(check["name"] == VALUES and check["wrong"] for check in document["checks"]):
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


def run_tests(clock: Clock) -> list[dict[str, Any]]:
    """The tests that use the device, side by side where pytest-xdist is there (they mostly wait for compilation).

    Only wrong values of the operators are a reason not to measure; what else fails, or takes too long, is recorded.
    """
    files = [path.relative_to(ROOT).as_posix() for pattern in TEST_FILES for path in sorted(ROOT.glob(pattern))]
    networks = [file for file in files if "networks" in file]
    code = [file for file in files if "compiled" in file]
    values = [file for file in files if file not in networks and file not in code]
    parallel = ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    groups = {
        VALUES: [*parallel, *values],
        "networks on the device": ["-m", "gpu", *networks],
        "compiled code": [*parallel, *code],
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "default"]
    checks = []
    for name, chosen in groups.items():
        started, code_of_end = time.monotonic(), None
        try:
            # a third of what is left, and two minutes if that is little: the figures need the rest
            limit = max(120.0, clock.left() / 3)
            code_of_end = subprocess.run([*command, *chosen], cwd=ROOT, timeout=limit, check=False).returncode
            detail = f"pytest ended with {code_of_end}"
        except subprocess.TimeoutExpired:
            detail = "not finished"
        checks.append(_told(name, code_of_end == 0, f"{detail} ({time.monotonic() - started:.0f} s)"))
        checks[-1]["wrong"] = bool(code_of_end)
        if code_of_end and name == VALUES:
            break
    return checks


def _told(name: str, passed: bool, detail: str) -> dict[str, Any]:
    """A check for the document, said as well."""
    logger.info("%s: %s, %s", "passed" if passed else "FAILED", name, detail)
    return {"name": name, "passed": passed, "detail": detail}


def _finite(device: str, tiny: bool) -> dict[str, Any]:
    """The training that others report to become NaN."""
    size, iterations, dtype = (32, 2, "bfloat16") if tiny else (128, ITERATIONS, "float16")
    try:
        passed, detail = stays_finite(device, dtype, iterations, size)
    except Exception as error:  # this must not cost the measurements
        passed, detail = False, problem_of(error)
    return _told("a training under mixed precision stays finite", passed, detail)


def plan(clock: Clock, tiny: bool, sweep: bool) -> list[Job]:
    """What to measure, in order of importance: first what the targets are about."""
    builder, here = Builder(), pipelines(clock.device)

    def networks(
        names,
        passes,
        batch=12,
        size=320,
        dtype="float16",
        modes=(EAGER,),
        also=(),
    ):
        chosen = [
            Figure(name, pipeline, mode, each, dtype, batch, (size, size))
            for name in names
            for mode in modes
            for each in passes
            for pipeline in (FUSED, *also)
        ]
        return network_jobs(clock, builder, [f for f in chosen if makes_sense(f) and f.pipeline in here])

    def scans(*setting):
        return [job for stage in stages(*setting) for job in stage_jobs(clock, stage)]

    dagger, swin, both, others = NETWORKS[:1], NETWORKS[:2], (STEP, INFERENCE), NETWORKS[2:]
    materialised = {"also": (OWN, MAMBA_SSM)}
    if tiny:
        small = Figure("scan", size=(32, 32), stride=4, channels=16)
        return [
            *stage_jobs(clock, small),
            *saved_jobs(clock.device),
            *networks(dagger, both, 1, 32, "float32", also=(OWN,)),
        ]
    return [
        *scans(12, 320),
        *networks(dagger, (STEP,), **materialised),
        *networks(swin, (INFERENCE,), 1, modes=(EAGER, GRAPH)),
        *scans(12, 256),
        *saved_jobs(clock.device),
        *(job for stage in stages(12, 320) for job in block_jobs(clock, stage)),
        *networks(dagger, (STEP,), modes=(COMPILED,)),
        *networks(dagger, (INFERENCE,), 1, modes=(COMPILED,)),
        *(sweep_jobs(clock) if sweep else ()),
        *networks(swin[1:], (STEP,), **materialised),
        *networks(swin, (INFERENCE,), **materialised),
        *networks(others, both),
        *networks(swin, (INFERENCE,), 4),  # one slice, mirrored as nnU-Net does
        *scans(12, 320, "bfloat16"),
        *networks(swin, (STEP,), dtype="bfloat16", **materialised),
        *scans(30, 320),
        *networks(swin, both, 30),
        *networks(swin, both, 12, 256, **materialised),
        *networks(others, both, dtype="bfloat16"),
        *networks(others, both, 30),
        *networks(others, both, 12, 256),
        *scans(1, 320),
        *scans(30, 256),
        *scans(12, 256, "bfloat16"),
        *scans(12, 320, "float32"),
        *networks(swin[1:], (STEP,), modes=(COMPILED,)),
    ]


if __name__ == "__main__":
    sys.exit(main())
