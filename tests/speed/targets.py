"""What is to be reached on an H200, and whether a set of figures reaches it.  Needs no torch.

"All SS2D blocks of a network" are the blocks of each stage times the stage's figure, summed.  "The materialised
pipeline" is mamba_ssm's where it was measured, as the targets want it; a ratio to the materialised form on this
package's own 1D kernel is said too, but decides nothing where a target names mamba_ssm.
"""

import math
from dataclasses import replace
from operator import attrgetter, ge, le, lt
from typing import NamedTuple

from tests.speed.record import (
    BACKWARD,
    BOTH,
    COMPILED,
    CORE,
    EAGER,
    FORWARD,
    FUSED,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    SAVED,
    SCAN,
    STEP,
    Figure,
)

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"
BLOCKS = {  # of each stage, by d_inner: encoder and decoder
    "SwinUMambaD": {192: 4, 384: 4, 768: 11, 1536: 2},
    "SwinUMamba": {192: 2, 384: 2, 768: 9, 1536: 2},
}
HALF = ("float16", "bfloat16")  # the first that was measured counts
# kernel -> at most, None for what was not asked; and what `tests/ops/scheduler_model.py` makes of Triton 3.6's code for
# sm_90, three warps on each scheduler (backward, whose two loops are added: two), loads that take 300 clocks
CLOCKS = {
    "forward_kernel": (200, 179),
    "state_kernel": (180, 157),
    "backward_kernel": (1030, 1010),
    "adjoint_kernel": (None, 157),
}
# exponentials and logarithms per step, besides those of the states: of each scan that is computed
EXTRA = {FORWARD: (2,), BACKWARD: (3,), BOTH: (2, 3)}
NOISE = 1.02  # compiled may be slower than eager by so much
TIME, KEPT = attrgetter("milliseconds"), attrgetter("saved_mebibytes")


class Verdict(NamedTuple):
    """One target: `MET`, ..., what was asked for, what was predicted and measured (in words, with units)."""

    verdict: str
    target: str
    predicted: str
    measured: str


def verdicts(document):
    """Every target for one document: those of the issue that states them in its order, then single kernels.

    Times count only from a GPU; bytes kept for backward count from anywhere.  What is predicted, for an H200: bytes are
    counted from shapes; times are what the clocks of `CLOCKS` make of the scans, with the sums and projections around
    them at 4.3 TB/s, beside the 44 to 49 ms that the same model gives for mamba_ssm's pipeline.
    """
    device = document["device"]
    found = [f for f in document["figures"] if not f.problem]
    if device["type"] != "cuda":
        found = select(found, passes=SAVED)
    blocks, over = "all SS2D blocks, batch 12,", "forward+backward, over materialised mamba_ssm"
    step = "training step of dagger, batch 12, 320x320"
    scan = "batch 12, 320x320, all blocks: within"
    faster = _step(found, TIME, lambda slow, fast: f"{slow / fast:.2f} times ({slow:.0f} / {fast:.0f} ms")
    memory = attrgetter("peak_mebibytes")
    smaller = _step(found, memory, lambda slow, fast: f"{1 - fast / slow:.0%} less ({slow:.0f} / {fast:.0f} MiB")
    kept = "activations kept for backward per SS2D, of the materialised mamba_ssm pipeline's: at most a quarter"
    targets = [
        (f"{blocks} 320x320, {over}: at least 2.5 times (stretch: 4)", _speed(found, 320), ge, 2.5, 1.7),
        (kept, _kept(found), le, 0.25, 0.17),
        (f"{blocks} 256x256, {over}: at least 2 times", _speed(found, 256), ge, 2.0, 1.7),
        (f"scan, forward, {scan} 3 times the exp bound", _bound(found, device, FORWARD), le, 3, 2.1),
        (f"scan, backward, {scan} 6 times the exp bound", _bound(found, device, BACKWARD), le, 6, 8.2),
        (f"{step}, time against the materialised pipeline: at least 1.6 times faster", faster, ge, 1.6, None),
        (f"{step}, peak memory against the materialised pipeline: at least 40 % less", smaller, ge, 1 / 0.6, None),
        (
            f"compiled no slower than eager (within {NOISE - 1:.0%}), wherever both were measured",
            _compiled(found),
            le,
            NOISE,
            None,
        ),
        ("prediction of one 320x320 slice at batch 1: under 10 ms", _one_image(found), lt, 10, None),
        *(
            (f"{kernel}, clocks of a scheduler for 512 state-steps: at most {most}", _clocks(found, device, kernel))
            + (le, most, predicted)
            for kernel, (most, predicted) in CLOCKS.items()
            if most
        ),
    ]
    return [_verdict(*each) for each in targets]


def _verdict(target, findings, compare, bound, predicted):
    """Met if every number that decides reaches it.

    Args:
        findings: (what was measured in words, and the number that decides, None where it only is said).
    """
    found = list(findings)
    decisive = [number for _, number in found if number is not None]
    words = "; ".join(words for words, _ in found)
    if predicted and decisive:
        words += f": {decisive[0] / predicted:.2f} of what was predicted"
    verdict = NOT_MEASURED if not decisive else MET if all(compare(each, bound) for each in decisive) else NOT_MET
    return Verdict(verdict, target, f"{predicted or '-'}", words or "-")


def clocks(figure, device):
    """Clocks that each of a multiprocessor's four schedulers needs for 512 state-steps, at the device's highest clock.

    512 state-steps are one step of one warp: a channel for each lane, and N = 16.  None where it is not known.
    """
    per_second = 4e6 * float(device.get("highest_clock_megahertz") or 0) * device.get("multiprocessors", 0)
    return 512 * per_second / (1e9 * figure.giga_state_steps) if per_second and figure.giga_state_steps else None


def percent_of_exp_bound(figure, device):
    """The time in which the GPU can do a scan's exponentials alone, over that taken; None where it is not known.

    A forward scan evaluates one exponential per state and step and two for softplus, the backward pass each once more
    and three for softplus and its derivative.  A scheduler has four per clock; no scan that computes all is faster.
    """
    taken = clocks(figure, device)
    return taken and 100 * sum(1 + extra / figure.states for extra in EXTRA[figure.passes]) * (512 / 4) / taken


def _clocks(found, device, kernel):
    """At the first stage, where the warps are as many as the model's."""
    for figure in select(found, what=kernel, pipeline=FUSED, size=320, batch=12, channels=192):
        if (number := clocks(figure, device)) is not None:
            yield f"{number:.0f} ({figure.milliseconds:.3g} ms, {figure.dtype})", number


def select(figures, **wanted):
    """Those with these values; `size=320` stands for (320, 320)."""
    if "size" in wanted:
        wanted["size"] = (wanted["size"],) * 2
    return [f for f in figures if all(getattr(f, name) == value for name, value in wanted.items())]


def same(found, like, **changed):
    """The figure that differs from `like` in what is named only (and in the backend, where the pipeline differs)."""
    keys = ["what", "pipeline", "mode", "passes", "dtype", "batch", "size", "stride", "channels"]
    wanted = replace(like, **changed)
    keys += ["backend"] if wanted.pipeline == like.pipeline else []
    hits = (f for f in found if all(getattr(f, key) == getattr(wanted, key) for key in keys))
    return next(hits, Figure("nothing"))


def _blocks(over, under, words, value=TIME, least=TIME):
    """For each network the ratio of two sums over its SS2D blocks, of the first dtype that has both."""
    for network, blocks in BLOCKS.items():
        for dtype in HALF:
            one, other = (
                sum(
                    count
                    * (next((of(f) for f in side if (f.channels, f.dtype) == (channels, dtype)), None) or math.nan)
                    for channels, count in blocks.items()
                )
                for side, of in ((over, value), (under, least))
            )
            if not math.isnan(one / other):
                yield f"{network} {one / other:.2f} ({one:.1f} / {other:.1f} {words}, {dtype})", one / other
                break


def _speed(found, size):
    cores = select(found, what=CORE, size=size, batch=12, passes=BOTH)
    for pipeline in (MAMBA_SSM, OWN):
        for said, ratio in _blocks(*(select(cores, pipeline=each) for each in (pipeline, FUSED)), f"ms, {pipeline}"):
            yield said, ratio if pipeline == MAMBA_SSM else None


def _kept(found):
    cores = select(found, what=CORE, size=320, batch=12, passes=SAVED)
    return _blocks(*(select(cores, pipeline=each) for each in (FUSED, MAMBA_SSM)), "MiB in all blocks", KEPT, KEPT)


def _bound(found, device, passes):
    scans = select(found, what=SCAN, pipeline=FUSED, passes=passes, size=320, batch=12)
    scans = [f for f in scans if percent_of_exp_bound(f, device)]
    return _blocks(scans, scans, "ms", TIME, lambda f: TIME(f) * percent_of_exp_bound(f, device) / 100)


def _step(found, value, words):
    for dtype in HALF:
        steps = select(found, what="SwinUMambaD", passes=STEP, mode=EAGER, batch=12, size=320, dtype=dtype)
        slow = [f for pipeline in (MAMBA_SSM, OWN) for f in select(steps, pipeline=pipeline) if value(f)]
        fast = [value(f) for f in select(steps, pipeline=FUSED) if value(f)]
        for rank, figure in enumerate(slow if fast else ()):  # mamba_ssm's decides where there is one
            one, other = value(figure), fast[0]
            yield f"{words(one, other)}, {figure.pipeline}, {dtype})", None if rank else one / other
        if slow and fast:
            return


def _compiled(found):
    for figure in select(found, mode=COMPILED, pipeline=FUSED):
        eager = same(found, figure, mode=EAGER).milliseconds
        if eager and figure.milliseconds:
            ratio = figure.milliseconds / eager
            yield f"{figure.what} {figure.passes} batch {figure.batch} {figure.dtype}: {ratio:.2f} of eager", ratio


def _one_image(found):
    """The fastest mode of each network."""
    for network in BLOCKS:
        ones = select(found, what=network, passes=INFERENCE, batch=1, size=320, pipeline=FUSED)
        if ones := [f for f in ones if f.milliseconds]:
            best = min(ones, key=TIME)
            yield f"{network} {best.milliseconds:.2f} ms ({best.mode}, {best.dtype})", best.milliseconds
