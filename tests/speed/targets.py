"""What is to be reached on an H200, and whether a set of figures reaches it.  Needs no torch.

"All SS2D blocks of a network" are the blocks of each stage times the stage's figure, summed.  "The materialised
pipeline" is mamba_ssm's where it was measured, as the targets want it; a ratio to the materialised form on this
package's own 1D kernel is said too, but decides nothing where a target names mamba_ssm.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.speed.record import (
    BLOCK,
    COMPILED,
    CORE,
    EAGER,
    FUSED,
    INFERENCE,
    MAMBA_SSM,
    OWN,
    SAVED,
    STEP,
    Figure,
    measured,
)

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"
BLOCKS = {  # of each stage, by d_inner: encoder and decoder
    "SwinUMambaD": {192: 4, 384: 4, 768: 11, 1536: 2},
    "SwinUMamba": {192: 2, 384: 2, 768: 9, 1536: 2},
}
HALF = ("float16", "bfloat16")  # the first that was measured counts
NOISE = 1.02  # compiled may be slower than eager by so much


@dataclass(frozen=True)
class Verdict:
    """One target: what was asked for, what was measured (in words, with units), and `MET`, `NOT_MET` or ..."""

    target: str
    measured: str
    verdict: str


def verdicts(document: Mapping[str, Any]) -> list[Verdict]:
    """Every target for one document, in the order of the issue that states them.

    Times count only from a GPU; bytes kept for backward count from anywhere.
    """
    found = measured(document["figures"])
    if document["device"]["type"] != "cuda":
        found = select(found, passes=SAVED)
    return [
        _speed_of_blocks(found, 320, 2.5, "at least 2.5 times (stretch: 4)"),
        _kept(found),
        _speed_of_blocks(found, 256, 2.0, "at least 2 times"),
        _bound(found, "forward", 3.0),
        _bound(found, "backward", 6.0),
        _step(found, "time", "at least 1.6 times faster", lambda ratio: ratio >= 1.6),
        _step(found, "peak memory", "at least 40 % less", lambda ratio: 1 - 1 / ratio >= 0.4),
        _compiled(found),
        _one_image(found),
    ]


def sum_over_blocks(figures: Iterable[Figure], network: str, value: Callable[[Figure], float | None]) -> float | None:
    """Sum over the SS2D blocks of a network of a figure that each stage has; None if a stage is missing."""
    by_channels: Mapping[int | None, float | None] = {figure.channels: value(figure) for figure in figures}
    total = 0.0
    for channels, blocks in BLOCKS[network].items():
        one = by_channels.get(channels)
        if one is None:
            return None
        total += blocks * one
    return total


def select(figures: Iterable[Figure], **wanted: object) -> list[Figure]:
    """Those with these values; `size=320` stands for (320, 320)."""
    side = wanted.get("size")
    if isinstance(side, int):
        wanted["size"] = (side, side)
    return [f for f in figures if all(getattr(f, name) == value for name, value in wanted.items())]


def _speed_of_blocks(figures: Sequence[Figure], size: int, least: float, words: str) -> Verdict:
    target = f"all SS2D blocks, batch 12, {size}x{size}, forward+backward, over materialised mamba_ssm: {words}"
    said, ratios = [], []
    for network in BLOCKS:
        for pipeline in (MAMBA_SSM, OWN):
            for dtype in HALF:
                cores = select(figures, what=CORE, batch=12, size=size, dtype=dtype,
                               passes="forward+backward")  # fmt: skip
                slow, fast = (sum_over_blocks(select(cores, pipeline=each), network, lambda f: f.milliseconds)
                              for each in (pipeline, FUSED))  # fmt: skip
                if slow is not None and fast:
                    ratios += [slow / fast] if pipeline == MAMBA_SSM else []
                    said.append(f"{network} {slow / fast:.2f} times ({slow:.1f} / {fast:.1f} ms, {pipeline}, {dtype})")
                    break
    return _verdict(target, said, ratios, lambda ratio: ratio >= least)


def _kept(figures: Sequence[Figure]) -> Verdict:
    target = "activations kept for backward per SS2D, of the materialised mamba_ssm pipeline's: at most a quarter"
    said, shares = [], []
    for what in (CORE, BLOCK):
        for dtype in HALF:
            kept = select(figures, what=what, passes=SAVED, batch=12, size=320, dtype=dtype)
            slow, fast = (sum_over_blocks(select(kept, pipeline=each), "SwinUMambaD", lambda f: f.saved_mebibytes)
                          for each in (MAMBA_SSM, FUSED))  # fmt: skip
            if slow and fast:
                shares += [fast / slow] if what == CORE else []
                said.append(f"{what} {fast / slow:.2f} ({fast:.0f} / {slow:.0f} MiB in all blocks of dagger, {dtype})")
                break
    return _verdict(target, said, shares, lambda share: share <= 0.25)


def _bound(figures: Sequence[Figure], passes: str, most: float) -> Verdict:
    target = f"scan, {passes}, batch 12, 320x320, all blocks: within {most:g} times the exp bound"
    said, ratios = [], []
    for network in BLOCKS:
        for dtype in HALF:
            scans = select(figures, what="scan", pipeline=FUSED, passes=passes, batch=12, size=320, dtype=dtype)
            taken = sum_over_blocks(scans, network, lambda f: f.milliseconds)
            bound = sum_over_blocks(scans, network, _bound_milliseconds)
            if taken and bound:
                ratios.append(taken / bound)
                said.append(f"{network} {taken / bound:.2f} times ({taken:.2f} / {bound:.2f} ms, {dtype})")
                break
    return _verdict(target, said, ratios, lambda ratio: ratio <= most)


def _bound_milliseconds(figure: Figure) -> float | None:
    if figure.percent_of_exp_bound is None or figure.milliseconds is None:
        return None
    return figure.milliseconds * figure.percent_of_exp_bound / 100


def _step(figures: Sequence[Figure], what: str, words: str, reached: Callable[[float], bool]) -> Verdict:
    target = f"training step of dagger, batch 12, 320x320, {what} against the materialised pipeline: {words}"
    said: list[str] = []
    ratios: list[float] = []
    for dtype in HALF:
        steps = select(figures, what="SwinUMambaD", passes=STEP, mode=EAGER, batch=12, size=320, dtype=dtype)
        for pipeline in (MAMBA_SSM, OWN):
            for slow, fast in zip(select(steps, pipeline=pipeline), select(steps, pipeline=FUSED)):
                pair = [(f.milliseconds, "ms") if what == "time" else (f.peak_mebibytes, "MiB") for f in (slow, fast)]
                if pair[0][0] and pair[1][0]:
                    ratio = pair[0][0] / pair[1][0]
                    ratios += [] if ratios else [ratio]  # mamba_ssm's where there is one
                    less = f"{ratio:.2f} times" if what == "time" else f"{1 - 1 / ratio:.0%} less"
                    numbers = f"{pair[0][0]:.0f} / {pair[1][0]:.0f} {pair[0][1]}"
                    said.append(f"{less} ({numbers}, {pipeline}, {dtype})")
        if ratios:
            break
    return _verdict(target, said, ratios, reached)


def _compiled(figures: Sequence[Figure]) -> Verdict:
    target = f"compiled no slower than eager (within {NOISE - 1:.0%}), wherever both were measured"
    said, ratios = [], []
    for figure in select(figures, mode=COMPILED, pipeline=FUSED):
        same = select(figures, what=figure.what, mode=EAGER, pipeline=FUSED, passes=figure.passes, dtype=figure.dtype,
                      batch=figure.batch, size=figure.size)  # fmt: skip
        if same and same[0].milliseconds and figure.milliseconds:
            ratios.append(figure.milliseconds / same[0].milliseconds)
            said.append(f"{figure.what} {figure.passes} batch {figure.batch} {figure.dtype}: {ratios[-1]:.2f} of eager")
    return _verdict(target, said, ratios, lambda ratio: ratio <= NOISE)


def _one_image(figures: Sequence[Figure]) -> Verdict:
    target = "prediction of one 320x320 slice at batch 1: under 10 ms"
    said, best = [], []
    for network in BLOCKS:
        found = [f for f in select(figures, what=network, passes=INFERENCE, batch=1, size=320, pipeline=FUSED)
                 if f.milliseconds is not None]  # fmt: skip
        said += [f"{network} {f.milliseconds:.2f} ms ({f.mode}, {f.dtype})" for f in found]
        best += [min(f.milliseconds for f in found if f.milliseconds is not None)] if found else []
    return _verdict(target, said, best, lambda milliseconds: milliseconds < 10)


def _verdict(target: str, said: Sequence[str], decisive: Sequence[float], reached: Callable[[float], bool]) -> Verdict:
    """Met if every decisive number reaches it."""
    verdict = NOT_MEASURED if not decisive else MET if all(map(reached, decisive)) else NOT_MET
    return Verdict(target, "; ".join(said) or "-", verdict)
