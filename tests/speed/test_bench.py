"""`make bench`: what it measures and writes, how it ends, at sizes that take no time."""

import itertools
import math

import pytest
import torch

from tests.messages import assert_names
from tests.speed import bench, made_up, record
from tests.speed.networks import Builder
from tests.speed.record import COMPILED, EAGER, FUSED, GRAPH, INFERENCE, OWN, STEP, WITHOUT, read_document
from tests.speed.test_networks import tiny

SMALL = ("ops", "--device", "cpu", "--size", "4", "4", "--channels", "16", "--states", "4", "--seconds", "0")


def run(*arguments) -> int:
    return bench.main([*map(str, arguments)])


@pytest.fixture
def quick(monkeypatch):
    """Tiny networks, and nothing that is counted."""
    monkeypatch.setattr(bench, "Builder", lambda: Builder(tiny))
    monkeypatch.setattr(bench, "saved_jobs", lambda device: [])


def test_backends_are_checked_and_timed(tmp_path, capsys):
    file = tmp_path / "ops.json"
    assert run(*SMALL, "--backend", "numba", "--json", file) == 0
    content = read_document(file)
    assert (content["command"], content["settings"]["states"]) == ("bench ops", 4)
    (check,) = content["checks"]
    assert (check["name"], check["passed"]) == ("numba against the reference", True)
    figures = content["figures"]
    assert {(f.batch, f.size, f.stride, f.channels) for f in figures} == {(1, (4, 4), 1, 16)}
    assert [(f.backend, f.what, f.passes) for f in figures] == [
        ("numba", "scan", "forward"),
        ("numba", "scan", "backward"),
        ("numba", "scan with projections", "forward"),
        ("numba", "scan with projections", "forward+backward"),
    ]
    for figure in figures:
        steps = 4 * 16 * 4 * 4 * 4  # directions * channels * H * W * states
        assert math.isclose(figure.giga_state_steps, steps / figure.milliseconds / 1e6)
        assert figure.spread >= 0
    assert_names(capsys.readouterr().out, "numba", "passed", f"written to {file}")


def test_a_backend_that_is_off_fails(capsys, monkeypatch):
    monkeypatch.setattr(bench, "worst_error", lambda *_: 1e-2)
    assert run(*SMALL, "--backend", "numba") == 1
    assert_names(capsys.readouterr().out, "FAILED: numba", "1.0e-02", "1e-05")


def test_a_cpu_is_asked_for_more(monkeypatch, tmp_path):
    """The stages of a network, other code for a sequence, and networks beside themselves without scans."""
    monkeypatch.setattr(bench, "BACKENDS", ("numba",))
    monkeypatch.setattr(bench, "STAGES", ((40, 16),))
    monkeypatch.setattr(bench, "FURTHER_SHAPES", ((2, 16),))
    monkeypatch.setattr(bench, "others", lambda seconds: [made_up.network_figure("other code")])
    monkeypatch.setattr(bench, "controls", lambda name, *_: [made_up.network_figure(name, WITHOUT)])
    assert run(*SMALL, "--json", tmp_path / "all.json") == 0
    figures = read_document(tmp_path / "all.json")["figures"]
    assert {f.size for f in figures if f.channels} == {(4, 4), (2, 2)}
    assert [f.what for f in figures if not f.channels] == ["other code", "SwinUMambaD", "SwinUMamba"]


REFUSED = {
    "channels": ((*SMALL, "--channels", "0"), ("--channels", "at least 1")),
    "not here": ((*SMALL, "--backend", "triton"), ("--backend triton", "cpu")),
    "network": (("networks", "--networks", "UNet"), ("--networks", "'UNet'", "SwinUMambaD")),
    "graph": (("networks", "--device", "cpu", "--modes", "graph"), ("CUDA graphs", "eager")),
    "pipeline": (("networks", "--device", "cpu", "--pipelines", "mamba_ssm"), ("--pipelines mamba_ssm", "doctor")),
    "folder": (("networks", "--json", "none/f.json"), ("--json none/f.json", "{here}/none", "make it")),
    "file": (("report", "none.json"), ("none.json", "No such file or directory")),
    "form": (("report", "{figures}", "--plot", "f.gif"), ("--plot f.gif", ".png", ".svg", ".pdf")),
    "plot": (("report", "{figures}", "--plot", "none/f.png"), ("--plot none/f.png", "{here}/none", "make it")),
}
if not torch.cuda.is_available():
    REFUSED["no GPU"] = (("networks", "--device", "cuda"), ("--device cuda", "--device cpu"))


@pytest.mark.parametrize(("arguments", "facts"), REFUSED.values(), ids=list(REFUSED))
def test_refused(arguments, facts, figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = run(*(argument.format(figures=figures) for argument in arguments))
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert_names(capsys.readouterr().err, *(fact.format(here=tmp_path) for fact in facts))
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def chosen(*arguments):
    return bench.figures(bench._parser().parse_args(["networks", *arguments]))


def test_small_on_a_cpu():
    found = chosen("--device", "cpu")
    assert {(f.batch, f.size, f.dtype, f.mode) for f in found} == {(1, (64, 64), "float32", EAGER)}
    assert len({f.what for f in found}) == 6
    assert {f.pipeline for f in found} == {FUSED, OWN}


def test_order_and_choice_on_a_gpu():
    found = chosen("--device", "cuda", "--networks", "SwinUMambaD", "PlainConvUNet", "--dtype", "float16")
    assert len(found) == len(set(found))
    assert [mode for mode, _ in itertools.groupby(found, lambda f: f.mode)] == [EAGER, COMPILED, GRAPH]
    assert (found[0].batch, found[0].passes, found[0].size) == (1, INFERENCE, (320, 320))
    assert {(f.passes, f.pipeline) for f in found if f.batch == 1} == {(INFERENCE, FUSED)}
    assert {f.batch for f in found if f.mode == GRAPH} == {1}
    assert {f.pipeline for f in found if f.mode != EAGER} == {FUSED}
    assert {f.what for f in found if f.pipeline == OWN} == {"SwinUMambaD"}
    # dagger: 2 batches, 2 sizes, 2 passes, 2 pipelines; the U-Net has one; one image at 2 sizes each
    assert len([f for f in found if f.mode == EAGER]) == 16 + 8 + 4


def test_networks(quick, tmp_path, capsys):
    file = tmp_path / "figures.json"
    small = ("--device", "cpu", "--networks", "SwinUMambaD", "--size", "8", "--seconds", "0", "--json", file)
    assert run("networks", *small) == 0
    document = read_document(file)
    assert document["command"] == "bench networks"
    assert document["settings"]["networks"] == ["SwinUMambaD"]
    assert {(f.pipeline, f.passes) for f in document["figures"] if not f.problem} == {
        (pipeline, passes) for pipeline in (FUSED, OWN) for passes in (STEP, INFERENCE)
    }
    assert_names(capsys.readouterr().out, "Ctrl-C", "| SwinUMambaD | training step", f"written to {file}")


def test_nothing_measured_is_a_failure(quick, monkeypatch):
    monkeypatch.setattr(bench, "Builder", lambda: Builder(lambda *_: 1 / 0))
    assert run("networks", "--device", "cpu", "--networks", "VMUNet", "--size", "8", "--seconds", "0") == 1


@pytest.fixture
def figures(tmp_path):
    file = tmp_path / "figures.json"
    record.write_document(file, made_up.everything())
    return file


def test_report(figures, tmp_path, capsys, monkeypatch):
    assert run("report", figures, "--plot", tmp_path / "figures.png") == 0
    assert "## Made-up device: gpu_check, 2026-01-02" in capsys.readouterr().out
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
    target = tmp_path / "figures.md"
    assert run("report", figures, figures, "--markdown", target) == 0
    assert target.read_text().count("## Made-up device") == 2
    assert_names(capsys.readouterr().out, "2 runs", target)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "none")
    with pytest.raises(SystemExit):
        run("report")
    assert_names(capsys.readouterr().err, "make gpu-check", "--json FILE")


def test_help(capsys):
    for what in ("ops", "networks", "report"):
        with pytest.raises(SystemExit):
            run(what, "--help")
    assert_names(capsys.readouterr().out, "--seconds", "--pipelines", "--plot")
