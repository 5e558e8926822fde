"""The checklist of nnU-Net Revisited (arXiv 2404.09556) and of our own, filled in from what this benchmark recorded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet.benchmark.report.arenas import Arena
from swin_umamba_nnunet.benchmark.report.collect import Benchmark, Row
from swin_umamba_nnunet.benchmark.report.statistics import ALPHA, Comparison
from swin_umamba_nnunet.benchmark.report.summary import Suitability
from swin_umamba_nnunet.benchmark.report.words import CLEARLY, plural

OK, CAUTION, PROBLEM, UNKNOWN = "in order", "caution", "problem", "not known"
FEW_DATASETS, FEW_SEEDS = 3, 3
# Findings of the runner that say that rows differ in more than what is compared; the last three spoil a comparison.
_CONFOUNDERS = (
    "plans_differ", "patch_differs", "batch_differs", "mirroring_differs", "own_protocol",
    "iterations_differ", "split_differs", "scored_cases_differ",
)  # fmt: skip
_NOT_RECORDED = (
    "This benchmark was run by a version that did not record what its trainers derive from; run it once more (finished "
    "cells are kept) to have it recorded."
)


@dataclass(frozen=True)
class Item:
    """One line of the checklist: what to look at, one of `OK`, `CAUTION`, `PROBLEM`, `UNKNOWN`, and why."""

    question: str
    verdict: str
    answer: str


def checklist(
    benchmark: Benchmark,
    arenas: Sequence[Arena],
    suitabilities: Mapping[str, Suitability | None],
    comparisons: Sequence[Comparison],
) -> list[Item]:
    """All items.

    Args:
        benchmark: all of it.
        arenas: of it.
        suitabilities: by title of the arena.
        comparisons: all that were made.
    """
    return [
        _pretraining(benchmark),
        _confounders(benchmark),
        _baselines(benchmark),
        _controls(benchmark),
        _lengths(benchmark),
        *_datasets(arenas, suitabilities),
        _repetitions(benchmark),
        _completeness(benchmark, arenas),
        _tuning(benchmark),
        _tests(comparisons),
        _hardware(benchmark),
        _resumed(benchmark),
    ]


def _codes(benchmark: Benchmark, *codes: str) -> list[str]:
    return [str(item.get("text", "")) for item in benchmark.findings if item.get("code") in codes]


def _pretraining(benchmark: Benchmark) -> Item:
    question = "Confounding booster: pretraining"
    pretrained = [row for row in benchmark.rows if row.weights]
    if not pretrained:
        return Item(question, OK, "No row starts from pretrained weights.")
    names = ", ".join(row.label for row in pretrained)
    if len(pretrained) == len(benchmark.rows):
        return Item(question, CAUTION, f"All rows start from ImageNet weights ({names}); none shows what they add.")
    missing = [row.label for row in pretrained if not _has_scratch(row, benchmark.rows)]
    if missing:
        text = f"{names} start from ImageNet weights, the other rows do not; without the same network from random "
        return Item(
            question, PROBLEM, f"{text}weights a gain cannot be put down to architecture ({', '.join(missing)})."
        )
    return Item(question, CAUTION, f"{names} start from ImageNet weights. Their versions from random weights are rows "
                "too: compare architectures by those.")  # fmt: skip


def _has_scratch(row: Row, rows: Sequence[Row]) -> bool:
    found = row.identity
    if found is None or found.record is None:
        return False
    return any(other.identity and other.identity.name == found.record.scratch + found.suffix for other in rows)


def _confounders(benchmark: Benchmark) -> Item:
    question = "Confounding boosters: plans, patch, batch, iterations, augmentation, split"
    found = _codes(benchmark, *_CONFOUNDERS)
    if found:
        return Item(question, PROBLEM if _codes(benchmark, *_CONFOUNDERS[-3:]) else CAUTION, " ".join(found))
    if "findings" not in benchmark.content:
        return Item(question, UNKNOWN, "This benchmark recorded no findings about its fairness.")
    return Item(question, OK, "Same plans, patch and batch size, number of iterations, split and scored cases for all "
                "rows; none replaces nnU-Net's data loading, augmentation or loss.")  # fmt: skip


def _baselines(benchmark: Benchmark) -> Item:
    question = "Baselines: nnU-Net and its residual encoder"
    if any(row.identity is None for row in benchmark.rows):
        return Item(question, UNKNOWN, _NOT_RECORDED)
    stock = [row for row in benchmark.rows if row.identity and row.identity.stock]
    plain = [row.label for row in stock if row.identity and not row.identity.residual]
    residual = [row.label for row in stock if row.label not in plain]
    if plain and residual:
        return Item(question, OK, f"Both are rows: {', '.join(plain)}; {', '.join(residual)}.")
    if not plain and not residual:
        return Item(question, PROBLEM, "Neither nnU-Net nor its residual encoder (ResEnc) is a row.")
    there, absent = (plain, "its residual encoder (ResEnc plans), the stronger one") if plain else (residual, "nnU-Net")
    return Item(question, CAUTION, f"{', '.join(there)} is a row; {absent}, is not." if plain else
                f"{', '.join(there)} is a row; {absent} with its standard plans is not.")  # fmt: skip


def _controls(benchmark: Benchmark) -> Item:
    question = "Controls: the same network without the part that is claimed to matter"
    if any(row.identity is None for row in benchmark.rows):
        return Item(question, UNKNOWN, _NOT_RECORDED)
    rows = [(row.identity, row.label) for row in benchmark.rows if row.identity]
    absent: list[str] = []
    present: list[str] = []
    unequal: list[str] = []
    for one, label in rows:
        for name in one.controls:
            found = sorted((other.derived != one.derived, there) for other, there in rows if other.name == name)
            if not found:
                absent.append(f"{name} for {label}")
            else:  # a control of the same making, where there is one
                (unequal if found[0][0] else present).append(f"{found[0][1]} for {label}")
    have = f" Present: {'; '.join(present)}." if present else ""
    if unequal:
        have += f" May differ in more, since one of the two is a trainer of the user's: {'; '.join(unequal)}."
    if absent:
        return Item(question, CAUTION, f"Absent: {'; '.join(absent)}.{have}")
    if have:
        return Item(question, CAUTION if unequal else OK, have.strip())
    return Item(question, UNKNOWN, "No row has a control that this package knows of.")


def _lengths(benchmark: Benchmark) -> Item:
    question = "Length of the trainings"
    trained = [cell.part("training") for cell in benchmark.cells if cell.done]
    totals = {item["epochs"] * item["iterations_per_epoch"] for item in trained
              if item.get("epochs") and item.get("iterations_per_epoch")}  # fmt: skip
    if not totals:
        return Item(question, UNKNOWN, "The number of iterations is not recorded.")
    usual = catalogue.FULL_LENGTH * 250
    said = " or ".join(f"{total:,}" for total in sorted(totals))
    if max(totals) < usual:
        share = max(totals) / usual
        text = f"At most {100 * share:.2g} % of nnU-Net's {usual:,}; short trainings need not rank as long ones do."
        return Item(question, CAUTION, f"{said} iterations per training. {text}")
    return Item(question, OK, f"{said} iterations per training; nnU-Net's own length is {usual:,}.")


def _datasets(arenas: Sequence[Arena], suitabilities: Mapping[str, Suitability | None]) -> list[Item]:
    question = "Datasets: can they separate the methods?"
    parts, verdicts = [], []
    for arena in arenas:
        found = suitabilities[arena.title]
        if found is None:
            verdicts.append(UNKNOWN)
            parts.append(f"{arena.title}: not measured")
            continue
        verdicts.append(PROBLEM if found.ratio < 1 else CAUTION if found.ratio < CLEARLY * found.by_chance else OK)
        parts.append(f"{arena.title}: ratio {found.ratio:.2f} ({found.by_chance:.2f} expected of equal rows)")
    worst = next(verdict for verdict in (PROBLEM, UNKNOWN, CAUTION, OK) if verdict in verdicts or verdict == OK)
    items = [Item(question, worst, f"Spread between rows over spread within a row. {'; '.join(parts)}.")]
    datasets = len({arena.dataset for arena in arenas})
    verdict = CAUTION if datasets < FEW_DATASETS else OK
    text = f"{plural(datasets, 'dataset')}" + ("; nothing is known about others." if verdict == CAUTION else ".")
    return [*items, Item("Datasets: how many?", verdict, text)]


def _repetitions(benchmark: Benchmark) -> Item:
    question = "Repetitions: seeds and folds"
    seeds = len({cell.seed for cell in benchmark.cells})
    folds = sorted({cell.fold for cell in benchmark.cells})
    said = f"{plural(seeds, 'seed')}, {plural(len(folds), 'fold')} ({', '.join(folds)})."
    if seeds < 2:
        return Item(question, PROBLEM, f"{said} How much chance contributes to a difference is not measured.")
    if seeds < FEW_SEEDS:
        return Item(question, CAUTION, f"{said} A standard deviation over so few seeds is a rough guess.")
    return Item(question, OK, said)


def _completeness(benchmark: Benchmark, arenas: Sequence[Arena]) -> Item:
    question = "Consistent reporting: the same cases for every row, nothing left out"
    missing = [cell for cell in benchmark.cells if not cell.done]
    undefined = sum(int(arena.scores["value"].isna().sum()) for arena in arenas)
    infinite = sum(int((arena.scores["value"].astype(float).abs() == math.inf).sum()) for arena in arenas)
    left_out = f" {undefined} undefined and {infinite} infinite values are left out of means and counted."
    if missing:
        text = f"{len(missing)} of {plural(len(benchmark.cells), 'cell')} have no scores (listed under Cells)."
        return Item(question, PROBLEM, text + left_out)
    return Item(question, OK, f"All {plural(len(benchmark.cells), 'cell')} are done and scored alike.{left_out}")


def _tuning(benchmark: Benchmark) -> Item:
    question = "Tuning on the cases that are scored"
    found = _codes(benchmark, "selected_on_validation")
    cannot = "Whether settings were chosen by hand while looking at these scores, no report can see."
    if found:
        return Item(question, PROBLEM, f"{' '.join(found)} {cannot}")
    if benchmark.config.get("checkpoint", "checkpoint_final.pth") == "checkpoint_final.pth":
        return Item(question, OK, f"All rows predict with their final checkpoint: none was chosen by a score. {cannot}")
    return Item(question, UNKNOWN, f"Rows predict with {benchmark.config['checkpoint']}. {cannot}")


def _tests(comparisons: Sequence[Comparison]) -> Item:
    question = "Statistics: enough cases, corrected for many tests"
    units = "Cases count as independent; if several come from one patient, intervals are too narrow and p too small."
    if not comparisons:
        return Item(question, UNKNOWN, f"No row could be compared with the baseline. {units}")
    hopeless = sum(math.isnan(item.p) or item.p_least > ALPHA for item in comparisons)
    corrected = "p values are corrected over the rows of a table (Holm), not over datasets and metrics."
    if hopeless:
        text = f"In {hopeless} of {plural(len(comparisons), 'comparison')} there are too few cases to show anything."
        return Item(question, PROBLEM, f"{text} {corrected} {units}")
    return Item(question, OK, f"{plural(len(comparisons), 'comparison')}; {corrected} {units}")


def _hardware(benchmark: Benchmark) -> Item:
    question = "Times and memory measured alike"
    found = _codes(benchmark, "hardware_differs", "versions_differ")
    hosts = {
        (cell.record.get("host"), cell.part("training").get("device_name")) for cell in benchmark.cells if cell.done
    }
    if found:
        return Item(question, CAUTION, " ".join(found))
    if len(hosts) > 1:
        return Item(question, CAUTION, "Cells ran on different machines or devices: their times do not compare.")
    return Item(question, OK, "All finished cells ran on one machine and device; whether it was shared with other work "
                "is not recorded.")  # fmt: skip


def _resumed(benchmark: Benchmark) -> Item:
    question = "Interrupted trainings"
    resumed = [cell.name for cell in benchmark.cells if cell.part("training").get("resumed_at_epoch")]
    if resumed:
        return Item(question, CAUTION, "Went on from a checkpoint and so drew other random numbers than a training in "
                    f"one go: {'; '.join(resumed)}.")  # fmt: skip
    return Item(question, OK, "No finished training was interrupted.")
