"""Figures that nobody has measured, for what is computed from figures; and jobs that go wrong, for what runs jobs."""

import os
import signal
import sys
import threading
from types import SimpleNamespace

from tests.speed.jobs import Job, work_through
from tests.speed.record import (
    BACKWARD,
    BOTH,
    COMPILED,
    CORE,
    EAGER,
    FORWARD,
    FUSED,
    GRAPH,
    INFERENCE,
    KERNELS,
    LOOP,
    MAMBA_SSM,
    OWN,
    SAVED,
    SCAN,
    SEQUENCE,
    STAGES,
    STEP,
    WITHOUT,
    Check,
    Figure,
    new_document,
)

SLOWER = {FUSED: 1.0, OWN: 4.0, MAMBA_SSM: 2.5}


def scan_figure(what=CORE, pipeline=FUSED, passes=BOTH, size=320, stride=4, channels=192, **numbers):
    return Figure(what, pipeline, EAGER, passes, "float16", 12, (size, size), stride, channels, **numbers)


def of_stages(**known):
    return [scan_figure(stride=stride, channels=channels, **known) for stride, channels in STAGES]


def network_figure(what="SwinUMambaD", pipeline=FUSED, mode=EAGER, passes=STEP, batch=12, **numbers):
    return Figure(what, pipeline, mode, passes, "float16", batch, (320, 320), backend="triton", **numbers)


def cores(size=320, slower=SLOWER, milliseconds=1.0):
    """SS2D's core at all stages; the fused form takes `milliseconds` at each."""
    return [
        figure
        for pipeline, factor in slower.items()
        for figure in of_stages(pipeline=pipeline, size=size, backend="triton", milliseconds=milliseconds * factor)
    ]


def rate(clocks):
    """1e9 state-steps per second that take a scheduler so many clocks for 512, at 2 GHz with 100 multiprocessors."""
    return 512 * 4e6 * 2000 * 100 / 1e9 / clocks


def scans(forward=2.99, backward=5.99):
    """The scan alone, so many times slower than the exp bound (which is 1 ms)."""
    return [
        figure
        for passes, taken, bound in ((FORWARD, forward, 144), (BACKWARD, backward, 152))
        for figure in of_stages(what=SCAN, passes=passes, milliseconds=taken, giga_state_steps=rate(taken * bound))
    ]


def kept(fused=1.0, materialised=4.0):
    return [
        figure
        for pipeline, mebibytes in ((FUSED, fused), (MAMBA_SSM, materialised))
        for figure in of_stages(pipeline=pipeline, passes=SAVED, saved_mebibytes=mebibytes)
    ]


def kernels(clocks=100.0):
    """At the first stage, 2 ms each as launched; and in two other ways, of which the second is faster together."""
    ways = {FUSED: (2, 2), "fused, free registers, 4 warps": (1, 3), "fused, 160 registers, 8 warps": (1.5, 1)}
    return [
        scan_figure(kernel, way, passes, milliseconds=time, giga_state_steps=rate(clocks) * 2 / time)
        for way, times in ways.items()
        for passes, pair in ((FORWARD, KERNELS[:2]), (BACKWARD, KERNELS[2:]))
        for kernel, time in zip(pair, times)
    ]


def networks():
    one = {"passes": INFERENCE, "batch": 1}
    return [
        network_figure(milliseconds=10.0, spread=0.02, peak_mebibytes=600.0, giga_state_steps=3.0),
        network_figure(pipeline=OWN, milliseconds=30.0, peak_mebibytes=1500.0),
        network_figure(pipeline=MAMBA_SSM, milliseconds=16.0, peak_mebibytes=1000.0),
        network_figure(mode=COMPILED, milliseconds=10.1, peak_mebibytes=450.0),
        network_figure(**one, milliseconds=12.0, peak_mebibytes=90.0),
        network_figure(**one, mode=GRAPH, milliseconds=9.9),
        Figure("PlainConvUNet", FUSED, EAGER, STEP, "float16", 12, (320, 320), milliseconds=5.0),
        network_figure(pipeline=WITHOUT, milliseconds=4.0),
        *(Figure(SEQUENCE, p, size=(9,), stride=1, channels=4, milliseconds=t) for p, t in ((FUSED, 2), (LOOP, 9))),
        network_figure("UMambaEnc", problem="out of memory"),
    ]


def document(figures, device="cuda", **changed):
    return {
        **new_document("gpu-check", "cpu", {}),
        "date": "2026-01-02T03:04:05+00:00",
        "device": {"type": device, "name": "Made-up device", "multiprocessors": 100, "highest_clock_megahertz": "2000"},
        "versions": {"torch": "2.0", "triton": None},
        "figures": list(figures),
        **changed,
    }


def everything():
    """What meets every target, but hardly."""
    return document(
        [*cores(), *cores(256, {FUSED: 1.0, OWN: 7.0, MAMBA_SSM: 2.0}), *scans(), *kept(), *networks(), *kernels()]
    )


def lose_the_gpu():
    """As torch is after an illegal access, which is told late: the job itself seems fine."""

    def synchronize():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize))


RUN = {
    "fine": lambda: "the GPU is lost" if "torch" in sys.modules else None,  # no process of these imports it
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "hang": threading.Event().wait,
    "wait": threading.Event().wait,  # and nobody loses patience
    "raises": lambda: int("off by\n  one"),
    "loss": lose_the_gpu,
    "wrong": lambda: "off by one",
}
LIMITS = {"hang": (0.0, 0.2), "late": (1e9,)}


def planted(send, done, end, *names):
    """In a group's process: jobs of the kinds in `RUN`; what is behind a dot tells two of a kind apart."""
    if "unable" in names:
        raise ImportError("no such module here")

    def job(name):
        kind = name.partition(".")[0]
        return Job(Check(name), lambda: [Check(name, problem=RUN[kind]())], *LIMITS.get(kind, (0.0,)))

    work_through([job(name) for name in names], send, done, end)
