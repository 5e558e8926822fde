"""Files and tables of made-up figures."""

import json

import pytest

from tests.messages import naming
from tests.speed import made_up, record
from tests.speed.record import FUSED, LOOP, OWN, SEQUENCE, WITHOUT, Check, Figure
from tests.speed.report import markdown


def columns(figures, title, device="cuda"):
    """{head: what stands in each row} of a table."""
    text = markdown(made_up.document(figures, device)).split(f"### {title}\n\n")[1].split("\n\n")[0]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return dict(zip(head, zip(*rows)))


def test_scans_are_compared_with_their_own_kind():
    found = columns([*made_up.scans(), *made_up.cores(), *made_up.cores(256, {FUSED: 1, OWN: 7})], "Scans")
    assert found["what"] == ("scan",) * 8 + ("scan with projections",) * 8
    assert found["own 1D / fused"] == ("-",) * 8 + ("4.00",) * 4 + ("7.00",) * 4
    assert found["mamba_ssm / fused"] == ("-",) * 8 + ("3.00",) * 4 + ("-",) * 4
    assert found["% of exp bound"][3:5] == ("50", "20")
    one = {"size": (9,), "stride": 1, "channels": 4}
    sequences = [Figure(SEQUENCE, p, milliseconds=t, **one) for p, t in ((FUSED, 2), (LOOP, 9))]
    assert columns(sequences, "Scans")[f"{LOOP} / fused"] == ("4.50",)


def test_networks():
    control = made_up.network_figure(pipeline=WITHOUT, milliseconds=4.0)
    found = columns([*made_up.networks(), control], "Whole networks")
    step, compiled, eager_one, graph, unet = range(5)
    assert found["ms"] == ("10", "9", "12", "4", "5")
    assert found["/ eager"] == ("-", "0.90", "-", "0.33", "-")
    assert found["/ without scans"][step] == "2.50"
    assert found["mamba_ssm / fused"][step] == "2.00"
    assert found["peak MiB"][graph] == "-"
    assert found["mamba_ssm peak"][step] == "1000"
    assert found["own 1D / fused"][unet] == "-"


def test_kept_for_backward():
    found = columns(made_up.kept(), "Kept for backward")
    assert found["of mamba_ssm"] == ("0.20",) * 4
    assert "of own 1D" not in found


def test_everything_is_on_the_page():
    checks = [Check("tests", detail="in 3 s"), Check("finite", problem="x")]
    checks += [Check(f"t{i}", "kernel", skipped=i == 3) for i in range(4)]
    text = markdown({**made_up.everything(), "checks": checks, "not_run": ["SwinUMamba, fused"]})
    assert text.startswith("## Made-up device: gpu-check, 2026-01-02\n\ntorch 2.0.\n")
    for title in (
        "What to reach on an H200",
        "Kernels",
        "Fastest launches",
        "Scans",
        "Whole networks",
        "Kept for backward",
        "Checks",
        "Not measured",
        "Not reached",
    ):
        assert f"\n### {title}\n" in text
    assert "- passed: kernel, 3 tests\n- passed: tests, in 3 s\n- FAILED: finite, x\n- skipped: t3" in text
    assert "Values were not checked" not in text
    assert "UMambaEnc, fused (triton), eager, training step, float16, batch 12, 320 x 320: NOT MEASURED, out of" in text
    assert text.count("| met ") == 12
    empty = markdown(made_up.document([], "cpu"))
    assert "### Scans" not in empty
    assert empty.count("| not measured ") == 12
    assert "within this run only" in empty
    assert "Values were not checked" in empty


def test_kernels_beside_the_model_and_how_they_would_be_faster():
    clocks = columns(made_up.kernels(), "Kernels")
    assert clocks["what"] == record.KERNELS
    assert clocks["clocks"] == ("100",) * 4
    assert clocks["predicted"] == ("179", "157", "1010", "157")
    found = columns(made_up.kernels(), "Fastest launches")
    assert found["passes"] == ("forward", "backward")
    assert found["ms as launched"] == ("4", "4")
    assert found["ms at best"] == ("2.5", "2.5")  # of both kernels, not the least of each
    assert found["with"] == ("160 registers, 8 warps",) * 2


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
    fused, problem = made_up.scan_figure(backend="triton", milliseconds=1.0, spread=0.01), made_up.networks()[-1]
    assert fused.line() == (
        "scan with projections, fused (triton), eager, forward+backward, float16, batch 12, 320 x 320 /4 D 192: 1 ms, "
        "spread 1%"
    )
    assert problem.line().endswith("batch 12, 320 x 320: NOT MEASURED, out of memory")
