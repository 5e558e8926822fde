"""What `check.py` measures, most important first; runs in a process of its own (`jobs.run_group`)."""

import importlib.util
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from swin_umamba_nnunet.ops import BACKENDS
from swin_umamba_nnunet.ops._select import unavailable_reason
from swin_umamba_nnunet.ops._selftest import ALLOWED_ERROR, worst_error
from tests.speed.jobs import Job, Result, Send, failed, work_through
from tests.speed.materialised import pipelines
from tests.speed.measure import Clock
from tests.speed.networks import (
    NETWORKS,
    TRAINERS,
    controls,
    makes_sense,
    network_jobs,
    set_up_like_nnunet,
)
from tests.speed.record import (
    BACKWARD,
    BASELINE,
    BLOCK,
    BOTH,
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    GLUE_KERNELS,
    GRAPH,
    INFERENCE,
    KERNELS,
    LOOP,
    MAMBA_SSM,
    OWN,
    PLAIN_GLUE,
    SAVED,
    SEQUENCE,
    STAGES,
    STEP,
    Figure,
)
from tests.speed.scans import (
    REGISTERS,
    block_jobs,
    kernel_jobs,
    others,
    saved_jobs,
    stage_jobs,
    stages,
)

AGAINST = " against the reference"
CONTROLS = {"batch": 2, "side": 160}  # of the networks beside themselves without scans on a CPU
# beside the stages of that size: the first stage of usual images, and an image without work: what a call costs
FURTHER_SHAPES = ((64, 192), (80, 192), (2, 192))


def measure(send: Send, done: Collection[str], end: float, phase: str, device: str, wrong: Collection[str]) -> None:
    """The jobs of a phase, but those whose kernels compute `wrong` values."""
    set_up_like_nnunet(device)
    jobs = of_a_cpu() if phase == "cpu" else of_a_gpu(phase, Clock(device))
    work_through([_unless(job, kernels_in(job.stands_for) & {*wrong}) for job in jobs], send, done, end)


def _unless(job: Job, wrong: Collection[str]) -> Job:
    problem = f"the values of {', '.join(sorted(wrong))} are wrong"
    return replace(job, run=lambda: [failed(job.stands_for, problem)]) if wrong else job


def kernels_in(measured: Result) -> set[str]:
    """The Triton kernels whose values have to be right for a time to mean something."""
    if (
        isinstance(measured, dict)
        or measured.passes == SAVED
        or measured.what == BASELINE
        or measured.pipeline == MAMBA_SSM
    ):
        return set()
    both = measured.passes in (BACKWARD, BOTH, STEP)
    norm = measured.pipeline not in (OWN, PLAIN_GLUE) and (measured.what == BLOCK or measured.channels is None)
    return {*KERNELS[: 4 if both else 2], *(GLUE_KERNELS[: 2 if both else 1] if norm else ())}


def of_a_gpu(phase: str, clock: Clock) -> list[Job]:
    """What there is to measure in a phase, most important first: what the targets are about, what is compiled last."""
    here = pipelines(clock.device)

    def networks(names, passes, batch=12, size=320, dtype="float16", modes=(EAGER,), also=()):
        chosen = [
            Figure(name, pipeline, mode, each, dtype, batch, (size, size))
            for name in names
            for mode in modes
            for each in passes
            for pipeline in (FUSED, *also)
        ]
        return network_jobs(clock, [f for f in chosen if makes_sense(f) and f.pipeline in here])

    def scans(*setting):
        return [job for stage in stages(*setting) for job in stage_jobs(clock, stage)]

    dagger, swin, both = NETWORKS[:1], NETWORKS[:2], (STEP, INFERENCE)
    shaped = importlib.util.find_spec("nnunetv2") is not None
    further = [name for name in NETWORKS[2:] if shaped or name not in TRAINERS]
    materialised = {"also": (OWN, MAMBA_SSM)}
    if phase == "kernels":
        return [
            *kernel_jobs(clock),
            *([] if MAMBA_SSM in here else [skipped(MAMBA_SSM, unavailable_reason("mamba_ssm", clock.device) or "")]),
            *scans(12, 320),
            *kernel_jobs(clock, REGISTERS),
            *scans(12, 256),
            *saved_jobs(clock.device),
            *(job for stage in stages(12, 320) for job in block_jobs(clock, stage)),
            *scans(1, 320),
            *scans(12, 320, "bfloat16"),
            *scans(30, 320),
            *scans(12, 320, "float32"),
        ]
    return [
        *networks(dagger, (STEP,), **materialised),
        *networks(swin, (INFERENCE,), 1, modes=(EAGER, GRAPH)),
        *networks(swin[1:], (STEP,), **materialised),
        *networks(swin, (INFERENCE,), **materialised),
        *networks(further, both),
        *([] if shaped else [skipped(f"{', '.join(TRAINERS)}, trainers on the GPU", "nnunetv2 is not installed")]),
        *networks(swin, (INFERENCE,), 4),  # one slice, mirrored as nnU-Net does
        *networks(swin, (STEP,), dtype="bfloat16", **materialised),
        *networks(swin, both, 30),
        *networks(swin, both, 12, 256, **materialised),
        *networks(dagger, (STEP,), modes=(COMPILED,)),
        *networks(dagger, (INFERENCE,), 1, modes=(COMPILED,)),
        *networks(swin[1:], (STEP,), modes=(COMPILED,)),
    ]


def of_a_cpu() -> list[Job]:
    """Each backend right and fast, the scan's stages, other code, networks beside their controls, bytes kept."""
    clock = Clock("cpu", 1.0)
    here = [name for name in BACKENDS if unavailable_reason(name, "cpu") is None]
    shapes = [*FURTHER_SHAPES, *((CONTROLS["side"] // stride, channels) for stride, channels in STAGES)]
    figures = [Figure(CORE, size=(side, side), stride=1, channels=channels) for side, channels in shapes]
    controlled = [Figure(name, size=(CONTROLS["side"],) * 2, batch=CONTROLS["batch"]) for name in NETWORKS[:2]]
    return [
        *(Job(check(f"{name}{AGAINST}"), partial(against_reference, name), 0.0) for name in here),
        *(job for figure in figures for job in stage_jobs(clock, figure, "numba")),
        *saved_jobs("cpu"),
        Job(Figure(SEQUENCE, LOOP, channels=0), partial(others, clock.seconds)),
        *(Job(f, partial(controls, f.what, *CONTROLS.values(), 8 * clock.seconds)) for f in controlled),
    ]


def against_reference(backend: str) -> Iterator[Result]:
    """A backend's values and gradients on a CPU."""
    error = worst_error(backend, "cpu")
    detail = f"largest relative L2 error of output and gradients {error:.1e} (allowed: {ALLOWED_ERROR})"
    yield check(f"{backend}{AGAINST}", detail, error <= ALLOWED_ERROR)


def skipped(name: str, why: str) -> Job:
    """What is left out, named in the document."""
    return Job(said := check(name, why), lambda: [said])


def check(name: str, detail: str = "", passed: bool | None = None) -> Result:
    """One of no group."""
    return {"name": name, "passed": passed, "detail": detail}
