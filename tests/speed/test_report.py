"""Files and tables of made-up figures."""

import json
from pathlib import Path

import pytest

from tests.messages import assert_names, naming
from tests.speed import made_up, record
from tests.speed.record import Check
from tests.speed.report import markdown

PAGE = Path(__file__).with_name("made_up.md")


def page():
    """Every section and column of a report, of made-up figures."""
    checks = [Check("tests", detail="in 3 s"), Check("finite", problem="x")]
    checks += [Check(f"t{i}", "kernel", skipped=i == 3) for i in range(4)]
    return markdown({**made_up.everything(), "checks": checks, "not_run": ["SwinUMamba, fused"]})


def test_the_page_is_as_it_was():
    """If it is to change: `python -m tests.speed.test_report` writes it anew, and git shows what has changed."""
    assert page() == PAGE.read_text()


def test_a_page_of_nothing():
    text = markdown(made_up.document([], "cpu"))
    assert_names(text, "within this run only", "Values were not checked")
    assert "### Scans" not in text


def test_the_table_of_what_to_reach_is_the_one_that_is_filled_in():
    shown = (record.RESULTS / "README.md").read_text()
    assert markdown(made_up.document([])).split("\n\n")[3] in shown


def test_what_was_written_is_read(tmp_path):
    written = made_up.everything() | {"checks": [Check("a", "group", problem="off by one")]}
    record.write_document(tmp_path / "one.json", written)
    assert record.read_document(tmp_path / "one.json") == written


def test_the_head_names_device_and_versions():
    document = record.new_document("bench ops", "cpu", {"size": 3})
    assert document["device"]["type"] == "cpu"
    assert document["device"]["threads"] >= 1
    assert document["versions"]["torch"]
    json.dumps(document)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "No such file"),
        ("{", "JSON"),
        ("[]", "TypeError"),
        ('{"layout": "another"}', "'another'"),
        (json.dumps({"layout": record.LAYOUT, "figures": [{"size": [1, 1]}]}), "'what'"),
        (json.dumps({"layout": record.LAYOUT, "checks": [], "figures": []}), "'command'"),
    ],
)
def test_other_files_are_refused(content, fact, tmp_path):
    file = tmp_path / "other.json"
    if content:
        file.write_text(content)
    with pytest.raises(ValueError, match=naming(file, fact, "make bench", "make gpu-check")):
        record.read_document(file)


def test_lines_say_what_where_and_how_much():
    assert made_up.scan_figure(backend="triton", milliseconds=1.0, spread=0.01).line() == (
        "scan with projections, fused (triton), eager, forward+backward, float16, batch 12, 320 x 320 /4 D 192: 1 ms, "
        "spread 1%"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
