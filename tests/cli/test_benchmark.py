"""`swin-umamba benchmark`: what it prints and how it exits; the cells themselves are replaced."""

import shlex
import signal
from pathlib import Path

import pytest

from swin_umamba_nnunet.benchmark import Job, jobs, runner
from swin_umamba_nnunet.cli import benchmark, main
from tests.benchmark.conftest import NAME, SPLITS, Probe, make_dataset
from tests.jsons import dump, edit, load
from tests.messages import assert_names


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Flags of a benchmark of two rows and two seeds; a probe that finds all in order."""
    make_dataset(tmp_path, monkeypatch)
    monkeypatch.setattr(jobs, "ask", Probe())
    return f"--output {tmp_path}/bench --datasets 903 --trainers One Two --seeds 0 1 --device cpu".split()


@pytest.fixture
def outcomes(monkeypatch):
    """(trainer, seed) -> outcome of a run, "done" where nothing is said."""
    said: dict = {}

    def run_job(job, gpus, stop, rerun, listener):
        if not (job.is_done() or job.changes()):
            listener(job, "training", ["nnUNetv2_train"])
        outcome = said.get((job.row.name, job.seed), "done")
        if isinstance(outcome, BaseException):
            raise outcome
        error = {"step": "train", "reason": "train failed with exit code 1", "log_tail": "a hole\nin the net"}
        job.predictions.mkdir(parents=True, exist_ok=True)  # something that a change would make worthless
        job.write({"state": outcome, "inputs": dict(job.inputs), "error": error, "host": "h"})
        return outcome

    monkeypatch.setattr(runner, "run_job", run_job)
    return said


@pytest.fixture
def told(told):
    return lambda code, *words: told(code, "benchmark", *words)


def line_with(part, out, index=0):
    """The line of what was printed that has `part` in it, the first or another."""
    return [line for line in out.splitlines() if part in line][index]


def test_a_dry_run_shows_the_matrix_and_writes_nothing(arguments, tmp_path, told):
    out = told(0, "run", *arguments, "--dry-run").out
    assert len([line for line in out.splitlines() if line.startswith(NAME)]) == 4
    assert_names(out, "10 x 250", "2.00 GiB", "counted", "nnUNetResEncUNetLPlans")  # a baseline a reader will ask for
    assert_names(line_with("4 runs on cpu", out), "unknown", "--time-iterations 10")
    assert not (tmp_path / "bench").exists()


def test_the_time_of_some_cells_is_known(arguments, outcomes, tmp_path, told):
    told(0, "run", *arguments)
    for file in (tmp_path / "bench").rglob("cell.json"):
        training = {"seconds_per_epoch": 60.0, "epochs": 10} if "One" in str(file) else None
        edit(file, lambda record, training=training: record.update(training=training, state="failed"))
    out = told(0, "run", *arguments, "--dry-run").out
    assert_names(line_with("4 runs on cpu", out), "20 min 00 s", "2 runs", "unknown", "--time-iterations 10")
    assert out.count("measured\n") == 2


def test_a_run_says_what_it_begins_and_what_comes_next(arguments, outcomes, tmp_path, monkeypatch, told):
    """In a folder with a space; the commands it names are run as a shell would."""
    arguments = [str(tmp_path / "my bench") if text == str(tmp_path / "bench") else text for text in arguments]
    outcomes["One", 1] = "failed"
    out = told(1, "run", *arguments).out
    assert_names(out, f"[4/4] {NAME}/Two__nnUNetPlans__2d/fold_0/seed_1: done", "3 done", "1 failed")
    assert len(load(tmp_path / "my bench" / "benchmark.json")["cells"]) == 4
    first = f"{NAME}/One__nnUNetPlans__2d/fold_0/seed_0"
    assert out.index(f"[1/4] {first}: training") < out.index(f"[1/4] {first}: done")
    for action, option in (("status", ["--watch"]), ("report", [])):
        line = next(line for line in out.splitlines() if f"swin-umamba benchmark {action}" in line)
        command = shlex.split(line.partition("   ")[2])
        assert command == ["swin-umamba", "benchmark", action, str(tmp_path / "my bench"), *option]
    told(1, "status", tmp_path / "my bench")

    monkeypatch.setattr(Job, "is_done", lambda job: job.read()["state"] == "done")
    out = told(1, "run", *arguments).out
    assert_names(line_with(first, out), "done")
    assert f"{first}: training" not in out
    assert f"[3/4] {NAME}/One__nnUNetPlans__2d/fold_0/seed_1: training" in out


def test_a_dry_run_says_what_it_times(arguments, capsys, monkeypatch, tmp_path, told):
    """Of an observer nothing."""
    from swin_umamba_nnunet.benchmark import estimates

    said = []

    def timed(prepared, job, iterations):
        said.append(capsys.readouterr().out)
        return estimates.Estimate(60.0, None, "timed")

    monkeypatch.setattr(estimates, "_timed", timed)
    (tmp_path / "bench.toml").write_text(f"observers = {{second = '{tmp_path}'}}")
    for case in ("a", "b"):
        (tmp_path / f"{case}.png").write_text("by the second observer")
    settings = ("--config", str(tmp_path / "bench.toml"), *arguments)
    out = told(0, "run", *settings, "--dry-run", "--time-iterations", "7").out
    for text, number, row in zip(said, (1, 2), ("One", "Two"), strict=True):
        assert_names(line_with(f"[{number}/3]", text), "7 iterations", row)
    assert_names(line_with("second", out), "(human)", "waiting", "human")
    assert "unknown" not in line_with("second", out)
    assert "without --dry-run" in out


def test_a_failure_is_shown_with_the_end_of_its_log(arguments, outcomes, tmp_path, told):
    outcomes["One", 1] = "failed"
    outcomes["Two", 0] = OSError("No space left on device")
    out = told(1, "run", *arguments).out
    assert "2 done" in out
    assert_names(line_with("exit code 1", out), "One__nnUNetPlans__2d/fold_0/seed_1", "seed_1/logs/train.log")
    assert "    a hole\n    in the net" in out
    assert_names(line_with("OSError: No space left on device", out), "Two__nnUNetPlans__2d/fold_0/seed_0")
    told(1, "status", str(tmp_path / "bench"))


def test_changed_cells_are_reported(arguments, outcomes, tmp_path, told):
    told(0, "run", *arguments)
    file = tmp_path / "preprocessed" / NAME / "splits_final.json"
    dump(file, SPLITS[::-1])
    outcomes.update({(trainer, seed): "changed" for trainer in ("One", "Two") for seed in (0, 1)})
    out = told(1, "run", *arguments).out
    assert_names(line_with("--rerun-changed", out), "4 runs")
    assert "splits_sha256: " in out


def test_flags_override_the_file(arguments, outcomes, tmp_path, told):
    config = tmp_path / "bench.toml"
    config.write_text('output = "elsewhere"\ndatasets = [1]\ntrainers = ["Three"]\nmirroring = false\n')
    told(0, "run", "--config", str(config), *arguments)
    written = load(tmp_path / "bench" / "benchmark.json")["config"]
    assert (written["mirroring"], [row["name"] for row in written["trainers"]]) == (False, ["One", "Two"])


def test_mistakes_end_in_a_list(arguments, tmp_path, told):
    err = told(2, "run", *arguments, "--folds", "3", "--device", "cuda").err
    assert err.startswith("swin-umamba benchmark: 2 ")
    assert_names(line_with("  - ", err, 0), NAME, "fold 3", "0 to 1")
    assert_names(line_with("  - ", err, 1), '`device = "cuda"`', "--launcher slurm")
    assert not (tmp_path / "bench").exists()
    assert_names(told(2, "run").err, "`output`", "`datasets`", "`trainers`")
    command = f"swin-umamba benchmark run --output {tmp_path}"
    assert_names(told(2, "status", tmp_path).err, "benchmark.json", tmp_path, command)
    assert_names(told(2, "run", *arguments, "--gpus", "a").err.splitlines()[-1], "--gpus", "'a'", "commas")
    assert_names(told(2, "run", *arguments, "--gpus", "0,1").err, "--gpus 0,1", "cpu")
    assert_names(told(2, "report", tmp_path, "--resamples", 0).err, "--resamples 0", "1 or more")
    assert_names(told(2, "run", *arguments, "--time-iterations", "3").err, "--time-iterations 3", "--dry-run")
    assert_names(told(2, "status", tmp_path, "--watch", "-1").err, "--watch -1", "seconds")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_run_with_a_word_on_how_to_go_on(arguments, outcomes, monkeypatch, number, code, told):
    monkeypatch.setattr(runner, "run_job", lambda job, gpus, stop, *options: str(stop.wait(20)))  # runs until ended
    monkeypatch.setattr(benchmark.Progress, "tick", lambda self: signal.raise_signal(number))
    before = signal.getsignal(signal.SIGTERM)
    assert_names(told(code, "run", *arguments).err, "interrupted", "same command")
    assert signal.getsignal(signal.SIGTERM) is before


def test_watching_begins_before_a_benchmark_does_and_ends_when_all_is_done(
    arguments, outcomes, tmp_path, monkeypatch, told
):
    """Its inputs are checked first, which takes a while and writes nothing."""
    outcomes["Two", 1] = "waiting"
    looks = []

    def proceed(seconds):
        looks.append(seconds)
        if len(looks) == 1:
            main(["benchmark", "run", *arguments])
        else:
            (record,) = Path(tmp_path, "bench").glob("cells/*/Two*/fold_0/seed_1/cell.json")
            record.write_text('{"state": "done"}')

    monkeypatch.setattr(benchmark.time, "sleep", proceed)
    out = told(0, "status", str(tmp_path / "bench"), "--watch", "3").out
    assert looks == [3.0, 3.0]
    assert_names(out.splitlines()[0], tmp_path / "bench", "benchmark.json")
    assert "4 runs: 4 done" in out
