"""Sentences say no more than the numbers, and numbers are spelled with their sign, unit and precision."""

import math
from dataclasses import replace

import numpy as np
import pytest

from swin_umamba_nnunet.benchmark.report import words
from swin_umamba_nnunet.benchmark.report.analysis import Suitability
from swin_umamba_nnunet.benchmark.report.charts import rise
from swin_umamba_nnunet.benchmark.report.pictures import slice_of_most_difference, window_of_most_difference
from swin_umamba_nnunet.benchmark.report.statistics import Comparison
from tests.messages import assert_names

CLEAR = Comparison(
    "Ours", "Theirs", "Dice", 20, 18, 2, 0, 0, 0.02, 0.01, 0.03, 0.9, 0.001, 0.002, 1e-5, 0.02, 0.005, 3, 3
)
OPEN = replace(CLEAR, row="Open", p=0.3, p_holm=0.3, low=-0.01)


def test_a_clear_difference():
    assert words.shown({"Dice": [CLEAR]}, "1") == "Better than Theirs in Dice: Ours."
    worse = replace(CLEAR, effect=-0.9, n_seeds_better=1, difference=-0.02)
    said = words.shown({"Dice": [worse]}, "1")
    assert_names(said, "Worse than Theirs in Dice: Ours", "Ours in Dice: the other way round in 1 of 3 seeds")
    assert_names(words.shown({"Dice": [OPEN]}, "1"), "No row", "Theirs", "Dice")


def test_what_other_metrics_show_is_said_too():
    nsd = replace(CLEAR, metric="NSD")
    assert "The same in NSD." in words.shown({"Dice": [CLEAR], "NSD": [nsd]}, "1")
    assert_names(words.shown({"Dice": [OPEN], "NSD": [nsd]}, "1"), "No row", "Better than Theirs in NSD: Ours.")
    assert "in Dice: every other row." in words.shown({"Dice": [CLEAR] * 3}, "1")
    assert "NSD" not in words.shown({"Dice": [OPEN], "NSD": [replace(OPEN, metric="NSD")]}, "1")


def test_names_with_commas_stay_apart():
    assert words.names(["A", "B", "C"]) == "A, B and C"
    assert words.names(["A, big", "B", "C"]) == "A, big; B and C"
    assert words.names(["A"]) == "A"


def test_a_difference_within_the_spread_of_seeds_is_no_clear_one():
    said = words.shown({"Dice": [replace(CLEAR, seed_sd=0.05)]}, "1")
    assert_names(said, "0.0200", "0.0500", "training again might turn it")
    assert_names(words.not_shown([replace(CLEAR, n_seeds=1)], "1"), "other trainings", "one finished seed", "Theirs")


def test_no_difference_is_not_equality():
    text = words.not_shown([OPEN, replace(OPEN, row="Other"), CLEAR], "1")
    assert text == "That Open and Other differ from Theirs in Dice, or that they are equal."
    assert "That Open differs from Theirs" in words.not_shown([OPEN], "1")


def test_too_few_cases():
    few = replace(CLEAR, n_pairs=4, p=0.125, p_holm=0.25, p_least=0.25)
    assert_names(words.not_shown([few], "1"), "Ours", "4 common cases", "could not fall below 0.250")
    assert "Better" not in words.shown({"Dice": [few]}, "1")
    assert_names(words.not_shown([replace(few, n_pairs=1, p=math.nan)], "1"), "1 common case,", "below")


def test_why_interval_and_test_disagree():
    """Of the example: 23 cases a little worse, 7 much better."""
    gaps = {"median": -0.044, "low": -0.06, "high": -0.03, "gain": 0.44, "loss": 0.05}
    split = replace(OPEN, n_pairs=30, n_better=7, n_worse=23, **gaps)
    said = words.disagreement(split, "1")
    assert_names(said, "Open", "23 of 30", "worse", "0.0500", "7 better", "0.4400")
    assert said in words.not_shown([split], "1")
    assert_names(words.disagreement(replace(split, p=0.02, tests=5), "1"), "0.020", "5 tests")
    assert_names(words.disagreement(replace(CLEAR, low=-0.01), "1"), "includes 0", "how large")
    assert words.disagreement(OPEN, "1") == words.disagreement(CLEAR, "1") == ""


def test_what_would_settle_it():
    rows = [replace(OPEN, cases_needed=54.0), replace(OPEN, row="Never", cases_needed=math.inf, seeds_needed=5.0)]
    assert_names(words.settling(rows), "80 %", "about 54 (Open)", "more than 400 (Never)", "about 5 (Never)")
    assert "second seed" not in words.settling([replace(OPEN, n_seeds=1, seeds_needed=5.0)])  # its own have told
    assert "about 54 (Open and Other)" in words.settling([rows[0], replace(rows[0], row="Other")])
    assert "Ours" not in words.settling([replace(CLEAR, cases_needed=10.0, seeds_needed=3.0)])  # it has three


def test_infinite_differences_are_counts():
    missed = replace(OPEN, median=math.inf, n_lost=7, n_lost_baseline=1)
    assert words.difference(missed, "mm") == words.DASH
    assert words.lost(missed) == "7 of 20 not found by Open, 1 of 20 not found by Theirs"
    assert words.lost(OPEN) == ""


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.12345, "1", False, "0.1235"),
        (-0.5, "1", True, "\u22120.5000"),
        (0.5, "mm", True, "+0.50"),
        (-1e-9, "1", True, "0.0000"),
        (math.nan, "1", False, "\u2013"),
        (-math.inf, "mm", True, "\u2212\u221e"),
    ],
)
def test_numbers(value, unit, signed, text):
    assert words.number(value, unit, signed) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (words.count(59_889_000), "59.9 M"),
        (words.count(18.91e9), "18.9 G"),
        (words.seconds(0.25), "250 ms"),
        (words.flops({"flops": 12.3e9, "uncounted": []}), "12.3 G"),
        (words.flops({"flops": 12.3e9, "uncounted": ["aten.fft x2"]}), "at least 12.3 G"),
    ],
)
def test_quantities(said, text):
    assert said == text


def test_suitability():
    found = Suitability(0.01, 0.02, 0.5, 0.577, 4, 3)
    verdicts = [words.suitability(item)[0] for item in (found, replace(found, ratio=1.5), replace(found, ratio=2.0))]
    assert verdicts == ["problem", "flag", "fine"]
    assert words.suitability(None)[0] == "unknown"


def test_the_window_where_predictions_differ_most():
    first = np.zeros((300, 900), int)
    second = first.copy()
    second[200:220, 500:520] = second[0, 0] = 1
    rows, columns = window_of_most_difference([first, second])
    assert rows.stop - rows.start == columns.stop - columns.start == 256
    assert rows.start >= 0
    assert rows.stop <= 300
    assert second[rows, columns].sum() == 400
    assert window_of_most_difference([first[:, :512], second[:, :512]]) == (slice(0, 300), slice(0, 512))


def test_how_much_a_curve_still_rises():
    assert rise(np.array([0, 0, 0, 0, 0, 0, 0.5, 0.6, 0.7, 0.7])) == pytest.approx(0.15)  # fifths of two epochs
    assert rise(np.array([0.5, 0.75])) == 0.25
    assert math.isnan(rise(np.array([0.5])))


def test_the_slice_where_predictions_differ_most():
    truth = np.zeros((4, 5, 5), int)
    truth[1] = 1
    first, second = truth.copy(), truth.copy()
    second[2, :2] = 1
    second[3, 0] = 1
    assert slice_of_most_difference(truth, [first, second]) == 2
    assert slice_of_most_difference(truth, [first, first]) == 1
