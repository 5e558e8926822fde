"""Sentences say no more than the numbers, and numbers are spelled with their sign, unit and precision."""

import math
from dataclasses import replace

import numpy as np
import pytest

from swin_umamba_nnunet.benchmark.report import words
from swin_umamba_nnunet.benchmark.report.pictures import _slice_of_most_difference
from swin_umamba_nnunet.benchmark.report.statistics import Comparison
from swin_umamba_nnunet.benchmark.report.summary import Suitability
from swin_umamba_nnunet.evaluation import EvaluationError

CLEAR = Comparison(
    "Ours", "Theirs", "Dice", 20, 18, 2, 0, 0, 0.02, 0.01, 0.03, 0.9, 0.001, 0.002, 1e-5, 0.02, 0.005, 3, 3
)  # fmt: skip


def test_a_clear_difference():
    text = words.sentence(CLEAR, "1")
    assert text.startswith("On these 20 cases, Ours is better than Theirs in Dice: better on 18 of 20 cases")
    assert "median difference +0.0200, 95 % interval +0.0100 to +0.0300" in text
    assert text.endswith("corrected p = 0.0020. The means point the same way in 3 of 3 seeds.")
    worse = words.sentence(replace(CLEAR, effect=-0.9, n_seeds_better=1, difference=-0.02), "1")
    assert "Ours is worse than Theirs" in worse
    assert "in 2 of 3 seeds" in worse


def test_a_difference_within_the_spread_of_seeds_is_no_clear_one():
    assert "training again might turn it" in words.sentence(replace(CLEAR, seed_sd=0.05), "1")
    assert "not known whether other seeds" in words.sentence(replace(CLEAR, n_seeds=1), "1")


def test_no_difference_is_not_equality():
    text = words.sentence(replace(CLEAR, p_holm=0.3), "1")
    assert text.startswith("The data do not show that Ours and Theirs differ in Dice (corrected p = 0.300), nor that")


def test_too_few_cases():
    text = words.sentence(replace(CLEAR, n_pairs=4, p=0.125, p_holm=0.25, p_least=0.25), "1")
    assert "the corrected p could not fall below 0.250" in text
    assert "better than" not in text
    assert words.sentence(replace(CLEAR, n_pairs=1, p=math.nan), "1").startswith("Too few common cases (1)")


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.12345, "1", False, "0.1235"), (-0.5, "1", True, "\u22120.5000"), (0.5, "mm", True, "+0.50"),
        (-1e-9, "1", True, "0.0000"), (math.nan, "1", False, "\u2013"), (-math.inf, "mm", True, "\u2212\u221e"),
    ],
)  # fmt: skip
def test_numbers(value, unit, signed, text):
    assert words.number(value, unit, signed) == text


def test_quantities():
    assert words.quantity(59_889_000, words.COUNT) == "59.9 M"
    assert words.quantity(18.91e9, words.COUNT) == "18.9 G"
    assert words.quantity(3 * 2**30, words.BYTES) == "3.00 GiB"
    assert words.quantity(None, words.BYTES) == "\u2013"
    assert words.quantity(0, words.COUNT) == "0"
    assert words.seconds(0.25) == "250 ms"


def test_suitability():
    found = Suitability(0.01, 0.02, 0.5, 0.577, 4, 3)
    assert "a poor dataset" in words.suitability_sentence(found)
    assert "not by much" in words.suitability_sentence(replace(found, ratio=1.5))
    assert "clearly more" in words.suitability_sentence(replace(found, ratio=2.0))


def test_the_slice_where_predictions_differ_most():
    truth = np.zeros((4, 5, 5), int)
    truth[1] = 1
    first, second = truth.copy(), truth.copy()
    second[2, :2] = 1
    second[3, 0] = 1
    assert _slice_of_most_difference(truth, [first, second]) == 2
    assert _slice_of_most_difference(truth, [first, first]) == 1
    with pytest.raises(EvaluationError, match="has the shape"):
        _slice_of_most_difference(truth, [first[:2]])


def test_flops_that_lack_an_operation_are_a_lower_bound():
    assert words.flops({"flops": 12.3e9, "uncounted": []}) == words.quantity(12.3e9, words.COUNT)
    assert words.flops({"flops": 12.3e9, "uncounted": ["aten.fft x2"]}).startswith("at least ")
