"""Measure how fast this machine runs the parts of the networks and whole networks, and show what was measured.

    make bench                                          the selective scan: exact? fast? on a CPU whole networks too
    make bench WHAT=networks ARGS="--json mine.json"    networks: training step and inference, memory
    make bench WHAT=report ARGS="mine.json --plot mine.png"

`python -m tests.speed.bench WHAT` is the same.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from swin_umamba_nnunet._atomic import replacing, write_text
from swin_umamba_nnunet.ops import BACKENDS, PLAIN, backend_report
from swin_umamba_nnunet.ops._selftest import ALLOWED_ERROR, worst_error
from tests.speed.materialised import pipelines
from tests.speed.measure import Clock, Job, run_jobs
from tests.speed.networks import (
    NETWORKS,
    STEP_CONVENTION,
    Builder,
    controls,
    makes_sense,
    network_jobs,
    set_up_like_nnunet,
)
from tests.speed.record import (
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GRAPH,
    INFERENCE,
    MAMBA_SSM,
    MAMBAPY,
    OWN,
    RESULTS,
    SEQUENCE,
    STEP,
    Figure,
    new_document,
    read_document,
)
from tests.speed.report import markdown
from tests.speed.scans import STAGES, others, saved_jobs, stage_jobs

PIPELINES = {"fused": FUSED, "own": OWN, "mamba_ssm": MAMBA_SSM}
PASSES = {"step": STEP, "inference": INFERENCE}
MODES = {"eager": EAGER, "compiled": COMPILED, "graph": GRAPH}
REFERENCE_SIDE = 12  # the plain backends are timed on a small image: they take minutes on a real one
CONTROLS = {"batch": 2, "side": 160}  # of the networks beside themselves without scans on a CPU
# beside the stages of that size: the first stage of larger images, and an image without work: what a call costs
FURTHER_SHAPES = ((80, 192), (2, 192))


def main(arguments: list[str] | None = None) -> int:
    """Measure and report; returns the exit status.

    0; 1 if a backend computes wrong or nothing could be measured; 2 for options that make no sense; 130 if interrupted.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        for name in ("json", "markdown", "plot"):
            if (file := getattr(options, name, None)) and not file.absolute().parent.is_dir():
                raise ValueError(f"--{name} {file}: the folder {file.absolute().parent} does not exist; make it first")
        return {"ops": ops, "networks": networks, "report": report}[options.what](options)
    except ValueError as error:
        parser.exit(2, f"bench {options.what}: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    cuda = here == "cuda"

    scans = whats.add_parser("ops", help="the selective scan: each backend checked against the reference, timed")
    scans.add_argument("--backend", choices=BACKENDS, help="only this backend (default: every one that can run)")
    scans.add_argument("--size", type=_count, nargs=2, default=(64, 64), metavar=("H", "W"), help="positions (64 64)")
    scans.add_argument("--batch", type=_count, default=1, metavar="N", help="images per call (1)")
    scans.add_argument("--channels", type=_count, default=192, metavar="D", help="inner width d_inner (192)")
    scans.add_argument("--states", type=_count, default=16, metavar="N", help="states per channel, d_state (16)")

    whole = whats.add_parser("networks", help="whole networks: training step, inference, memory; forms of the scan")
    add = partial(whole.add_argument, nargs="+")
    add("--networks", choices=NETWORKS, default=NETWORKS, metavar="NAME", help=f"of {', '.join(NETWORKS)} (all)")
    add("--batch", type=_count, metavar="N", help="images per call (12 30 and 1 on a GPU, 1 on a CPU)")
    add("--size", type=_count, metavar="PIXELS", help="side of the square images (320 256 on a GPU, 64 on a CPU)")
    add("--dtype", choices=("float16", "bfloat16", "float32"), help="of autocast; float32 for none")
    add("--passes", choices=PASSES, default=[*PASSES], help="(both)")
    add(
        "--pipelines",
        choices=PIPELINES,
        help="fused = the scan read in place; own = every direction written "
        "out\nin memory as the authors do; mamba_ssm = the same on its extension (all that run here)",
    )
    add("--modes", choices=MODES, help="compiled takes minutes, graph is one image's (all on a GPU, eager on a CPU)")
    whole.add_argument("--budget", type=float, metavar="S", help="begin no measurement after so many seconds")
    for each in (scans, whole):
        each.add_argument("--device", choices=("cpu", "cuda"), default=here, help=f"({here})")
        each.add_argument("--threads", type=_count, metavar="N", help="CPU threads (torch's choice)")
        each.add_argument("--seconds", type=float, default=0.3 if cuda else 2.0, metavar="S", help="for each figure")
        each.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, after each one")

    shown = whats.add_parser("report", help="a table and a plot of what was measured")
    shown.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSON files (those kept beside this tool)")
    shown.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, not to the screen")
    shown.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures, as .png, .svg or .pdf")
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return number


def ops(options: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Check each backend, then time it; on a CPU also the stages of a network, other code, and whole networks.

    A backend asked for by name is measured alone.
    """
    clock, document = _begin(options, "bench ops", say)
    states = document["backends"]
    if options.backend and states[options.backend] != "available":
        raise ValueError(f"--backend {options.backend} cannot run on {options.device}: {states[options.backend]}")
    wanted = [options.backend] if options.backend else [name for name in BACKENDS if states[name] == "available"]
    for name in wanted:
        error = worst_error(name, options.device, options.states)
        document["checks"].append(
            {
                "name": f"{name} against the reference",
                "passed": error <= ALLOWED_ERROR,
                "detail": f"largest relative L2 error of output and gradients {error:.1e} (allowed: {ALLOWED_ERROR})",
            }
        )
    like = Figure(CORE, batch=options.batch, stride=1, channels=options.channels, states=options.states)
    jobs = []
    for name in wanted:
        size = tuple(min(side, REFERENCE_SIDE) if name in PLAIN else side for side in options.size)
        jobs += stage_jobs(clock, replace(like, size=size), name)
    failed = not all(check["passed"] for check in document["checks"])
    if options.device == "cpu" and not options.backend and not failed:
        side, batch = CONTROLS["side"], CONTROLS["batch"]
        shapes = [*FURTHER_SHAPES, *((side // stride, channels) for stride, channels in STAGES)]
        for positions, channels in shapes:
            stage = Figure(CORE, size=(positions, positions), stride=1, channels=channels)
            jobs += stage_jobs(clock, stage, "numba")[1:]
        jobs.append(Job(Figure(SEQUENCE, MAMBAPY, channels=0), partial(others, options.seconds)))
        jobs += [
            Job(Figure(name, batch=batch, size=(side, side)), partial(controls, name, batch, side, 8 * options.seconds))
            for name in NETWORKS[:2]
        ]
    code = _measure(jobs, clock, document, options, say)
    return 1 if failed else code


def networks(options: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Time networks in every combination that makes sense."""
    chosen = figures(options)
    clock, document = _begin(options, "bench networks", say)
    say(f"{len(chosen)} measurements of networks; Ctrl-C ends it and keeps what there is\n{STEP_CONVENTION}\n")
    jobs = [*saved_jobs(options.device), *network_jobs(clock, Builder(), chosen)]
    return _measure(jobs, clock, document, options, say)


def figures(options: argparse.Namespace) -> list[Figure]:
    """Every combination that makes sense, in order of interest.

    Eager before compiled, which takes minutes; first one image at a time, which is what prediction without mirroring
    does, where there is a GPU.  Other pipelines are compared eagerly, CUDA graphs at one image only: larger batches are
    not bound by launches.

    Raises:
        ValueError: something that cannot run on the device.
    """
    cuda, here = options.device == "cuda", pipelines(options.device)
    if not cuda and "graph" in (options.modes or ()):
        raise ValueError("--modes graph: CUDA graphs need a CUDA device; choose eager or compiled")
    if absent := [name for name in options.pipelines or () if PIPELINES[name] not in here]:
        raise ValueError(f"--pipelines {' '.join(absent)} cannot run on {options.device}: see swin-umamba doctor")
    batches = options.batch or ((12, 30) if cuda else (1,))
    alone = (1,) if cuda and 1 not in batches else ()
    sides, dtypes = ((320, 256), ("float16", "bfloat16")) if cuda else ((64,), ("float32",))
    modes = options.modes or (MODES if cuda else ("eager",))
    forms = options.pipelines or [each for each in PIPELINES if PIPELINES[each] in here]
    chosen = []
    sides, dtypes = options.size or sides, options.dtype or dtypes
    batches = (*alone, *batches)
    for mode, batch, side, dtype, name, pipeline, passes in product(
        modes, batches, sides, dtypes, options.networks, forms, options.passes
    ):
        figure = Figure(name, PIPELINES[pipeline], MODES[mode], PASSES[passes], dtype, batch, (side, side))
        comparing = figure.pipeline != FUSED
        if batch in alone and (comparing or figure.passes != INFERENCE):
            continue
        if makes_sense(figure) and not (comparing and mode != "eager") and not (mode == "graph" and batch > 1):
            chosen.append(figure)
    return chosen


def report(options: argparse.Namespace) -> int:
    """Tables and a plot of JSON files."""
    files = options.files or sorted(RESULTS.glob("*.json"))
    if not files:
        raise ValueError(
            f"no figures yet: {RESULTS} holds none, since nobody has run `make gpu-check` on a GPU; name a file of "
            'your own, made by   make bench WHAT=networks ARGS="--json FILE"'
        )
    documents = [read_document(file) for file in files]
    text = "\n".join(map(markdown, documents))
    if options.markdown:
        write_text(options.markdown, text)
    print(f"tables of {len(documents)} runs written to {options.markdown}" if options.markdown else text)
    if options.plot:
        from tests.speed.plot import FORMATS, draw

        if options.plot.suffix not in FORMATS:
            raise ValueError(f"--plot {options.plot}: expected a name that ends in {', '.join(FORMATS)}")
        with replacing(options.plot) as unfinished:
            draw(documents, unfinished, options.plot.suffix[1:])
        print(f"plot written to {options.plot}")
    return 0


def _begin(options: argparse.Namespace, command: str, say: Callable[[str], None]) -> tuple[Clock, dict[str, Any]]:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    set_up_like_nnunet(options.device)
    asked = {name: value for name, value in vars(options).items() if name not in ("json", "what")}
    document = new_document(command, options.device, asked)
    say(f"{document['device']['name']}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, state in backend_report(options.device).items():
        say(f"  {name}: {state}")
    return Clock(options.device, getattr(options, "budget", None), options.seconds), document


def _measure(
    jobs: list[Job], clock: Clock, document: dict[str, Any], options: argparse.Namespace, say: Callable[[str], None]
) -> int:
    finished = run_jobs(jobs, clock, document, options.json, say)
    say("\n" + markdown(document))
    if options.json:
        say(f'written to {options.json}; make bench WHAT=report ARGS="{options.json} --plot FILE.png" draws it')
    return 130 if not finished else 0 if any(not figure.problem for figure in document["figures"]) else 1


if __name__ == "__main__":
    sys.exit(main())
