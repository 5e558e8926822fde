"""One cell: steps in order, what is complete is kept, what failed is reported, what changed is not touched."""

import dataclasses
import threading

import pytest

from swin_umamba_nnunet.benchmark.runner import changes, is_done, run_cell


def test_a_cell_from_beginning_to_end(make_task, fake_steps):
    task = make_task(checkpoint_minutes=3.0)
    assert run_cell(task, gpus=(1, 2)) == "done"
    assert fake_steps.names == ["train", "predict", "evaluate"]
    train, predict, evaluate = fake_steps.commands
    assert train[train.index("--") + 1 :] == [
        "nnUNetv2_train", "Dataset903_Matrix", "2d", "0", "-tr", "One", "-p", "nnUNetPlans", "-device", "cpu",
        "-num_gpus", "1",
    ]  # fmt: skip
    assert train[train.index("--checkpoint-minutes") + 1] == "3.0"
    assert "--validation" not in train
    assert "--disable_tta" not in predict
    assert predict[predict.index("-chk") + 1] == "checkpoint_final.pth"
    assert fake_steps.environments[0]["CUDA_VISIBLE_DEVICES"] == "1,2"
    assert fake_steps.environments[0]["nnUNet_results"] == str(task.cell.results)
    assert {path.name: path.read_text() for path in task.cell.images.iterdir()}["b_0001.png"] == "b_second"
    assert (task.cell.references / "a.png").read_text() == "a_label"
    record = task.cell.read()
    assert record["state"] == "done"
    assert (record["training"]["seconds"], record["training"]["seconds_per_epoch"]) == (18.0, 6.0)
    assert record["prediction"] == {"cases": 2, "seconds": 3.0, "seconds_per_case": 1.5}
    assert record["commands"] == [train, predict, evaluate]
    assert record["curves"]["epoch_end_timestamps"] == [4.0, 16.0, 38.0]
    assert record["inputs"] == task.inputs


def test_a_finished_cell_is_not_run_again(make_task, fake_steps):
    task = make_task()
    run_cell(task)
    assert is_done(task)
    assert run_cell(task) == "done"
    assert len(fake_steps.commands) == 3


def test_only_what_is_missing_is_done_again(make_task, fake_steps):
    task = make_task()
    run_cell(task)
    (task.cell.evaluation / "metrics.csv").unlink()
    assert not is_done(task)
    assert run_cell(task) == "done"
    (task.cell.predictions / "a.png").unlink()
    assert run_cell(task) == "done"
    assert fake_steps.names[3:] == ["evaluate", "predict", "evaluate"]


def test_a_deleted_checkpoint_does_not_train_again(make_task, fake_steps):
    task = make_task()
    run_cell(task)
    (task.cell.model / "checkpoint_final.pth").unlink()
    assert run_cell(task) == "done"
    (task.cell.evaluation / "summary.json").unlink()
    assert run_cell(task) == "done"
    assert fake_steps.names.count("train") == 1


def test_options_of_the_commands(make_task, fake_steps):
    task = make_task(validation=True)
    run_cell(dataclasses.replace(task, inputs={**task.inputs, "mirroring": False}))
    assert "--validation" in fake_steps.commands[0]
    assert "--disable_tta" in fake_steps.commands[1]


@pytest.mark.parametrize("step", ["train", "predict", "evaluate"])
def test_a_failing_step(make_task, fake_steps, step):
    task = make_task()
    fake_steps.fail = {step: 3}
    assert run_cell(task) == "failed"
    record = task.cell.read()
    assert record["state"] == "failed"
    assert record["error"]["step"] == step
    assert record["error"]["exit_code"] == 3
    assert record["error"]["log_tail"].endswith(f"the end of {step}")
    fake_steps.fail = {}
    assert run_cell(task) == "done"
    assert task.cell.read()["error"] is None
    assert task.cell.read()["attempts"] == 2
    resumed = [command for command in fake_steps.commands if "nnUNetv2_train" in command]
    assert [command[-1] == "--c" for command in resumed] == ([False, True] if step == "train" else [False])


def test_an_end_without_outputs_is_a_failure(make_task, fake_steps):
    task = make_task()
    fake_steps.fail = {"train": 0}
    assert run_cell(task) == "failed"
    assert "outputs are not all there" in task.cell.read()["error"]["reason"]


def test_an_interrupted_cell_waits_and_goes_on(make_task, fake_steps):
    task = make_task()
    fake_steps.interrupt = "train"
    assert run_cell(task) == "interrupted"
    record = task.cell.read()
    assert (record["state"], record["interrupted"], record["error"]) == ("waiting", True, None)
    fake_steps.interrupt = ""
    assert run_cell(task) == "done"
    assert fake_steps.commands[1][-1] == "--c"


def test_an_exception_from_outside_leaves_it_resumable(make_task, fake_steps):
    task = make_task()

    def leave(step, stop):
        raise SystemExit(-1)  # as submitit does when SLURM's time is up

    fake_steps.hook = leave
    with pytest.raises(SystemExit):
        run_cell(task)
    assert task.cell.read()["state"] == "waiting"
    fake_steps.hook = None
    assert run_cell(task) == "done"


def test_changed_inputs_are_neither_kept_silently_nor_rerun(make_task, fake_steps):
    task = make_task()
    run_cell(task)
    other = {**task.inputs, "plans_sha256": "2" * 64, "versions": {"torch": "2.5"}}
    changed = dataclasses.replace(task, inputs=other)
    assert changes(task) == []
    assert changes(changed) == ["plans_sha256: 111111111111... -> 222222222222...", "versions of torch: 2.4 -> 2.5"]
    before = task.cell.read()
    assert run_cell(changed) == "changed"
    assert task.cell.read() == before
    assert run_cell(changed, rerun=True) == "done"
    assert fake_steps.names == ["train", "predict", "evaluate"] * 2
    assert task.cell.read()["inputs"] == other
    assert task.cell.read()["attempts"] == 1


def test_a_cell_that_made_nothing_starts_again_with_changed_inputs(make_task, fake_steps, monkeypatch):
    task = make_task()
    fake_steps.fail = {"train": 1}
    run_cell(task)
    (task.cell.model / "checkpoint_best.pth").unlink()  # it failed before its first epoch had ended
    fake_steps.fail = {}
    fixed = dataclasses.replace(task, inputs={**task.inputs, "trainer_sha256": "3" * 64})
    assert changes(fixed) == []
    assert run_cell(fixed) == "done"
    assert "--c" not in fake_steps.commands[1]
    assert task.cell.read()["inputs"] == fixed.inputs


def test_two_runners_share_a_folder(make_task, fake_steps):
    task = make_task()
    outcomes = []

    def other_runner(step, stop):
        if step == "train":
            thread = threading.Thread(target=lambda: outcomes.append(run_cell(task)))
            thread.start()
            thread.join()

    fake_steps.hook = other_runner
    assert run_cell(task) == "done"
    assert outcomes == ["busy"]
    assert fake_steps.names == ["train", "predict", "evaluate"]


def test_spacing_files_of_tiff_images_come_along(make_task, fake_steps):
    task = make_task()
    for case in task.cases.values():
        (case.reference.parent / "a.json").write_text('{"spacing": [1, 2]}')
    run_cell(task)
    assert (task.cell.images / "a.json").is_file()
    assert (task.cell.references / "a.json").is_file()
