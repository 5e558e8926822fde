"""Means, deviations and intervals, with undefined and infinite values."""

import math

import numpy as np
import pytest
from scipy import stats

from swin_umamba_nnunet.evaluation import ALL_CLASSES, WHOLE_IMAGE, Measurement
from swin_umamba_nnunet.evaluation.statistics import (
    Bootstrap,
    class_statistics,
    median_statistic,
    pooled_statistic,
)

NAN, INF = math.nan, math.inf
BOOTSTRAP = Bootstrap(resamples=2000, seed=1)


def rows(values, metric="Dice", convention="plain", unit="1"):
    """Class -> value per case, as measurements."""
    return [
        Measurement(f"case{number}", label, metric, value, unit, convention)
        for label, column in values.items()
        for number, value in enumerate(column)
    ]


def statistic(found, label, metric="Dice"):
    return next(row for row in found if (row.label, row.metric) == (label, metric))


def test_undefined_values_are_left_out_and_counted():
    found = class_statistics(rows({"a": [0.5, NAN, 1.0], "b": [0.2, 0.4, 0.6]}), BOOTSTRAP)
    a, both = statistic(found, "a"), statistic(found, ALL_CLASSES)
    assert (a.mean, a.n_cases, a.n_undefined, a.n_infinite) == (0.75, 3, 1, 0)
    assert a.std == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert a.mean_undefined_as_1 == pytest.approx(2.5 / 3)
    assert both.mean == pytest.approx((0.75 + 0.4) / 2)
    assert both.mean_undefined_as_1 == pytest.approx((2.5 / 3 + 0.4) / 2)
    assert both.std == pytest.approx(np.std([0.35, 0.4, 0.8], ddof=1))  # of the cases' own means
    assert (both.n_cases, both.n_undefined) == (3, 1)
    assert math.isnan(statistic(found, "b").mean_undefined_as_1)


def test_nothing_finite():
    found = class_statistics(rows({"a": [NAN, INF], "b": [3.0, 5.0]}, "HD95", unit="mm"), BOOTSTRAP)
    a, both = statistic(found, "a", "HD95"), statistic(found, ALL_CLASSES, "HD95")
    assert all(map(math.isnan, (a.mean, a.low, both.mean_undefined_as_1)))  # 1 is no best distance
    assert (both.mean, both.n_undefined, both.n_infinite) == (4.0, 1, 1)


def test_one_case_has_no_spread():
    (a,) = class_statistics(rows({"a": [0.5]}), BOOTSTRAP)
    assert a.mean == 0.5
    assert all(map(math.isnan, (a.std, a.low, a.high)))


def test_image_values_are_not_averaged_with_classes():
    found = class_statistics(rows({WHOLE_IMAGE: [0.9, 0.8], "10": [0.1, 0.1], "9": [0.2, 0.2]}), BOOTSTRAP)
    assert [row.label for row in found] == ["9", "10", WHOLE_IMAGE]


def test_interval_is_the_percentile_bootstrap():
    values = np.random.default_rng(0).beta(5, 2, 30)
    (found,) = class_statistics(rows({"a": values}), Bootstrap(10_000, 0))
    wanted = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=3e-3)
    assert found.high == pytest.approx(wanted.high, abs=3e-3)


def test_interval_over_classes_resamples_cases_not_values():
    """Classes that move together leave the interval as wide as that of one class."""
    values = np.random.default_rng(0).random(20)
    found = class_statistics(rows({"a": values, "b": values}), BOOTSTRAP)
    one, both = statistic(found, "a"), statistic(found, ALL_CLASSES)
    assert (both.low, both.high) == pytest.approx((one.low, one.high))


def test_the_seed_decides():
    values = rows({"a": np.random.default_rng(0).random(12)})
    same, again, other = (class_statistics(values, Bootstrap(500, seed))[0].low for seed in (7, 7, 8))
    assert same == again != other


def test_counts_are_no_scores():
    count = Measurement("case0", "a", "TP", 7, "voxel", "plain", count=True)
    assert class_statistics([count], BOOTSTRAP) == []


def test_what_is_pooled_and_medians_have_intervals():
    """Their values: the golden files."""
    head = Measurement("", "lesion", "DSC", 0.0, "1", "isic")
    pooled = pooled_statistic(head, [2, 0, 8], [4, 0, 8], BOOTSTRAP, "pixels")
    for found in (pooled, median_statistic(head, [0.1, NAN, 0.9], BOOTSTRAP)):
        assert found.low < found.mean < found.high
        assert (found.n_cases, found.n_undefined) == (3, 1)
