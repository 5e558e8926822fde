"""One run: steps in order, what is complete is kept, what failed is reported, what changed is not touched."""

import contextlib
import dataclasses
import os
import threading

import pytest

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark import run_job, runner
from swin_umamba_nnunet.benchmark.process import Interrupted
from swin_umamba_nnunet.benchmark.runner import environment, shown
from tests.benchmark.conftest import NAME, ends
from tests.messages import assert_names

ALL = ["train", "predict", "evaluate"]


@pytest.fixture
def job(plan):
    return plan().jobs[0]


def test_a_run_from_beginning_to_end(job, fake_steps, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-7")  # of which torch says 0, 1, 2
    for case in job.cases.values():  # nnU-Net keeps the spacing of TIFF images in such files
        for file in (case.images[0], case.reference):
            file.with_name("a.json").write_text('{"spacing": [1, 2]}')
    assert run_job(job, gpus=(1, 2)) == "done"
    assert fake_steps.names == ALL
    train, predict, evaluate = fake_steps.commands
    assert " ".join(train) == f"nnUNetv2_train {NAME} 2d 0 -tr One -p nnUNetPlans -device cpu -num_gpus 1"
    assert "--disable_tta" not in predict
    assert predict[predict.index("-chk") + 1] == "checkpoint_final.pth"
    variables = {"CUDA_VISIBLE_DEVICES": "5,GPU-7", "nnUNet_results": str(job.results)}
    assert fake_steps.environments[0].items() >= variables.items()
    links = {path.name: path.read_text() for folder in (job.images, job.references) for path in folder.iterdir()}
    assert (links["b_0001.png"], links["a.png"]) == ("b_0001", "truth of a")
    assert all((folder / "a.json").is_file() for folder in (job.images, job.references))
    record = job.read()
    assert record["state"] == "done"
    assert (record["training"]["seconds"], record["training"]["seconds_per_epoch"]) == (18.0, 6.0)
    assert record["prediction"] == {"cases": 2, "seconds": 3.0, "seconds_per_case": 1.5}
    assert [shown(command) for command in record["commands"]] == [train, predict, evaluate]
    assert "--validation" not in record["commands"][0]
    assert record["curves"]["epoch_end_timestamps"] == [4.0, 16.0, 38.0]
    assert record["inputs"] == job.inputs


def test_options_of_the_commands(plan, fake_steps):
    job = plan(validation=True, mirroring=False, checkpoint_minutes=3.0).jobs[0]
    run_job(job)
    options = job.read()["commands"][0]
    assert "--validation" in options
    assert options[options.index("--checkpoint-minutes") + 1] == "3.0"
    assert "--disable_tta" in fake_steps.commands[1]


def test_trainers_are_registered_for_the_commands_once(job, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/my/trainers")
    for _ in range(2):
        variables = environment(job, "cpu")
        assert variables["nnUNet_extTrainer"] == f"/my/trainers{os.pathsep}{_autoregister.FOLDER}"
        monkeypatch.setenv("nnUNet_extTrainer", variables["nnUNet_extTrainer"])


def test_only_what_is_missing_is_done_again(job, fake_steps):
    """A deleted checkpoint is not missing: it is made room with."""
    run_job(job)
    for missing, again in (
        (job.evaluation / "metrics.csv", ["evaluate"]),
        (job.predictions / "a.png", ["predict", "evaluate"]),
        (job.model / "checkpoint_final.pth", []),
        (job.evaluation / "summary.json", ["evaluate"]),
    ):
        missing.unlink()
        fake_steps.names.clear()
        assert job.is_done() is (not again)
        assert run_job(job) == "done"
        assert fake_steps.names == again


@pytest.mark.parametrize("code", [3, 0])
@pytest.mark.parametrize("step", ALL)
def test_a_failing_step(job, fake_steps, step, code):
    """An end without outputs is one, too."""
    fake_steps.at = {step: ends(code, "best" if step == "train" else "")}
    assert run_job(job) == "failed"
    record = job.read()
    assert (record["state"], record["error"]["step"]) == ("failed", step)
    assert_names(record["error"]["reason"], "exit code 3" if code else "outputs are not all there")
    assert record["error"]["log_tail"].endswith(f"the end of {step}")
    fake_steps.at = {}
    assert run_job(job) == "done"
    assert (job.read()["error"], job.read()["attempts"]) == (None, 2)
    resumed = [command for command in fake_steps.commands if "nnUNetv2_train" in command]
    assert [command[-1] == "--c" for command in resumed] == ([False, True] if step == "train" else [False])


@pytest.mark.parametrize("end", [Interrupted(), SystemExit(-1)])  # the latter by submitit, when SLURM's time is up
def test_an_interrupted_run_waits_and_goes_on(job, fake_steps, end):
    fake_steps.at = {"train": ends(end, "best")}
    with contextlib.nullcontext() if isinstance(end, Interrupted) else pytest.raises(SystemExit):
        assert run_job(job) == "interrupted"
    record = job.read()
    assert (record["state"], record["interrupted"], record["error"]) == ("waiting", True, None)
    fake_steps.at = {}
    assert run_job(job) == "done"
    assert fake_steps.commands[1][-1] == "--c"


def test_changed_inputs_are_neither_kept_silently_nor_rerun(job, fake_steps):
    run_job(job)
    inputs = {**job.inputs, "plans_sha256": "2" * 64, "versions": {**job.inputs["versions"], "torch": "2.5"}}
    changed = dataclasses.replace(job, inputs=inputs)
    assert job.changes() == []
    torch, plans = changed.changes()
    assert plans == f"plans_sha256: {job.inputs['plans_sha256'][:12]}... -> 222222222222..."
    assert torch == f"versions of torch: {job.inputs['versions']['torch']} -> 2.5"
    before = job.read()
    assert run_job(changed) == "changed"
    assert job.read() == before
    assert run_job(changed, rerun=True) == "done"
    assert fake_steps.names == ALL * 2
    assert (job.read()["inputs"], job.read()["attempts"]) == (inputs, 1)


def test_a_run_that_made_nothing_starts_again_with_changed_inputs(job, fake_steps):
    fake_steps.at = {"train": ends(1)}  # it fails before its first epoch has ended
    run_job(job)
    fake_steps.at = {}
    fixed = dataclasses.replace(job, inputs={**job.inputs, "trainer_sha256": "3" * 64})
    assert fixed.changes() == []
    assert run_job(fixed) == "done"
    assert "--c" not in fake_steps.commands[1]
    assert job.read()["inputs"] == fixed.inputs


def test_two_runners_share_a_folder(job, fake_steps, monkeypatch):
    outcomes = []

    def other_runner(log):
        thread = threading.Thread(target=lambda: outcomes.append(run_job(job)))
        thread.start()
        thread.join()

    monkeypatch.setattr(runner, "_SECONDS_FOR_LOCK", 0.1)
    fake_steps.at = {"train": other_runner}
    assert run_job(job) == "done"
    assert outcomes == ["busy"]
    assert fake_steps.names == ALL
