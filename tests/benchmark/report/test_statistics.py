"""The statistics against SciPy, against cases worked out by hand, and against the values they are made of."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from swin_umamba_nnunet.benchmark.report import statistics
from swin_umamba_nnunet.benchmark.report.analysis import ReportOptions, analyse
from swin_umamba_nnunet.benchmark.report.collect import mean_of_class_means, read_benchmark
from swin_umamba_nnunet.evaluation.statistics import Bootstrap
from tests.benchmark.report import tree

FEW = Bootstrap(200)


@pytest.fixture(scope="module")
def arenas(tmp_path_factory):
    benchmark = read_benchmark(tree.make_tree(tmp_path_factory.mktemp("tree") / "bench"))
    return {result.dataset: result for result in analyse(benchmark, ReportOptions(bootstrap=FEW)).results}


def summaries(arena, metric):
    """Label -> summary of the row."""
    return {item.label: item for item in arena.summaries[metric]}


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1 are .04 .06 .06 .04; none may fall below the one before: .04 .06 .06 .06."""
    assert statistics.holm([0.04, 0.01, 0.03, 0.02], 4) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.5, 0.6], 2) == [1.0, 1.0]
    assert statistics.holm([0.03], 1) == [0.03]
    assert statistics.holm([], 0) == []
    assert statistics.holm([0.01, 0.02], 4) == statistics.holm([0.01, 0.02, 1.0, 1.0], 4)[:2]  # two have no scores yet


def test_signed_rank_of_special_values():
    assert statistics.signed_rank_p(np.zeros(4)) == 1.0
    assert math.isnan(statistics.signed_rank_p(np.array([1.0])))
    infinite = statistics.signed_rank_p(np.array([math.inf, 1, -2, 3, 4, 5.5]))
    assert infinite == statistics.signed_rank_p(np.array([100.0, 1, -2, 3, 4, 5.5]))


def test_rank_biserial_by_hand():
    """Ranks 1 to 4, the difference of rank 2 negative: (8 - 2) / 10."""
    assert statistics.rank_biserial(np.array([1.0, -2, 3, 4])) == pytest.approx(0.6)
    assert statistics.rank_biserial(np.array([0.0, 1, 2])) == 1.0
    assert statistics.rank_biserial(np.zeros(3)) == 0.0
    assert statistics.rank_biserial(np.array([math.inf, -1.0])) == pytest.approx(1 / 3)
    assert math.isnan(statistics.rank_biserial(np.array([])))


def test_distances_are_better_when_smaller():
    ours, theirs = np.array([1.0, 2, 3, 9]), np.array([2.0, 4, 6, 9])
    found = statistics.compare_values("a", "b", "HD95", ours, theirs, FEW)
    assert (found.n_better, found.n_worse, found.n_tied) == (3, 0, 1)
    assert found.effect == 1.0
    assert found.median == -1.5
    assert statistics.compare_values("a", "b", "Dice", ours, theirs, FEW).effect == -1.0


def test_values_on_one_side_only_and_infinite_on_both_are_left_out():
    ours = np.array([1.0, math.nan, math.inf, math.inf, 3])
    theirs = np.array([2.0, 1.0, math.inf, 1.0, 4])
    found = statistics.compare_values("a", "b", "HD95", ours, theirs, FEW)
    assert (found.n_pairs, found.n_left_out, found.n_better, found.n_worse) == (3, 2, 2, 1)
    assert math.isnan(found.low)  # no interval of a median that may be infinite
    assert (found.n_lost, found.n_lost_baseline, found.gain) == (1, 0, 1.0)


def test_the_least_p_counts_the_family():
    values = np.arange(1.0, 5), np.zeros(4)
    three = [statistics.compare_values(row, "b", "Dice", *values, FEW) for row in "acd"]
    *two, human = statistics.correct([*three[:2], replace(three[2], family="observers")])
    for item in two:
        assert [item.p, item.p_holm, item.p_least] == pytest.approx([2 / 16, 4 / 16, 4 / 16])
    assert [human.p, human.p_holm, human.p_least] == pytest.approx([2 / 16] * 3)
    # of unlike numbers of cases: that of 6 is the second smallest at best, and so is doubled
    unlike = [statistics.compare_values(str(n), "b", "Dice", np.ones(n), np.zeros(n), FEW) for n in (20, 6, 5)]
    assert [item.p_least for item in statistics.correct(unlike)] == pytest.approx(
        [3 * 2 / 2**20, 2 * 2 / 2**6, 2 / 2**5]
    )


def test_cases_needed():
    """Seven of ten better: the number found has about the power it is said to have, by another test of other draws."""
    gaps = np.array([0.1] * 7 + [-0.1] * 3)
    needed = statistics.cases_needed(gaps, 1, 0)
    drawn = np.random.default_rng(1).choice(gaps, (300, int(needed)))
    power = np.mean([stats.wilcoxon(line).pvalue < statistics.ALPHA for line in drawn])
    assert 0.7 < power < 0.98
    assert 10 < needed < statistics.cases_needed(gaps, 5, 0)  # corrected for five
    assert statistics.cases_needed(np.array([0.1, -0.1]), 1, 0) == math.inf
    assert math.isfinite(statistics.cases_needed(np.array([0.1] * 6 + [-0.1] * 4), 1, 0))  # at the most that is tried
    assert math.isnan(statistics.cases_needed(np.array([math.nan, 0.1]), 1, 0))
    assert statistics.cases_needed(np.ones(3), 1, 0) >= 6  # five of five give 2/32


def test_seeds_needed():
    """Two standard deviations apart, t-tests want 6 of each for 80 % (Cohen 1988, d = 2: 5.1 by the formula)."""
    assert statistics.seeds_needed(0.2, 0.1, 0) in (5.0, 6.0)
    assert statistics.seeds_needed(0.001, 0.1, 0) == math.inf
    assert math.isnan(statistics.seeds_needed(0.1, math.nan, 0))


def test_comparisons_of_the_tree(arenas):
    """Against SciPy on the values the tree was made of: seeds averaged per case, classes averaged."""
    baseline, best = tree.ROWS[0], tree.ROWS[2]
    expected = []
    for fold in tree.FOLDS:
        values = [
            np.mean([tree.dice(tree.SHAPES, row, fold, seed) for seed in tree.SEEDS], axis=0).mean(axis=1)
            for row in (best, baseline)
        ]
        expected += (values[0] - values[1]).tolist()
    found = {item.row: item for item in statistics.compare(arenas[tree.SHAPES], "Dice", "nnU-Net", FEW)}
    item = found[best.label]
    assert item.n_pairs == 16
    assert item.median == pytest.approx(np.median(expected))
    assert item.p == pytest.approx(stats.wilcoxon(expected).pvalue)
    assert item.p_holm == pytest.approx(statistics.holm([found[row.label].p for row in tree.ROWS[1:]], 3)[1])
    assert (item.n_seeds, item.n_seeds_better) == (3, 3)
    assert found["ResEnc L"].n_seeds == 2  # one fold of its third seed is not finished
    arena, unfinished = arenas[tree.SHAPES], found[best.label].p
    half = replace(arena, runs=tuple(run for run in arena.runs if run.row.label in (best.label, "nnU-Net")))
    (item,) = statistics.compare(half, "Dice", "nnU-Net", FEW)
    assert item.p_holm == pytest.approx(3 * unfinished)  # over the planned rows, of which two have no scores yet


def test_means_and_spreads_of_the_tree(arenas):
    arena, row = arenas[tree.SHAPES], tree.ROWS[0]
    values = np.array([[tree.dice(tree.SHAPES, row, fold, seed) for fold in tree.FOLDS] for seed in tree.SEEDS])
    rows = summaries(arena, "Dice")
    found = rows[row.label]
    assert found.mean == pytest.approx(values.mean())
    assert found.sd_seeds == pytest.approx(values.mean(axis=(1, 2, 3)).std(ddof=1))
    assert found.sd_folds == pytest.approx(values.mean(axis=(0, 2, 3)).std(ddof=1))
    assert found.low < found.mean < found.high
    assert (found.n_cases, found.n_values, found.n_undefined, found.n_infinite) == (16, 96, 0, 0)
    assert [item.rank for item in rows.values()] == [3, 2, 1, 4]


def test_only_complete_rows_have_ranks(arenas):
    """What is undefined, infinite and missing is counted: the page says so (`test_report`)."""
    dice = summaries(arenas[tree.ORGANS], "Dice")
    assert math.isnan(dice.pop("ResEnc L").rank)
    assert sorted(item.rank for item in dice.values()) == [1, 2, 3]
    compared = statistics.compare(arenas[tree.ORGANS], "Dice", "nnU-Net", FEW)
    assert all(item.p_least > 0.05 for item in compared)
    theirs, ours = (
        np.nanmean([tree.dice(tree.ORGANS, row, 0, seed) for seed in tree.SEEDS], axis=(0, 1)).mean()
        for row in tree.ROWS[:2]
    )
    assert compared[0].difference == pytest.approx(ours - theirs)  # over the fold that both were scored on


def test_the_mean_is_that_of_the_evaluation(arenas):
    """A run's mean: class means over its finite values, then over classes."""
    run = next(run for run in arenas[tree.ORGANS].runs if run.row.label == "nnU-Net" and run.fold == 0)
    values = tree.dice(tree.ORGANS, tree.ROWS[0], 0, 0)
    assert mean_of_class_means(run.values("Dice")) == pytest.approx(np.nanmean(values, axis=0).mean())


def test_suitability_of_the_tree(arenas):
    found = arenas[tree.SHAPES].suitability
    means = {
        row.label: [
            tree.dice(tree.SHAPES, row, fold, seed).mean()
            for fold in tree.FOLDS
            for seed in tree.SEEDS
            if tree.state_of(tree.SHAPES, row.label, fold, seed) == "done"
        ]
        for row in tree.ROWS
    }
    between = np.std([np.mean(values) for values in means.values()], ddof=1)
    within = np.mean([np.std(values, ddof=1) for values in means.values()])
    assert (found.between, found.within) == (pytest.approx(between), pytest.approx(within))
    assert found.ratio == pytest.approx(between / within)
    assert found.by_chance == pytest.approx(1 / math.sqrt(5))
