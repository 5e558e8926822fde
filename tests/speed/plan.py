"""What `check.py` measures, most important first; runs in a process of its own (`jobs.run_group`)."""

import importlib.util
from dataclasses import replace
from functools import partial

import torch

from swin_umamba_nnunet.ops import BACKENDS
from swin_umamba_nnunet.ops._select import unavailable_reason
from swin_umamba_nnunet.ops._selftest import ALLOWED_ERROR, worst_error
from tests.speed import networks, scans
from tests.speed.jobs import Job, work_through
from tests.speed.materialised import pipelines
from tests.speed.measure import Clock
from tests.speed.networks import NETWORKS, TRAINERS
from tests.speed.record import (
    BACKWARD,
    BASELINE,
    BLOCK,
    BOTH,
    COMPILED,
    CORE,
    EAGER,
    FORWARD,
    FUSED,
    GLUE_KERNELS,
    GRAPH,
    INFERENCE,
    KERNELS,
    LAUNCHES,
    LOOP,
    MAMBA_SSM,
    OWN,
    PLAIN_GLUE,
    SAVED,
    SCAN,
    SEQUENCE,
    STAGES,
    STEP,
    WITHOUT,
    Check,
    Figure,
)
from tests.speed.scans import REGISTERS, stages

BATCH, SIDE = 2, 160  # of the networks beside themselves without scans on a CPU
# beside the stages of that size: the first stage of usual images, and an image without work: what a call costs
FURTHER_SHAPES = ((64, 192), (80, 192), (2, 192))
COMPILING = (60.0, 170.0)  # seconds that must be left, and after which it counts as hanging: it takes minutes


def measure(send, done, end, phase, device, wrong):
    """In a group's process: the jobs of a phase, but those whose kernels compute `wrong` values."""
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # as in nnU-Net's commands, it tries its algorithms while warming up
    jobs = of_a_cpu() if phase == "cpu" else of_a_gpu(phase, Clock(device))
    work_through([unless(job, kernels_in(job.stands_for) & {*wrong}) for job in jobs], send, done, end)


def unless(job, wrong):
    """The job, or, where kernels are wrong, what says so."""
    problem = f"the values of {', '.join(sorted(wrong))} are wrong"
    return replace(job, run=lambda: [replace(job.stands_for, problem=problem)]) if wrong else job


def kernels_in(measured):
    """The Triton kernels whose values have to be right for a time to mean something."""
    if isinstance(measured, Check) or {SAVED, BASELINE, MAMBA_SSM} & {
        measured.passes,
        measured.what,
        measured.pipeline,
    }:
        return set()
    both = measured.passes in (BACKWARD, BOTH, STEP)
    norm = measured.pipeline not in (OWN, PLAIN_GLUE) and (measured.what == BLOCK or measured.channels is None)
    return {*KERNELS[: 4 if both else 2], *(GLUE_KERNELS[: 2 if both else 1] if norm else ())}


def jobs_of(clock, figures):
    """A job for each figure."""
    return [
        Job(
            figure,
            partial((networks if figure.channels is None else scans).measure, clock, figure),
            *(COMPILING if figure.mode == COMPILED else ()),
        )
        for figure in figures
    ]


def of_a_gpu(phase, clock):
    """Jobs of a phase, most important first: what the targets are about, what is compiled last."""
    here = pipelines(clock.device)

    def network(names, passes, batch=12, size=320, dtype="float16", modes=(EAGER,), also=()):
        chosen = [
            Figure(name, pipeline, mode, each, dtype, batch, (size, size))
            for name in names
            for mode in modes
            for each in passes
            for pipeline in (FUSED, *also)
        ]
        return jobs_of(clock, [f for f in chosen if f.pipeline in here])

    def scan(*setting):
        return jobs_of(clock, [figure for stage in stages(*setting) for figure in forms(stage, here)])

    def kernels(*settings):
        launched = [replace(s, pipeline=p) for p in settings for s in stages(12, 320, what=LAUNCHES)]
        return jobs_of(clock, [replace(f, passes=passes) for f in launched for passes in (FORWARD, BACKWARD)])

    dagger, swin, both = NETWORKS[:1], NETWORKS[:2], (STEP, INFERENCE)
    shaped = importlib.util.find_spec("nnunetv2") is not None
    others = [name for name in NETWORKS[2:] if shaped or name not in TRAINERS]
    materialised = {"also": (OWN, MAMBA_SSM)}
    if phase == "kernels":
        blocks = [replace(s, pipeline=p) for s in stages(12, 320, what=BLOCK) for p in (FUSED, PLAIN_GLUE)]
        return [
            *kernels(FUSED),
            *([] if MAMBA_SSM in here else [skipped(MAMBA_SSM, unavailable_reason("mamba_ssm", clock.device) or "")]),
            *scan(12, 320),
            *kernels(*REGISTERS),
            *scan(12, 256),
            *saved(clock),
            *jobs_of(clock, [replace(f, passes=passes) for f in blocks for passes in (FORWARD, BOTH)]),
            *scan(1, 320),
            *scan(12, 320, "bfloat16"),
            *scan(30, 320),
            *scan(12, 320, "float32"),
        ]
    return [
        *network(dagger, (STEP,), **materialised),
        *network(swin, (INFERENCE,), 1, modes=(EAGER, GRAPH)),
        *network(swin[1:], (STEP,), **materialised),
        *network(swin, (INFERENCE,), **materialised),
        *network(others, both),
        *([] if shaped else [skipped(f"{', '.join(TRAINERS)}, trainers on the GPU", "nnunetv2 is not installed")]),
        *network(swin, (INFERENCE,), 4),  # one slice, mirrored as nnU-Net does
        *network(swin, (STEP,), dtype="bfloat16", **materialised),
        *network(swin, both, 30),
        *network(swin, both, 12, 256, **materialised),
        *network(dagger, (STEP,), modes=(COMPILED,)),
        *network(dagger, (INFERENCE,), 1, modes=(COMPILED,)),
        *network(swin[1:], (STEP,), modes=(COMPILED,)),
    ]


def forms(stage, pipelines):
    """Of a stage the scan alone, and the core in every pipeline."""
    alone = [replace(stage, what=SCAN, passes=passes) for passes in (FORWARD, BACKWARD)]
    return alone + [replace(stage, pipeline=p, passes=passes) for p in pipelines for passes in (FORWARD, BOTH)]


def saved(clock):
    """What each stage of a network keeps for backward, in the setting of the targets; nothing is computed for it."""
    return jobs_of(clock, stages(12, 320, passes=SAVED))


def of_a_cpu():
    """Each backend right and fast, the scan's stages, other code, networks beside their controls, bytes kept."""
    clock = Clock("cpu", 1.0)
    here = [name for name in BACKENDS if unavailable_reason(name, "cpu") is None]
    shapes = [*FURTHER_SHAPES, *((SIDE // stride, channels) for stride, channels in STAGES)]
    figures = [Figure(CORE, size=(side, side), stride=1, channels=each, backend="numba") for side, each in shapes]
    controls = [Figure(name, WITHOUT, size=(SIDE, SIDE), batch=BATCH) for name in NETWORKS[:2]]
    return [
        *(Job(Check(f"{name} against the reference"), partial(against_reference, name), 0.0) for name in here),
        *jobs_of(clock, [each for figure in figures for each in forms(figure, [FUSED])]),
        *saved(clock),
        *jobs_of(clock, [Figure(SEQUENCE, LOOP, channels=0), *controls]),
    ]


def against_reference(backend):
    """A backend's values and gradients on a CPU."""
    error = worst_error(backend, "cpu")
    detail = f"largest relative L2 error of output and gradients {error:.1e} (allowed: {ALLOWED_ERROR})"
    problem = None if error <= ALLOWED_ERROR else detail
    return [Check(f"{backend} against the reference", detail=detail, problem=problem)]


def skipped(name, why):
    """What is left out, named in the document."""
    said = Check(name, detail=why, skipped=True)
    return Job(said, lambda: [said])
