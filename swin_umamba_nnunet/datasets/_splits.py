"""Who is trained on, who validates, who is held out; cases of one group never come apart.  scikit-learn draws."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from swin_umamba_nnunet.datasets._model import ConversionError, Findings, SourceCase

Fold = dict[str, list[str]]  # {"train": [case, ...], "val": [case, ...]}: an entry of nnU-Net's splits_final.json


def hold_out(cases: Sequence[SourceCase], fraction: float, seed: int) -> list[SourceCase]:
    """Make whole groups test cases until about `fraction` of the groups are.

    Raises:
        ConversionError: the fraction is not between 0 and 1, or too few groups are there.
    """
    from sklearn.model_selection import GroupShuffleSplit

    if not 0 < fraction < 1:
        raise ConversionError(f"--test-fraction {fraction}: give a number between 0 and 1, for example 0.2")
    if any(case.part == "test" for case in cases):
        raise ConversionError("--test-fraction: the source already has test cases; leave the option out to use them")
    groups = [case.unit for case in cases]
    count = len(set(groups))
    tests = round(fraction * count)
    if not 1 <= tests < count:
        raise ConversionError(
            f"--test-fraction {fraction} of {count} groups or cases leaves nothing to test or to train on"
        )
    splitter = GroupShuffleSplit(1, test_size=tests, random_state=seed)
    _, held_out = next(splitter.split(np.zeros(len(cases)), groups=groups))
    return [replace(case, part="test") if index in held_out else case for index, case in enumerate(cases)]


def make_folds(cases: Sequence[SourceCase], folds: int, seed: int) -> list[Fold]:
    """nnU-Net's splits_final.json: validation cases given by the source are fold 0, else `folds` folds by group.

    Empty where there are neither.

    Raises:
        ConversionError: there are fewer groups than folds.
    """
    training = sorted((case for case in cases if case.part != "test"), key=lambda case: case.name)
    if any(case.part == "val" for case in training):
        return [{part: [case.name for case in training if case.part == part] for part in ("train", "val")}]
    if not folds:
        return []
    groups = sorted({case.unit for case in training})
    if folds < 2 or len(groups) < folds:
        raise ConversionError(
            f"{len(groups)} groups of training cases do not make {folds} folds; --folds takes 2 to {len(groups)}"
            if len(groups) > 1
            else "all training cases are one group: there is nothing to validate on; check --group-pattern"
        )
    from sklearn.model_selection import GroupKFold

    # folds of about equally many cases, the groups shuffled beforehand
    order = dict(zip(groups, np.random.default_rng(seed).permutation(len(groups))))
    codes = [order[case.unit] for case in training]
    return [
        {"train": [training[i].name for i in train], "val": [training[i].name for i in val]}
        for train, val in GroupKFold(folds).split(codes, groups=codes)
    ]


def judge_groups(cases: Sequence[SourceCase], findings: Findings) -> None:
    """Find groups that the source itself has on both sides."""
    sides = defaultdict(set)
    for case in cases:
        if case.group is not None:
            sides[case.group].add(case.part)
    for group, parts in sorted(sides.items()):
        if len(parts) > 1:
            topic = "the source has one group in several of train, validation and test"
            findings.error(topic, " and ".join(sorted(parts)), group)
