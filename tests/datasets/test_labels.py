"""Mask values to labels: what is understood, what is refused and with which advice."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from swin_umamba_nnunet.datasets._labels import resolve
from swin_umamba_nnunet.datasets._model import LabelEntry, LabelError, LabelRule, parse_label
from tests.messages import raises

RED, GREEN = 0xFF0000, 0x00FF00


def _rule(*texts, **settings):
    return LabelRule(tuple(parse_label(text) for text in texts), **settings)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("tumour=255", LabelEntry("tumour", 255)),
        (" left kidney = 3", LabelEntry("left kidney", 3)),
        ("cat=#FF8000", LabelEntry("cat", 0xFF8000, colour=True)),
        ("cat=255,128,0", LabelEntry("cat", 0xFF8000, colour=True)),
    ],
)
def test_parse(text, entry):
    assert parse_label(text) == entry


@pytest.mark.parametrize(
    "text", ["", "tumour", "=3", "tumour=", "a=-1", "a=1.5", "a=#ff00", "a=256,0,0", "a=1,2", "a=red"]
)
def test_parse_refuses(text):
    with raises(LabelError, "NAME=VALUE"):
        parse_label(text)


@pytest.mark.parametrize("values", [{0: 5, 255: 2}, {0: 5, 1: 2}, {255: 3}, {0: 7}, {}])
def test_two_labels_work_by_themselves(values):
    labels = resolve(LabelRule(), values, colour=False)
    assert labels.names == {"background": 0, "foreground": 1}
    assert not labels.unknown(values)
    raw = np.array(sorted(values), dtype=np.int32)
    assert_array_equal(labels.encode(raw), raw > 0)


def test_consecutive_labels_work_by_themselves():
    labels = resolve(LabelRule(), {0: 1, 1: 1, 3: 1, 2: 9}, colour=False)
    assert labels.names == {"background": 0, "class_1": 1, "class_2": 2, "class_3": 3}


@pytest.mark.parametrize(
    ("values", "colour", "advice"),
    [
        ({0: 9, 128: 5, 255: 1}, False, "--label background=0 --label NAME1=128 --label NAME2=255"),
        ({0: 9, 1: 5, 255: 1}, False, "--label NAME1=1 --label NAME2=255; or --threshold 0"),
        ({0: 9, 1: 5, 2: 3, 255: 1}, False, "--label NAME1=1 --label NAME2=2 --label NAME3=255"),
        ({0: 9, RED: 5}, True, "--label background='#000000' --label NAME1='#ff0000'"),
        ({0: 9, 3: 1, 250: 4, 255: 6}, False, "--threshold 127"),
        # a JPEG of quality 50: values everywhere, next to no pixels between the ends
        ({0: 9000, 255: 900} | dict.fromkeys(range(1, 250, 3), 2), False, "--threshold 127"),
        ({0: 9000, 255: 900} | dict.fromkeys(range(100, 150, 10), 200), False, "--label NAME1=100"),
        (dict.fromkeys(range(0, 255, 2), 1), False, "really masks"),
    ],
)
def test_what_cannot_be_guessed_is_explained(values, colour, advice):
    with pytest.raises(LabelError) as error:
        resolve(LabelRule(), values, colour)
    assert advice in str(error.value)


def test_listed_colours():
    labels = resolve(_rule("background=#ffffff", "a=#ff0000", "b=#00ff00"), {RED: 1, 0xFFFFFF: 3, 5: 1}, colour=True)
    assert labels.unknown({RED: 1, 0xFFFFFF: 3, 5: 1}) == [5]
    assert_array_equal(labels.encode(np.array([RED, 0xFFFFFF, GREEN])), [1, 0, 2])
    with raises(LabelError, "#000005"):
        labels.encode(np.array([RED, 5]))


@pytest.mark.parametrize(("texts", "colour"), [(("a=#ff0000",), False), (("a=255",), True)])
def test_grey_rules_for_coloured_masks_and_the_other_way_round(texts, colour):
    with raises(LabelError, "write for example"):
        resolve(_rule(*texts), {0: 1}, colour)


@pytest.mark.parametrize(
    ("of_dataset", "raw", "expected"),
    [
        ({0, 3, 127, 128, 255}, [0, 3, 127, 128, 255], [0, 0, 0, 1, 1]),
        ({0, 1}, [0, 1, 1], [0, 1, 1]),
        ({0, 1, 255}, [0, 1, 1], [0, 0, 0]),  # JPEG noise of an empty mask, not labels
        ({0}, [0, 0], [0, 0]),
    ],
)
def test_threshold_cuts_and_understands_datasets_of_0_and_1(of_dataset, raw, expected):
    labels = resolve(LabelRule(threshold=127, foreground="lesion"), dict.fromkeys(of_dataset, 1), colour=False)
    assert_array_equal(labels.encode(np.array(raw)), expected)
    values = {value: raw.count(value) for value in raw}
    assert labels.count(values).get(1, 0) == sum(expected)
    assert labels.names == {"background": 0, "lesion": 1}
