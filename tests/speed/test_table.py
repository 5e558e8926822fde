"""Markdown of made-up figures."""

from tests.speed import made_up
from tests.speed.record import FUSED, MAMBA_SSM, OWN
from tests.speed.table import markdown, network_rows, saved_rows, scan_rows, table


def column(rows, name):
    return [row[rows[0].index(name)] for row in rows[1:]]


def test_scans_are_compared_with_their_own_kind():
    rows = scan_rows([*made_up.scans(), *made_up.cores(), *made_up.cores(256, {FUSED: 1, OWN: 7})], "cuda")
    assert column(rows, "what") == ["scan"] * 8 + ["scan with projections"] * 8
    assert column(rows, "own 1D / fused") == ["-"] * 8 + ["4.00"] * 4 + ["7.00"] * 4
    assert column(rows, "mamba_ssm / fused") == ["-"] * 8 + ["3.00"] * 4 + ["-"] * 4
    assert column(rows, "% of exp bound")[:2] == ["50", "20"]


def test_networks_on_a_gpu():
    rows = network_rows([f for f in made_up.networks() if not f.problem], "cuda")
    step, unet, compiled, eager_one, graph = range(5)
    assert column(rows, "ms") == ["10", "5", "9", "12", "4"]
    assert column(rows, "/ eager") == ["-", "-", "0.90", "-", "0.33"]
    assert column(rows, "mamba_ssm / fused")[step] == "2.00"
    assert column(rows, "peak MiB")[graph] == "-"
    assert column(rows, "mamba_ssm")[step] == "1000"
    assert column(rows, "own 1D / fused")[unet] == "-"


def test_networks_on_a_cpu_have_no_milliseconds():
    text = markdown(made_up.document(made_up.networks(), "cpu"))
    assert "| ms " not in text
    assert "time / PlainConvUNet's" in text
    assert column(network_rows(made_up.networks()[:7], "cpu"), "time / PlainConvUNet's")[0] == "2.00"
    assert "ratios within this run only" in text


def test_kept_for_backward():
    rows = saved_rows(made_up.kept())
    assert column(rows, "fused / mamba_ssm") == ["0.2"] * 4
    assert column(rows, "own 1D") == ["-"] * 4


def test_everything_is_on_the_page():
    checks = [{"name": "tests", "passed": True, "detail": "in 3 s"}, {"name": "finite", "passed": False, "detail": "x"}]
    text = markdown({**made_up.everything(), "checks": checks, "not_run": ["SwinUMamba, fused"]})
    assert text.startswith("## Made-up device: gpu_check, 2026-01-02\n\ntorch 2.0.\n")
    for title in ("What to reach on an H200", "Scans", "Whole networks", "Kept for backward, MiB", "Checks",
                  "Not measured", "No time left for"):  # fmt: skip
        assert f"\n### {title}\n" in text
    assert "- passed: tests, in 3 s\n- FAILED: finite, x" in text
    assert (
        "UMambaEnc, fused (triton), eager, training step, float16, batch 12, 320x320: NOT MEASURED, out of memory"
        in text
    )
    assert text.count("| met ") == 9


def test_nothing_measured_is_a_page_too():
    text = markdown(made_up.document([]))
    assert "### Scans" not in text
    assert text.count("| not measured ") == 9


def test_every_row_has_every_column():
    lines = table([("a", "bcd", "e"), ("long text", "f", "g|h")]).splitlines()
    assert lines[0] == "| a         | bcd | e |"
    assert lines[1] == "|-----------|-----|---|"
    assert all(line.count("|") == 4 for line in lines[:2])


def test_pipelines_have_other_names_than_backends():
    assert len({FUSED, OWN, MAMBA_SSM, "mamba_ssm", "triton"}) == 5
