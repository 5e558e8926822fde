"""Numbers as text, and sentences that say what the data show and what they do not."""

import math
from collections.abc import Mapping
from typing import Any

from swin_umamba_nnunet.benchmark.report.arenas import lower_is_better
from swin_umamba_nnunet.benchmark.report.statistics import ALPHA, Comparison
from swin_umamba_nnunet.benchmark.report.summary import Suitability

CLEARLY = 3.0  # times the ratio by chance, from where on methods count as spread more than repetitions
MINUS, DASH = "\u2212", "\u2013"


def number(value: float | None, unit: str = "1", signed: bool = False) -> str:
    """A score with four digits, a distance with two; a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return (MINUS if value < 0 else "+" if signed else "") + "\u221e"
    text = f"{abs(value):.{digits(unit)}f}"
    zero = not float(text)
    return ("" if zero else MINUS if value < 0 else "+" if signed else "") + text


def interval(low: float, high: float, unit: str = "1", signed: bool = False) -> str:
    """From where to where; a dash where there is none."""
    return DASH if math.isnan(low) else f"{number(low, unit, signed)} to {number(high, unit, signed)}"


def digits(unit: str) -> int:
    """Decimals of a value with this unit."""
    return 4 if unit == "1" else 2


def coefficient(value: float) -> str:
    """A correlation with its sign and two digits."""
    return DASH if math.isnan(value) else f"{value:+.2f}".replace("-", MINUS)


def rank(value: float) -> str:
    """1, 2.5 (a tie), or a dash."""
    return DASH if math.isnan(value) else f"{value:g}"


def p_value(value: float) -> str:
    """Two significant digits, without pretending to more."""
    if math.isnan(value):
        return DASH
    return (
        "< 0.0001" if value < 1e-4 else "1" if value >= 0.9995 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
    )


def flops(cost: Mapping[str, Any]) -> str:
    """FLOPs out of a row's `summary.costs`; "at least", where operations without a formula are missing from them."""
    return ("at least " if cost["uncounted"] else "") + quantity(cost["flops"], COUNT)


def quantity(value: float | None, suffixes: tuple[tuple[float, str], ...]) -> str:
    """Three significant digits with the first suffix whose size the value reaches."""
    if value is None:
        return DASH
    size, suffix = next(((size, suffix) for size, suffix in suffixes if abs(value) >= size), suffixes[-1])
    scaled = value / size
    decimals = max(0, 2 - int(math.floor(math.log10(abs(scaled))))) if scaled else 0
    return f"{scaled:.{min(decimals, 3)}f}{suffix}"


COUNT = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, ""))
BYTES = ((2**30, " GiB"), (2**20, " MiB"), (1, " B"))


def seconds(value: float | None) -> str:
    """Seconds with three significant digits."""
    return quantity(value, ((1, " s"), (1e-3, " ms")))


def plural(count: int, word: str) -> str:
    """1 case, 2 cases."""
    return f"{count} {word}" + ("" if count == 1 else "s")


def sentence(comparison: Comparison, unit: str) -> str:
    """What the data show about one row against the baseline, and what they do not."""
    c = comparison
    metric, names = c.metric, f"{c.row} and {c.baseline}"
    if math.isnan(c.p):
        return f"Too few common cases ({c.n_pairs}) to compare {names} in {metric}."
    cases = plural(c.n_pairs, "case")
    around = "" if math.isnan(c.low) else f", 95 % interval {interval(c.low, c.high, unit, True)}"
    median = f"median difference {number(c.median, unit, True)}{'' if unit == '1' else ' ' + unit}{around}"
    wins = f"better on {c.n_better} of {cases}, worse on {c.n_worse} ({median})"
    if c.p_least > ALPHA:
        return (
            f"{c.row} against {c.baseline} in {metric}: {wins}. So few cases cannot show anything by "
            "this test: even if one were better on every one of them, the corrected "
            f"p could not fall below {p_value(c.p_least)}."
        )
    if c.p_holm < ALPHA:
        better = c.effect > 0
        verdict = "better" if better else "worse"
        text = f"On these {cases}, {c.row} is {verdict} than {c.baseline} in {metric}: {wins}"
        return f"{text}; corrected p {_is(c.p_holm)}. {_about_seeds(c, unit, better)}"
    return (
        f"The data do not show that {names} differ in {metric} (corrected p {_is(c.p_holm)}), nor that they are equal: "
        f"{c.row} is {wins}."
    )


def _is(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _about_seeds(c: Comparison, unit: str, better: bool) -> str:
    """Whether another training could turn the result, as far as the seeds tell."""
    if c.n_seeds < 2:
        return "With one training each, it is not known whether other seeds would show the same."
    agreeing = c.n_seeds_better if better else c.n_seeds - c.n_seeds_better
    text = f"The means point the same way in {agreeing} of {plural(c.n_seeds, 'seed')}"
    if not math.isnan(c.seed_sd) and abs(c.difference) < c.seed_sd:
        text += (
            f", but they differ by {number(abs(c.difference), unit)}, less than the standard deviation over seeds "
            f"({number(c.seed_sd, unit)}): training again might turn it"
        )
    return text + "."


def direction(metric: str) -> str:
    """Arrow for table heads, with words for those who cannot see it."""
    return "lower is better" if lower_is_better(metric) else "higher is better"


def suitability_sentence(found: Suitability | None) -> str:
    """What the ratio of the two spreads says."""
    if found is None:
        return (
            "Whether this dataset can separate methods is not measured: that takes at least two rows with at least two "
            "finished cells (folds or seeds) each on the same cases."
        )
    numbers = (
        f"The standard deviation between the {found.n_rows} rows' means is {found.between:.4f}, that within a row over "
        f"its folds and seeds {found.within:.4f} (mean over rows): ratio {found.ratio:.2f}. Rows that were all the "
        f"same would give about {found.by_chance:.2f} by chance with {found.n_cells} cells each."
    )
    if found.ratio < 1:
        return (
            f"{numbers} The methods differ less than one method's own repetitions: a poor dataset to tell them apart."
        )
    if found.ratio < CLEARLY * found.by_chance:
        return f"{numbers} The methods spread more than repetitions do, but not by much: read ranks with caution."
    return f"{numbers} The methods spread clearly more than repetitions of one method do."
