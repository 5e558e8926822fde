"""`swin-umamba bench WHAT` hands its arguments to the benchmark room."""

import subprocess
import sys
import types

import pytest

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.cli import bench
from tests.installed import ROOT
from tests.messages import assert_names
from tests.speed import made_up, record


@pytest.fixture
def benchmark(monkeypatch):
    """A stand-in for tests/speed/ops.py that remembers what it was given."""
    module = types.ModuleType("stand_in_benchmark")
    module.DESCRIPTION = "What it does."
    module.seen = []
    module.add_arguments = lambda parser: parser.add_argument("--size", type=int, default=64)
    module.run = lambda args: module.seen.append(args.size) or 3
    monkeypatch.setitem(sys.modules, "stand_in_benchmark", module)
    monkeypatch.setattr(bench, "BENCHMARKS", {"ops": ("stand_in_benchmark", "the operators")})
    return module


def test_arguments_and_exit_code_pass_through(benchmark):
    assert cli.main(["bench", "ops", "--size", "32"]) == 3
    assert benchmark.seen == [32]


def test_without_a_benchmark_the_choices_are_named(benchmark, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench"])
    assert stopped.value.code == 2
    assert "WHAT" in capsys.readouterr().err


def test_help_answers_without_torch():
    code = (
        "import sys\n"
        "from swin_umamba_nnunet import cli\n"
        "for what in ('ops', 'networks', 'report'):\n"
        "    try: cli.main(['bench', what, '--help'])\n"
        "    except SystemExit as stopped: assert stopped.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    for word in ("--seconds", "--pipelines", "--plot", "Ctrl-C keeps what has been measured"):
        assert word in run.stdout


def test_networks_options_arrive(monkeypatch, tmp_path):
    seen = []
    from tests.speed import bench as benchmark

    monkeypatch.setattr(benchmark, "run", lambda options, file: seen.append((options, file)) or 0)
    file = tmp_path / "figures.json"
    arguments = ["--networks", "VMUNet", "--batch", "2", "3", "--size", "32", "--dtype", "bfloat16", "--budget", "9"]
    assert cli.main(["bench", "networks", *arguments, "--json", str(file)]) == 0
    ((options, given),) = seen
    assert (options.networks, options.dtypes) == (("VMUNet",), ("bfloat16",))
    assert (options.batches, options.sizes) == ((2, 3), (32,))
    assert (options.device, options.modes, options.budget, given) == (None, (), 9.0, file)


def test_what_makes_no_sense_is_one_sentence(capsys):
    assert cli.main(["bench", "networks", "--device", "cpu", "--networks", "UNet"]) == 2
    assert_names(capsys.readouterr().err, "--networks UNet", "SwinUMambaD")


@pytest.fixture
def figures(tmp_path):
    file = tmp_path / "figures.json"
    record.write_document(file, made_up.everything())
    return file


def test_report_on_the_screen_and_as_a_picture(figures, tmp_path, capsys):
    assert cli.main(["bench", "report", str(figures), "--plot", str(tmp_path / "figures.png")]) == 0
    assert "## Made-up device: gpu_check, 2026-01-02" in capsys.readouterr().out
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_several_files_as_markdown(figures, tmp_path, capsys):
    target = tmp_path / "figures.md"
    assert cli.main(["bench", "report", str(figures), str(figures), "--markdown", str(target)]) == 0
    assert target.read_text().count("## Made-up device") == 2
    assert_names(capsys.readouterr().out, "2 runs", target)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (("none.json",), ("none.json", "No such file or directory")),
        (("{figures}", "--plot", "figures.gif"), ("--plot figures.gif", ".png", ".svg", ".pdf")),
        (("{figures}", "--plot", "nowhere/figures.png"), ("--plot nowhere/figures.png", "{here}/nowhere ", "make it")),
    ],
)
def test_report_says_what_is_wrong(arguments, facts, figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "report", *(a.format(figures=figures) for a in arguments)]) == 2
    assert_names(capsys.readouterr().err, *(fact.format(here=tmp_path) for fact in facts))
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_report_without_matplotlib(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tests.speed.plot", None)
    assert cli.main(["bench", "report", str(figures), "--plot", str(tmp_path / "figures.png")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_report_of_nothing(monkeypatch, capsys):
    monkeypatch.setattr(record, "find_documents", list)
    assert cli.main(["bench", "report"]) == 2
    assert_names(capsys.readouterr().err, "make gpu-check", "swin-umamba bench networks --json FILE")
