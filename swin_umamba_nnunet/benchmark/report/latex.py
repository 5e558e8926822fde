"""LaTeX tables of a report, to be read with \\input in a document that uses booktabs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.benchmark.report import words
from swin_umamba_nnunet.benchmark.report.statistics import Comparison
from swin_umamba_nnunet.benchmark.report.summary import Summary

HEAD = (
    "% Made by swin-umamba benchmark report. Needs \\usepackage{booktabs}; read with \\input{tables.tex}.\n"
    "% Means leave out undefined and infinite values, which the HTML report counts.\n"
)
_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", words.MINUS: "$-$", words.DASH: "--", "\u221e": r"$\infty$",
    "\u2026": r"\ldots{}", "\u00b1": r"$\pm$", "\n": " ",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(_ESCAPES.get(character, character) for character in printable(text, lines=True))


def table(head: Sequence[str], lines: Sequence[Sequence[str]], caption: str, label: str) -> str:
    """A table; every cell is escaped here.  The first column is set left, the others right."""
    rows = [r" & ".join(map(escape, line)) + r" \\" for line in lines]
    return "\n".join([
        r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}",
        rf"\caption{{{escape(caption)}}}", rf"\label{{tab:{_label(label)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", r" & ".join(map(escape, head)) + r" \\",
        r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def means_table(title: str, summaries: Sequence[Summary], unit: str, label: str) -> str:
    """Mean, standard deviation over seeds, interval and rank of each row in one metric."""
    metric = summaries[0].metric
    head = ["Trainer", "Cells", metric if unit == "1" else f"{metric} in {unit}", "95 % interval", "Rank"]
    lines = []
    for s in summaries:
        spread = "" if math.isnan(s.sd_seeds) else f" \u00b1 {words.number(s.sd_seeds, unit)}"
        mean, interval = words.number(s.mean, unit) + spread, words.interval(s.low, s.high, unit)
        lines.append([s.label, f"{s.done}/{s.planned}", mean, interval, words.rank(s.rank)])
    caption = (
        f"{title}, {metric}: mean of class means over cases, runs averaged per case, \u00b1 sample standard deviation "
        "over seeds where there are several; 95 % percentile-bootstrap interval over cases; rank of the mean."
    )
    return table(head, lines, caption, label)


def comparison_table(title: str, comparisons: Sequence[Comparison], unit: str, label: str) -> str:
    """Rows against the baseline."""
    head = ["Trainer", "Better/worse", "Difference", "95 % interval", "r", "p (Holm)"]
    lines = [
        [
            c.row,
            f"{c.n_better}/{c.n_worse} of {c.n_pairs}",
            words.number(c.median, unit, True),
            words.interval(c.low, c.high, unit, True),
            words.coefficient(c.effect),
            words.p_value(c.p_holm),
        ]
        for c in comparisons
    ]
    caption = (
        f"{title}: {comparisons[0].metric} minus that of {comparisons[0].baseline}, case by case: in how many cases "
        "the trainer is better and worse, median difference with its 95 % percentile-bootstrap interval over cases, "
        "matched-pairs rank-biserial correlation r (positive where the trainer is better), p of Wilcoxon's signed-rank "
        "test, Holm-corrected over these rows."
    )
    return table(head, lines, caption, label)


def cost_table(title: str, costs: Sequence[Mapping[str, Any]], label: str) -> str:
    """What each row costs."""
    head = ["Trainer", "Parameters", "Multiply-adds", "Epoch", "Memory", "Case"]
    lines = [
        [cost["label"], words.quantity(cost["parameters"], words.COUNT), words.flops(cost),
         words.seconds(cost["seconds_per_epoch"]), words.quantity(cost["peak_memory_bytes"], words.BYTES),
         words.seconds(cost["seconds_per_case"])]
        for cost in costs
    ]  # fmt: skip
    whats = " and ".join(sorted({cost["peak_memory_what"] for cost in costs if cost["peak_memory_what"]}))
    caption = (
        f"{title}: cost. Multiply-adds of one forward pass at batch 1, scans counted; medians over cells; peak memory "
        f"in training{f' ({whats})' if whats else ''}; prediction with everything nnUNetv2_predict does."
    )
    return table(head, lines, caption, label)


def _label(text: str) -> str:
    return "".join(character if character.isalnum() and character.isascii() else "-" for character in text).lower()
