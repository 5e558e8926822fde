"""Splits: patients stay together, nothing is lost, the same seed gives the same split."""

from pathlib import Path

import numpy as np
import pytest

from swin_umamba_nnunet.datasets._model import Findings, SourceCase
from swin_umamba_nnunet.datasets._splits import hold_out, judge_groups, make_folds


def _cases(groups):
    return tuple(SourceCase(f"c{i:03d}", (Path("x"),), Path("y"), "train", group) for i, group in enumerate(groups))


def judged(cases):
    judge_groups(cases, findings := Findings())
    return findings


@pytest.mark.parametrize("seed", range(15))
def test_a_group_is_on_one_side_of_everything(seed):
    random = np.random.default_rng(seed)
    groups = [str(group) for group in random.integers(0, 12, 60)]
    cases = hold_out(_cases(groups), 0.25, seed)
    assert {case.name for case in cases} == {f"c{i:03d}" for i in range(60)}
    sides = {part: {case.group for case in cases if case.part == part} for part in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert len(sides["test"]) == round(0.25 * len(set(groups)))
    assert not judged(cases)
    folds = make_folds(cases, 4, seed)
    of_case = {case.name: case.group for case in cases}
    training = {case.name for case in cases if case.part == "train"}
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(training)
    for fold in folds:
        assert set(fold["train"]) | set(fold["val"]) == training
        assert not {of_case[name] for name in fold["train"]} & {of_case[name] for name in fold["val"]}
    assert folds == make_folds(cases, 4, seed)
    assert hold_out(_cases(groups), 0.25, seed) == cases


def test_seeds_differ():
    cases = _cases([str(i) for i in range(30)])
    assert make_folds(cases, 5, 1) != make_folds(cases, 5, 2)
    assert hold_out(cases, 0.3, 1) != hold_out(cases, 0.3, 2)


def test_folds_are_of_like_size():
    cases = _cases([str(i // 2) for i in range(40)])
    assert {len(fold["val"]) for fold in make_folds(cases, 5, 0)} == {8}


def test_nothing_asked_nothing_made():
    assert make_folds(_cases(["1", "2"]), 0, 0) == []
