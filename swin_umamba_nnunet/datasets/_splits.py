"""Who is trained on, who validates, who is held out; cases of one group never come apart.  scikit-learn draws."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from swin_umamba_nnunet.datasets._model import Case, ConversionError, Finding

Fold = dict[str, list[str]]  # {"train": [case, ...], "val": [case, ...]}: an entry of nnU-Net's splits_final.json


def _group(case: Case) -> str:
    return case.name if case.group is None else f"group {case.group}"


def hold_out(cases: Sequence[Case], fraction: float, seed: int) -> tuple[Case, ...]:
    """Make whole groups test cases until about `fraction` of the groups are.

    Raises:
        ConversionError: the fraction is not between 0 and 1, or too few groups are there.
    """
    from sklearn.model_selection import GroupShuffleSplit

    if not 0 < fraction < 1:
        raise ConversionError(f"--test-fraction {fraction}: give a number between 0 and 1, for example 0.2")
    if any(case.part == "test" for case in cases):
        raise ConversionError("--test-fraction: the source already has test cases; leave the option out to use them")
    groups = [_group(case) for case in cases]
    count = len(set(groups))
    if count < 2 or not 1 <= round(fraction * count) < count:
        raise ConversionError(
            f"--test-fraction {fraction} of {count} groups or cases leaves nothing to test or to train on"
        )
    splitter = GroupShuffleSplit(1, test_size=round(fraction * count), random_state=seed)
    _, held_out = next(splitter.split(np.zeros(len(cases)), groups=groups))
    chosen = set(held_out.tolist())
    return tuple(replace(case, part="test") if index in chosen else case for index, case in enumerate(cases))


def make_folds(cases: Sequence[Case], folds: int, seed: int) -> list[Fold]:
    """nnU-Net's splits_final.json: validation cases given by the source are fold 0, else `folds` folds by group.

    Empty where there are neither.

    Raises:
        ConversionError: there are fewer groups than folds.
    """
    training = sorted((case for case in cases if case.part != "test"), key=lambda case: case.name)
    names = [case.name for case in training]
    if any(case.part == "val" for case in training):
        train = [case.name for case in training if case.part == "train"]
        return [{"train": train, "val": [case.name for case in training if case.part == "val"]}]
    if not folds:
        return []
    groups = sorted({_group(case) for case in training})
    if folds < 2 or len(groups) < folds:
        raise ConversionError(
            f"{len(groups)} groups of training cases do not make {folds} folds; --folds takes 2 to {len(groups)}"
            if len(groups) > 1
            else "all training cases are one group: there is nothing to validate on; check --group-pattern"
        )
    fold_of = _balanced(training, groups, folds, seed)
    return [
        {
            "train": [name for name, case in zip(names, training) if fold_of[_group(case)] != fold],
            "val": [name for name, case in zip(names, training) if fold_of[_group(case)] == fold],
        }
        for fold in range(folds)
    ]


def _balanced(training: Sequence[Case], groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Group -> fold, folds of about equally many cases: scikit-learn's GroupKFold, the groups shuffled beforehand."""
    from sklearn.model_selection import GroupKFold

    order = {group: int(place) for group, place in zip(groups, np.random.default_rng(seed).permutation(len(groups)))}
    codes = np.array([order[_group(case)] for case in training])
    fold_of = {}
    for fold, (_, held_out) in enumerate(GroupKFold(folds).split(codes, groups=codes)):
        fold_of.update({_group(training[index]): fold for index in held_out})
    return fold_of


def judge_groups(cases: Sequence[Case]) -> list[Finding]:
    """Groups that the source itself has on both sides."""
    sides: dict[str, set[str]] = {}
    for case in cases:
        if case.group is not None:
            sides.setdefault(case.group, set()).add(case.part)
    return [
        Finding(
            "error",
            "the source has one group in several of train, validation and test",
            " and ".join(sorted(parts)),
            group,
        )
        for group, parts in sorted(sides.items())
        if len(parts) > 1
    ]
