"""`swin-umamba bench WHAT` hands its arguments to the benchmark room."""

import sys
import types

import pytest

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.cli import bench


@pytest.fixture
def benchmark(monkeypatch):
    """A stand-in for benchmark/ops.py that remembers what it was given."""
    module = types.ModuleType("stand_in_benchmark")
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
