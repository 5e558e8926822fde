"""Check and measure the package on a GPU in a few minutes; torch, Triton and pytest are all it needs.

    python -m swin_umamba_nnunet.benchmark.gpu_check [--budget SECONDS] [--out FOLDER] [--sweep]

First the operator tests on the device (it stops if one fails), then times from CUDA events, most important first, until
the budget is used up: the scan and SS2D's core per stage shape, fused against materialised (`materialised.py`), then
whole networks.  What was measured goes to one JSON file and, as a table, to the screen.
"""

import argparse
import importlib.util
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from swin_umamba_nnunet.benchmark._cuda import Clock, Figure, cuts, network, nvidia_smi, stage
from swin_umamba_nnunet.ops import backend_report

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
STAGES = ((4, 192), (8, 384), (16, 768), (32, 1536))  # stride, d_inner of VMamba-tiny's stages
TESTS = ("tests/ops/test_triton.py", "tests/ops/test_triton_compiled.py")


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=500, help="seconds in all (default: 500)")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of the JSON file (default: {RESULTS})")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    parser.add_argument("--sweep", action="store_true", help="also time the scan for every way to cut the sequence")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU, to try this script itself")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = "cpu" if options.rehearse else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        logger.error("torch %s finds no CUDA device here; gpu_check measures nothing else", torch.__version__)
        return 2
    clock = Clock(device, options.budget)
    if not (options.no_tests or options.rehearse or tests_pass(clock)):
        return 1
    document: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), **machine(device),
        "backends": backend_report(device), "exps_per_second": clock.exps_per_second, "figures": [],
    }  # fmt: skip
    figures: list[dict] = document["figures"]
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{document['device']}-{document['date'][:16]}.json".replace(" ", "-").replace(":", "").lower()
    for measure in plan(clock, tiny=options.rehearse, sweep=options.sweep):
        if clock.left() < 20:
            logger.info("the time is used up; --budget %.0f measures more", 2 * options.budget)
            break
        try:
            figures += [asdict(figure) for figure in measure()]
        except Exception as error:  # one figure that cannot be had must not cost the others
            logger.warning("not measured: %s: %s", type(error).__name__, str(error).strip().splitlines()[:1])
            figures.append({"not_measured": f"{type(error).__name__}: {error}"[:500]})
            if device == "cuda":
                torch.cuda.empty_cache()
        (options.out / name).write_text(json.dumps(document, indent=1) + "\n")
    logger.info("written to %s", options.out / name)
    return 0


def tests_pass(clock: Clock) -> bool:
    """The operator tests on the device, side by side where pytest-xdist is there (they mostly wait for compilation)."""
    missing = [path for path in TESTS if not (ROOT / path).exists()]
    if missing:
        logger.warning("no tests: %s is no checkout of the repository", ROOT)
        return True
    parallel = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "default", *parallel, *TESTS]
    started = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, timeout=max(60.0, clock.left())).returncode == 0
    logger.info("tests %s after %.0f s", "passed" if passed else "FAILED", time.monotonic() - started)
    return passed


def plan(clock: Clock, tiny: bool, sweep: bool) -> list[Callable[[], list[Figure]]]:
    """What to measure, in order of importance."""
    half, bf16, full = torch.float16, torch.bfloat16, torch.float32
    if tiny:
        steps: list[Callable[[], list[Figure]]] = [lambda: stage(clock, 1, 32, 4, 8, full)]
        return [*steps, lambda: network(clock, "SwinUMambaD", 1, 32, bf16, width=16, depths=(1, 1))]
    shapes = [(12, 320, half), (12, 320, bf16), (12, 256, half), (1, 320, half), (30, 320, half), (12, 320, full),
              (30, 256, half), (12, 256, bf16)]  # fmt: skip
    stages = [
        lambda b=b, s=s, r=r, c=c, t=t: stage(clock, b, s, r, c, t) for b, s, t in shapes for r, c in STAGES
    ]  # fmt: skip
    networks = [
        lambda n=n, t=t, k=k: network(clock, n, 12, 320, t, compiled=k)
        for t, k in ((half, False), (bf16, False), (half, True))
        for n in ("SwinUMambaD", "SwinUMamba")
    ]
    sweeps = [lambda r=r, c=c, b=b: cuts(clock, b, 320, r, c) for b in (12, 1) for r, c in STAGES] if sweep else []
    return [*stages[:4], *sweeps, *networks[:2], *stages[4:20], *networks[2:], *stages[20:]]


def machine(device: str) -> dict[str, str | None]:
    """Device, driver and versions."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__, "triton": None}
    for package in ("triton", "pytorch-triton"):  # the second is what nightly torch brings
        with suppress(PackageNotFoundError):
            versions["triton"] = version(package)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "cuda": torch.version.cuda, "driver": nvidia_smi("driver_version") if device == "cuda" else None, **versions,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
