"""What the authors' scripts and the plain convention give on the golden evaluation files."""

import functools
import json
import math

from tests.golden import FOLDER

GOLDEN = FOLDER / "evaluation"
ROUNDED, UNROUNDED = 1e-12, 1e-9  # tolerances that expected.json states


@functools.cache
def expected():
    return _floats(json.loads((GOLDEN / "expected.json").read_text()))


def same(found, wanted, tolerance):
    """Equal within the tolerance; undefined (None or NaN) equals undefined, infinite equals infinite."""
    wanted = math.nan if wanted is None else wanted
    if math.isnan(wanted) or math.isinf(wanted):
        return math.isnan(found) if math.isnan(wanted) else found == wanted
    return abs(found - wanted) <= tolerance


def assert_cases(result, wanted, metric, convention, tolerance):
    """Case -> class -> value, all of them."""
    for case, classes in wanted.items():
        for label, value in classes.items():
            found = result.value(case, label, metric, convention)
            assert same(found, value, tolerance), (case, label, metric, convention, found, value)


def assert_named(result, wanted, names, label, convention="plain", tolerance=UNROUNDED):
    """Case -> name in the golden file -> value, of those that `names` translates into metrics."""
    for case, values in wanted.items():
        for theirs, ours in names.items():
            found = result.value(case, label, ours, convention)
            assert same(found, values[theirs], tolerance), (case, theirs, found, values[theirs])


def assert_means(result, wanted, metric, convention="plain", as_one=False):
    """Class -> mean, all of them; with undefined values counted as 1 if asked for."""
    for label, value in wanted.items():
        row = result.statistic(metric, label, convention)
        found = row.mean_undefined_as_1 if as_one and row.n_undefined else row.mean
        assert same(found, value, UNROUNDED), (label, metric, convention, found, value)


def assert_distances(result, wanted, metric, unit):
    """Plain distances of all cases, and of how many no mean is made."""
    assert_cases(result, wanted["per_case"], metric, "plain", UNROUNDED)
    for label, n_infinite in wanted["n_infinite"].items():
        row = result.statistic(metric, label)
        assert (row.n_infinite, row.n_undefined, row.unit) == (n_infinite, wanted["n_undefined"][label], unit)


def _floats(entry):
    if isinstance(entry, dict):
        return {key: _floats(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [_floats(value) for value in entry]
    return float(entry) if entry in ("nan", "inf") else entry
