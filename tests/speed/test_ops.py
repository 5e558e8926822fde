"""`swin-umamba bench ops` on sizes that take no time: what it measures, what it writes, how it ends."""

import math

import pytest

from swin_umamba_nnunet import cli
from tests.speed import ops as benchmark
from tests.speed.record import read_document

SMALL = ("--size", "4", "4", "--channels", "16", "--states", "4", "--seconds", "0", "--backend", "numba")


def bench(*options):
    return cli.main(["bench", "ops", *SMALL, *map(str, options)])


def test_figures_and_errors_are_written(tmp_path, capsys):
    file = tmp_path / "ops.json"
    assert bench("--json", file) == 0
    content = read_document(file)
    assert (content["command"], content["settings"]["states"]) == ("bench ops", 4)
    (check,) = content["checks"]
    assert (check["name"], check["passed"]) == ("numba against the reference", True)
    figures = content["figures"]
    assert {(f.batch, f.size, f.stride, f.channels) for f in figures} == {(1, (4, 4), 1, 16)}
    measured = [(figure.backend, figure.what, figure.passes) for figure in figures]
    assert measured == [
        ("numba", what, passes)
        for what in ("scan", "scan with projections")
        for passes in ("forward", "forward+backward")
    ]
    for figure in figures:
        steps = 4 * 16 * 4 * 4 * 4  # directions * channels * H * W * states
        assert math.isclose(figure.giga_state_steps, steps / figure.milliseconds / 1e6)
        assert figure.spread >= 0
    text = capsys.readouterr().out
    assert "numba" in text
    assert "WRONG" not in text


def test_a_backend_that_is_off_fails(capsys, monkeypatch):
    exact = benchmark.selective_scan_2d

    def off_by_a_percent(*arguments, backend):
        output = exact(*arguments, backend=backend)
        return output * 1.01 if backend == "numba" else output

    monkeypatch.setattr(benchmark, "selective_scan_2d", off_by_a_percent)
    assert bench() == 1
    assert "1.0e-02  WRONG (allowed: 1e-05)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--channels", 0), "must be at least 1"),
        (("--threads", 0), "must be at least 1"),
        (("--backend", "nonsense"), "--backend nonsense: choose from triton, mamba_ssm, numba"),
        (("--backend", "triton"), "--backend triton cannot run on cpu"),
        (("--device", "nonsense"), "--backend numba cannot run on nonsense"),
    ],
)
def test_options_that_make_no_sense(options, message, capsys):
    assert bench(*options) == 2
    assert message in capsys.readouterr().err
