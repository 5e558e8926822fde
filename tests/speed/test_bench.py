"""`bench networks`: which measurements, and the whole of it with a tiny network."""

import itertools

import pytest
import torch

from swin_umamba_nnunet.networks import SwinUMambaD
from tests.speed import bench
from tests.speed.bench import NetworkOptions, settings
from tests.speed.networks import Builder
from tests.speed.record import COMPILED, EAGER, FUSED, GRAPH, INFERENCE, OWN, read_document


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(
        bench, "Builder", lambda: Builder(lambda *_: SwinUMambaD(1, 14, True, depths=(1, 1), width=8, d_state=2))
    )
    monkeypatch.setattr(bench, "saved_jobs", lambda device: [])


def test_small_on_a_cpu():
    options = NetworkOptions(device="cpu").resolved()
    assert (options.batches, options.sizes, options.dtypes, options.modes) == ((1,), (64,), ("float32",), ("eager",))
    assert len(options.networks) == 6
    assert options.pipelines == ("fused", "own")


def test_order_and_choice_on_a_gpu():
    options = NetworkOptions("cuda", ("SwinUMambaD", "PlainConvUNet"), (12, 30), (320, 256), ("float16",),
                             ("step", "inference"), ("fused", "own"), ("eager", "compiled", "graph"))  # fmt: skip
    chosen = settings(options)
    assert len(chosen) == len(set(chosen))
    assert [mode for mode, _ in itertools.groupby(chosen, lambda s: s.mode)] == [EAGER, COMPILED, GRAPH]
    assert (chosen[0].batch, chosen[0].passes, chosen[0].size) == (1, INFERENCE, (320, 320))
    assert {(s.passes, s.pipeline) for s in chosen if s.batch == 1} == {(INFERENCE, FUSED)}
    assert {s.batch for s in chosen if s.mode == GRAPH} == {1}
    assert {s.pipeline for s in chosen if s.mode != EAGER} == {FUSED}
    assert {s.network for s in chosen if s.pipeline == OWN} == {"SwinUMambaD"}
    # dagger: 2 batches, 2 sizes, 2 passes, 2 pipelines; the U-Net has one; one image at 2 sizes each
    assert len([s for s in chosen if s.mode == EAGER]) == 16 + 8 + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": (0,)}, "--batch, --size and --threads must be at least 1"),
        ({"networks": ("UNet",)}, "--networks UNet: choose from SwinUMambaD, SwinUMamba"),
        ({"modes": ("fast",)}, "--modes fast: choose from eager, compiled, graph"),
        ({"device": "cpu", "modes": ("graph",)}, "CUDA graphs need a CUDA device"),
        ({"device": "cpu", "pipelines": ("mamba_ssm",)}, "--pipelines mamba_ssm cannot run on cpu"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkOptions(**options).resolved()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_gpu():
    with pytest.raises(ValueError, match="torch finds no CUDA device here; use --device cpu"):
        NetworkOptions(device="cuda").resolved()


def test_the_whole_of_it(tiny, tmp_path):
    said, file = [], tmp_path / "figures.json"
    options = NetworkOptions("cpu", ("SwinUMambaD",), sizes=(8,), seconds=0)
    assert bench.run(options, file, said.append) == 0
    document = read_document(file)
    assert document["command"] == "bench networks"
    assert document["settings"]["networks"] == ["SwinUMambaD"]
    assert len([f for f in document["figures"] if not f.problem]) == 4
    text = "\n".join(said)
    assert "4 measurements of networks; Ctrl-C ends it and keeps what there is" in text
    assert "| SwinUMambaD | training step" in text
    assert f"written to {file}" in text
    assert " ms," not in text


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"--json .*: the folder .* does not exist; make it first"):
        bench.run(NetworkOptions("cpu"), tmp_path / "none" / "figures.json")


def test_nothing_measured_is_a_failure(tiny, monkeypatch):
    monkeypatch.setattr(bench, "Builder", lambda: Builder(lambda *_: 1 / 0))
    assert bench.run(NetworkOptions("cpu", ("VMUNet",), sizes=(8,), seconds=0), None, lambda text: None) == 1
