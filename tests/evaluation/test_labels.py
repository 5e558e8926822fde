"""Classes from dataset.json, from the command line, and as found."""

import json

import pytest

from swin_umamba_nnunet.evaluation import EvaluationError
from swin_umamba_nnunet.evaluation.labels import (
    parse_labels,
    read_dataset_json,
)
from tests.messages import raises


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_labels_regions_and_reader_of_dataset_json(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    content = {"labels": labels, "regions_class_order": [1, 2], "overwrite_image_reader_writer": "NibabelIO"}
    found = read_dataset_json(write(tmp_path / "dataset.json", content))
    assert found.classes == {"whole": (1, 2), "core": (2,)}
    assert (found.ignore, found.known, found.reader) == (3, {0, 1, 2}, "NibabelIO")
    assert found.keys == {"whole": "(1, 2)", "core": "2"}  # nnU-Net's spelling


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 column 2"),
        ({}, 'no "labels"'),
        ([1], 'no "labels"'),
        ({"labels": {"0": "background", "1": "liver"}}, '"labels".* "1": "liver"'),
        ({"labels": {"background": 0, "liver": []}}, '"labels".* "liver": '),
        ({"labels": {"background": 0}}, "no label but background"),
    ],
)
def test_bad_dataset_json(tmp_path, content, message):
    with pytest.raises(EvaluationError, match=rf"dataset\.json.*{message}"):
        read_dataset_json(write(tmp_path / "dataset.json", content))


def test_labels_of_the_command_line():
    assert parse_labels(["1", "liver=2", "tumour=4,3", 5]).classes == {
        "1": (1,),
        "liver": (2,),
        "tumour": (3, 4),
        "5": (5,),
    }


@pytest.mark.parametrize("texts", [["0"], ["x"], ["=1"], ["a="], ["-1"], ["1", "1"], ["a=1", "a=2"], [], ["1.5"]])
def test_bad_labels_of_the_command_line(texts):
    with raises(EvaluationError, "--labels"):
        parse_labels(texts)
