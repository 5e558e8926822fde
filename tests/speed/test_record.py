"""The JSON layout that all measurements share."""

import json

import pytest

from tests.speed import made_up, record


def test_what_was_written_is_read(tmp_path):
    file = tmp_path / "one.json"
    written = made_up.everything()
    record.write_document(file, written)
    assert record.read_document(file) == written
    assert record.find_documents(tmp_path) == [file]


def test_the_head_names_device_versions_and_backends():
    document = record.new_document("bench ops", "cpu", {"size": 3})
    assert document["device"]["type"] == "cpu"
    assert document["device"]["threads"] >= 1
    assert document["versions"]["torch"]
    assert document["backends"]["reference"] == "available"
    json.dumps(document)


def test_a_later_version_may_know_more(tmp_path):
    file = tmp_path / "later.json"
    record.write_document(file, made_up.document(made_up.networks()))
    content = json.loads(file.read_text())
    content["figures"][0]["from_the_future"] = 1
    file.write_text(json.dumps(content))
    assert record.read_document(file)["figures"] == made_up.networks()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON file"),
        ("[]", "is not a file of measurements; expected one that `swin-umamba bench ops"),
        (json.dumps({"layout": record.LAYOUT, "figures": [{"what": "scan"}]}), "has a figure that is not complete"),
        (json.dumps({"layout": record.LAYOUT, "figures": []}), "lacks command, date, device, versions"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        record.read_document(file)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json cannot be read: No such file"):
        record.read_document(tmp_path / "none.json")


def test_lines_say_what_where_and_how_much():
    (fused, *_), problem = made_up.cores(), made_up.networks()[-1]
    assert fused.line() == (
        "scan with projections, fused (triton), eager, forward+backward, float16, batch 12, 320x320 /4 D 192: 1 ms, "
        "spread 1%, 100 G state-steps/s"
    )
    assert " ms" not in fused.line(times=False)
    assert problem.line().endswith("batch 12, 320x320: NOT MEASURED, out of memory")


def test_figures_kept_in_the_repository_can_be_read():
    for file in record.find_documents():
        assert record.read_document(file)["figures"], file
