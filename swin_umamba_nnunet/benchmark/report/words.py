"""Numbers as text, and sentences that say what the data show and what they do not."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swin_umamba_nnunet import _text
from swin_umamba_nnunet._text import plural
from swin_umamba_nnunet.benchmark.files import Record
from swin_umamba_nnunet.benchmark.report.analysis import Result, Suitability
from swin_umamba_nnunet.benchmark.report.collect import lower_is_better
from swin_umamba_nnunet.benchmark.report.statistics import ALPHA, AT_MOST, POWER, Comparison
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES

CLEARLY = 3.0  # times the ratio by chance, from where on methods count as spread more than repetitions
MINUS, DASH = "\u2212", "\u2013"


def number(value: float | None, unit: str = "1", signed: bool = False) -> str:
    """A score with four digits, a distance with two; a dash where there is none."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return (MINUS if value < 0 else "+" if signed else "") + "\u221e"
    text = f"{abs(value):.{4 if unit == '1' else 2}f}"
    zero = not float(text)
    return ("" if zero else MINUS if value < 0 else "+" if signed else "") + text


def interval(low: float, high: float, unit: str = "1", signed: bool = False) -> str:
    """From where to where; a dash where there is none."""
    return DASH if math.isnan(low) else f"{number(low, unit, signed)} to {number(high, unit, signed)}"


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


def flops(cost: Record) -> str:
    """FLOPs out of a row's `analysis.costs`; "at least", where operations without a formula are missing from them."""
    return ("at least " if cost["uncounted"] else "") + count(cost["flops"])


def quantity(value: float | None, suffixes: tuple[tuple[float, str], ...]) -> str:
    """Three significant digits with the first suffix whose size the value reaches."""
    if value is None:
        return DASH
    size, suffix = next(((size, suffix) for size, suffix in suffixes if abs(value) >= size), suffixes[-1])
    scaled = value / size
    decimals = max(0, 2 - int(math.floor(math.log10(abs(scaled))))) if scaled else 0
    return f"{scaled:.{min(decimals, 3)}f}{suffix}"


def count(value: float | None) -> str:
    """A number of parameters or operations."""
    return quantity(value, ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")))


def _where_given(how: Callable[[Any], str]) -> Callable[[Any], str]:
    """What makes of a value what `how` does, and a dash where there is none."""
    return lambda value: DASH if value is None else how(value)


by, byte_size, duration = _where_given(_text.by), _where_given(_text.byte_size), _where_given(_text.duration)


def seconds(value: float | None) -> str:
    """Seconds with three significant digits."""
    return quantity(value, ((1, " s"), (1e-3, " ms")))


def names(found: Sequence[str]) -> str:
    """A, B and C; with semicolons where a name has a comma itself."""
    between = "; " if any("," in name for name in found) else ", "
    return " and ".join(filter(None, (between.join(found[:-1]), found[-1])))


def in_unit(metric: str, unit: str) -> str:
    """A metric's name with its unit, where it has one."""
    return metric if unit == "1" else f"{metric} in {unit}"


def direction(metric: str) -> str:
    """For table heads and axes."""
    return "lower is better" if lower_is_better(metric) else "higher is better"


def best(result: Result, metric: str, name: str = ALL_CLASSES) -> float:
    """The best mean of a class among the trainers that were scored on all cases; NaN where there is none."""
    tables = [table for label, table in result.class_tables[metric].items() if result.ranked(label)]
    means = [table[name].mean for table in tables if name in table and not math.isnan(table[name].mean)]
    return (min if lower_is_better(metric) else max)(means, default=math.nan)


def difference(comparison: Comparison, unit: str) -> str:
    """The median one; a dash where it is infinite, for which `lost` has counts."""
    return number(comparison.median, unit, True) if math.isfinite(comparison.median) else DASH


def lost(comparison: Comparison) -> str:
    """Infinite differences as counts; "" where there are none."""
    c = comparison
    counts = ((c.n_lost, c.row), (c.n_lost_baseline, c.baseline))
    return ", ".join(f"{times} of {c.n_pairs} not found by {name}" for times, name in counts if times)


def shown(comparisons: Mapping[str, Sequence[Comparison]], unit: str) -> str:
    """What the data show, beyond the table: for which rows the test does, by metric, the one that decides (whose unit
    is given) first, and whether its seeds agree."""
    metric, baseline = next((found[0].metric, found[0].baseline) for found in comparisons.values())
    verdicts: dict[str, dict[str, list[str]]] = {name: {} for name in comparisons}
    for c in itertools.chain(*comparisons.values()):
        if c.clear:
            verdicts[c.metric].setdefault("Better" if c.effect > 0 else "Worse", []).append(c.row)
    texts = [] if verdicts[metric] else [f"No row is shown to differ from {baseline} in {metric}."]
    for name, found in verdicts.items():
        if found == verdicts[metric] and name != metric:
            texts += [f"The same in {name}."] * bool(found)
        else:
            for word, rows in sorted(found.items()):
                every = len(rows) == len(comparisons[name]) > 2
                texts.append(f"{word} than {baseline} in {name}: {'every other row' if every else names(rows)}.")
    return " ".join([*texts, *filter(None, (_about_seeds(c, unit) for c in comparisons[metric] if c.clear))])


def not_shown(comparisons: Sequence[Comparison], unit: str) -> str:
    """What they do not show; and where interval and test disagree, why."""
    first = comparisons[0]
    texts = []

    def which(rows: Sequence[str]) -> str:
        return "any row" if len(rows) == len(comparisons) > 2 else names(rows)

    if rows := [c.row for c in comparisons if not c.clear and not c.hopeless]:
        differ = "differs" if len(rows) == 1 or which(rows) == "any row" else "differ"
        texts.append(f"That {which(rows)} {differ} from {first.baseline} in {first.metric}, or that they are equal.")
    hopeless = [c for c in comparisons if c.hopeless]
    scored = Counter(c.family for c in comparisons)
    so_far = " with the rows scored so far" * any(c.tests > scored[c.family] for c in hopeless)
    for pairs, least in dict.fromkeys((c.n_pairs, c.p_least) for c in hopeless):
        rows = [c.row for c in hopeless if (c.n_pairs, c.p_least) == (pairs, least)]
        texts.append(
            f"Anything about {which(rows)}: even if one were better on every one of {plural(pairs, 'common case')}, "
            f"the corrected p could not fall below {p_value(1.0 if math.isnan(least) else least)}{so_far}."
        )
    texts += [disagreement(c, unit) for c in comparisons]
    if all(c.n_seeds < 2 for c in comparisons):
        shared = f"no row has more than one finished seed in common with {first.baseline}"
        texts.append(f"Whether other trainings would show the same: {shared}.")
    return " ".join(filter(None, texts)) or "Whether other datasets would show the same."


def disagreement(comparison: Comparison, unit: str) -> str:
    """Why the interval of the median leaves out 0 and the test shows nothing, or the other way round; "" if not so."""
    c = comparison
    outside = c.low > 0 or c.high < 0
    if c.hopeless or math.isnan(c.low) or outside == c.clear:
        return ""
    if c.clear:
        return (
            f"{c.row}: the interval of the median includes 0 although the test shows a difference, because the test "
            "also weighs how large differences are."
        )
    if c.p < ALPHA:
        return f"{c.row}: the interval leaves out 0, and p is {p_value(c.p)} before the correction for {c.tests} tests."
    counts = ((c.n_worse, "worse", c.loss), (c.n_better, "better", c.gain))
    many, few = counts if c.n_worse > c.n_better else counts[::-1]
    return (
        f"{c.row}: the interval of the median leaves out 0 because {many[0]} of {c.n_pairs} cases are {many[1]} (by "
        f"{number(many[2], unit)} in the middle); the test shows nothing, because it weighs sizes too: {few[0]} "
        f"{few[1]}, by {number(few[2], unit)}."
    )


def settling(comparisons: Sequence[Comparison]) -> str:
    """How many cases or seeds would show the observed differences that are not shown."""
    chance = f"{100 * POWER:.0f} %"
    left = [c for c in comparisons if not c.clear]
    texts = []
    if known := {c.row: _many(c.cases_needed, AT_MOST * c.n_pairs) for c in left if not math.isnan(c.cases_needed)}:
        texts.append(f"Cases, for a chance of {chance} to show the differences seen here: {_by_number(known)}.")
    if known := {c.row: _many(c.seeds_needed, AT_MOST) for c in comparisons if c.seeds_needed > c.n_seeds}:
        texts.append(
            f"Seeds of each, to show that recipes and not only these trainings differ so: {_by_number(known)}."
        )
    if all(c.n_seeds < 2 and math.isnan(c.seeds_needed) for c in comparisons):
        texts.append("A second seed of each: from one, the number of seeds that would do cannot be computed.")
    return " ".join(texts) or "Nothing is left open on this dataset; others, and more seeds."


def _many(needed: float, most: int) -> str:
    return f"more than {most:,}" if math.isinf(needed) else f"about {float(f'{needed:.2g}'):,.0f}"


def _by_number(known: Mapping[str, str]) -> str:
    groups = {many: [row for row in known if known[row] == many] for many in known.values()}
    return ", ".join(f"{many} ({names(rows)})" for many, rows in groups.items())


def _about_seeds(c: Comparison, unit: str) -> str:
    """Whether another training could turn a clear result, as far as the seeds tell; "" if they agree."""
    against = c.n_seeds - c.n_seeds_better if c.effect > 0 else c.n_seeds_better
    text = f" the other way round in {against} of {plural(c.n_seeds, 'seed')}." if against else ""
    if not math.isnan(c.seed_sd) and abs(c.difference) < c.seed_sd:
        text += (
            f" Its mean differs by {number(abs(c.difference), unit)}, less than the standard deviation over seeds "
            f"({number(c.seed_sd, unit)}): training again might turn it."
        )
    return f"{c.row} in {c.metric}:{text}" if text else ""


def suitability(found: Suitability | None) -> tuple[str, str]:
    """Severity (as in `fairness`) and meaning of the ratio of the two spreads."""
    if found is None:
        return "unknown", (
            "Whether a dataset can separate methods is not measured: that takes at least two rows with at least two "
            "finished runs (folds or seeds) each on the same cases."
        )
    numbers = (
        f"The standard deviation between the {found.n_rows} rows' means is {found.between:.4f}, that within a row over "
        f"its folds and seeds {found.within:.4f} (mean over rows): ratio {found.ratio:.2f}. Rows that were all the "
        f"same would give about {found.by_chance:.2f} by chance with {found.n_runs} runs each."
    )
    if found.ratio < 1:
        return "problem", (
            f"{numbers} The methods differ less than one method's own repetitions: a poor dataset to tell them apart."
        )
    if found.ratio < CLEARLY * found.by_chance:
        return (
            "flag",
            f"{numbers} The methods spread more than repetitions do, but not by much: read ranks with caution.",
        )
    return "fine", f"{numbers} The methods spread clearly more than repetitions of one method do."
