"""Splits: patients stay together, nothing is lost, the same seed gives the same split."""

from pathlib import Path

import numpy as np
import pytest

from swin_umamba_nnunet.datasets._model import SourceCase
from swin_umamba_nnunet.datasets._splits import hold_out, make_folds


def _cases(groups):
    return tuple(SourceCase(f"c{i:03d}", (Path("x"),), Path("y"), "train", group) for i, group in enumerate(groups))


@pytest.mark.parametrize("seed", range(15))
def test_a_group_is_on_one_side_of_everything(seed):
    groups = [str(group) for group in np.random.default_rng(seed).integers(0, 12, 60)]
    cases = hold_out(_cases(groups), 0.25, seed)
    test, training = ({case.name: case.group for case in cases if case.part == part} for part in ("test", "train"))
    assert len(test) + len(training) == len(cases) == 60
    assert not {*test.values()} & {*training.values()}
    assert len({*test.values()}) == round(0.25 * len({*groups}))
    folds = make_folds(cases, 4, seed)
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(training)
    for fold in folds:
        assert {*fold["train"], *fold["val"]} == {*training}
        assert not {training[name] for name in fold["train"]} & {training[name] for name in fold["val"]}
    assert folds == make_folds(cases, 4, seed)
    assert hold_out(_cases(groups), 0.25, seed) == cases


def test_seeds_differ():
    cases = _cases([str(i) for i in range(30)])
    assert make_folds(cases, 5, 1) != make_folds(cases, 5, 2)
    assert hold_out(cases, 0.3, 1) != hold_out(cases, 0.3, 2)


def test_folds_are_of_like_size():
    cases = _cases([str(i // 2) for i in range(40)])
    assert {len(fold["val"]) for fold in make_folds(cases, 5, 0)} == {8}
