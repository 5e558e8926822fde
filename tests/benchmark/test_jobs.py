"""Checks against this machine, each caught before anything runs, and the jobs that come out."""

import json
import shutil

import pytest

from swin_umamba_nnunet.benchmark import ConfigError, run_job
from tests.benchmark.conftest import NAME
from tests.jsons import edit, load
from tests.messages import assert_names


@pytest.fixture
def problems(plan, folders):
    """A function (**settings and options) -> what is wrong with such a benchmark."""

    def find(**given):
        with pytest.raises(ConfigError) as caught:
            plan(**given)
        assert not folders.output.exists()
        return "\n".join(caught.value.problems)

    return find


def test_jobs_of_all_runs(plan, folders):
    prepared = plan(folds=[0, 1], seeds=[0, 1])
    first, second, third, *_ = prepared.jobs
    assert [job.name.removeprefix(f"{NAME}/") for job in (first, second, third)] == [
        "One__nnUNetPlans__2d/fold_0/seed_0",
        "Two__nnUNetPlans__2d/fold_0/seed_0",
        "One__nnUNetPlans__2d/fold_1/seed_0",
    ]
    assert len({job.folder for job in prepared.jobs}) == 8
    assert ({*first.cases}, {*third.cases}) == ({"a", "b"}, {"c", "d"})
    assert [path.name for path in first.cases["a"].images] == ["a_0000.png", "a_0001.png"]
    assert first.inputs["versions"]["torch"]
    assert (first.inputs["weights_sha256"], first.inputs["device"]) == (None, "cpu")
    for name in ("plans_sha256", "splits_sha256", "dataset_fingerprint_sha256"):
        assert len(first.inputs[name]) == 64
    prepared.write()
    written = load(folders.output / "benchmark.json")
    assert written["cells"] == [job.name for job in prepared.jobs]
    assert [row["weights"] for row in written["rows"]] == [None, None]
    assert {"config", "created", "versions", "hardware", "findings"} <= set(written)


def test_hashes_are_of_the_content(plan, folders):
    before = plan().jobs[0].inputs
    plans = folders.preprocessed / "nnUNetPlans.json"
    plans.write_text(json.dumps(load(plans), indent=8))
    assert plan().jobs[0].inputs == before
    plans.write_text(plans.read_text().replace("2d_large", "2d_huge"))
    after = plan().jobs[0].inputs
    assert {name for name in before if before[name] != after[name]} == {"plans_sha256"}


def test_missing_folders_and_datasets(problems, folders, monkeypatch):
    found = problems(datasets=[904, "Dataset9_No", 903, NAME])
    assert_names(found, "Dataset904_*", "'Dataset9_No'", "dataset twice")
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(folders.output / "no"))
    assert_names(problems(), "nnUNet_raw", "nnUNet_preprocessed", folders.output / "no")


def test_not_preprocessed(problems, folders):
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    assert_names(problems(), NAME, "planned", "nnUNetv2_preprocess -d 903 -plans_name nnUNetPlans -c 2d")
    shutil.rmtree(folders.preprocessed)
    found = problems()
    assert_names(found, NAME, "nnUNetv2_plan_and_preprocess -d 903")
    assert "planned" not in found


def test_plans_and_configurations(plan, problems, folders):
    cascade = {"3d_cascade": {"inherits_from": "2d", "previous_stage": "3d_lowres"}}
    edit(folders.preprocessed / "nnUNetPlans.json", lambda plans: plans["configurations"].update(cascade))
    rows = ("nnUNetResEncUNetLPlans", "otherPlans", ":3d_lowres", ":3d_fullres", ":3d_cascade")
    found = problems(trainers=[f"A:{row}" for row in rows])
    assert_names(found, NAME, " otherPlans", ": nnUNetPlans", " 3d_lowres", "2d, 2d_large, 3d_fullres", "cascade")
    assert_names(found, "for nnUNetPlans 3d_fullres", "plan_and_preprocess -d 903 -c 2d -pl nnUNetPlannerResEncL\n")
    plan(trainers=["A:nnUNetPlans:2d_large"])  # inherits its data


def test_folds(problems, folders):
    found = problems(folds=[0, 2, "all"])
    assert_names(found, "fold 2 ", "0 to 1", 'fold "all"', "test set")
    (folders.raw / "labelsTr" / "a.png").unlink()
    assert_names(problems(), "fold 0 ", " a (1 such)")
    (folders.preprocessed / "splits_final.json").unlink()
    assert_names(problems(folds=[5]), "fold 5 ", " 5 folds")


def test_the_test_set(plan, folders):
    for folder, name in (("imagesTs", "t_0000.png"), ("imagesTs", "unlabelled_0000.png"), ("labelsTs", "t.png")):
        (folders.raw / folder).mkdir(exist_ok=True)
        (folders.raw / folder / name).touch()
    for settings in ({"test": True}, {"folds": ["all"]}):
        (job, _) = plan(**settings).jobs
        assert (set(job.cases), job.inputs["scored_on"]) == ({"t"}, "test set")


@pytest.fixture
def second(folders):
    """The folder of an observer who has segmented three of the four cases."""
    folder = folders.raw.parent / "second"
    folder.mkdir()
    for case in "abc":
        (folder / f"{case}.png").write_text(f"{case} as the second observer sees it")
    return folder


def test_an_observer_is_a_row_of_which_only_the_scores_are_made(plan, second, fake_steps):
    one, _, observer = plan(observers={"second": str(second)}).jobs
    assert (observer.name, observer.row.label) == (f"{NAME}/second/fold_0/seed_0", "second (human)")
    assert observer.cases == one.cases
    assert run_job(observer) == "done"
    (command,) = fake_steps.commands
    assert command[:2] == ["swin-umamba", "evaluate"]
    assert (observer.predictions / "a.png").read_text().startswith("a as the second")
    assert command[command.index("--dataset-json") + 1] == str(observer.predictions / "dataset.json")
    assert observer.is_done()
    assert plan(observers={"second": {"903": str(second)}}).jobs[2].changes() == []
    (second / "b.png").write_text("corrected")
    (changed,) = plan(observers={"second": {NAME: str(second)}}).jobs[2].changes()
    assert "segmentations_sha256" in changed


def test_what_is_wrong_with_observers(problems, second, folders):
    for given, named in (
        (str(second / "absent"), [second / "absent", "not a folder"]),
        ({"904": str(second)}, ["second", "dataset 904", NAME]),
        (str(second), [second, "second", " d.png", "1 of the 2 cases"]),
        (str(folders.raw / "labelsTr"), ["a by second", "reference itself", folders.raw / "labelsTr" / "a.png"]),
    ):
        assert_names(problems(observers={"second": given}, folds=[0, 1]), "`observers`", *named)


def test_cases_listed_in_dataset_json(plan, folders):
    entry = {"images": ["elsewhere/x.png", "/absolute/y.png"], "label": "elsewhere/z.png"}
    edit(folders.preprocessed / "dataset.json", lambda content: content.update(dataset=dict.fromkeys("abcd", entry)))
    case = plan().jobs[0].cases["a"]
    assert [str(path) for path in case.images] == [str(folders.raw / "elsewhere/x.png"), "/absolute/y.png"]


def test_mistakes_of_file_machine_and_trainers_are_said_together(problems, probe):
    probe.trainers = {"A": {"problems": ["trainer A: none is called so"]}}
    probe.pairs = {"B__nnUNetPlans__2d": {"problems": ["B: 3D only"]}}
    probe.problems = ["the evaluation needs surface-distance"]
    found = problems(trainers=["A", "A", "B"], folds=[9], device="gpu")
    assert_names(found, "A__nnUNetPlans__2d is there twice", "fold 9 ", "`device` is 'gpu'")
    assert_names(found, "none is called so", "3D only", "surface-distance")
    assert probe.request["fetch"] is False  # nothing is downloaded for a benchmark that will not run
    assert "`datasets`" in problems(datasets=[])


def test_a_dry_run_fetches_nothing(plan, probe, folders):
    (folders.preprocessed / "splits_final.json").unlink()  # nnU-Net would make it in the first training
    prepared = plan(dry=True)
    assert probe.request["fetch"] is False
    assert prepared.jobs[0].cases == {}


def test_devices(plan, problems, probe):
    assert_names(problems(device="cuda"), '`device = "cuda"`', "no GPU", '"cpu"', "slurm")
    assert_names(problems(device="mps"), '"mps"', "no Apple GPU")
    assert_names(problems(gpus=(0,)), "--gpus 0", "cpu")
    several = {"name": "One", "num_gpus": 3}
    assert_names(problems(trainers=[several]), "One", "3 GPUs", " 1 on cpu")
    usual = probe.hardware
    probe.hardware = {**usual, "gpus": ["A", "B"]}
    assert plan(device="auto", gpus=(1, 0)).device == "cuda"
    assert_names(problems(device="auto", trainers=[several]), "One", "3 GPUs", " 2")
    assert_names(problems(device="cuda", gpus=(2, 2)), "sees 2 here, 0 to 1", "names a GPU twice")
    probe.hardware = usual
    assert plan(device="auto").device == "cpu"
    for asked, resources, device in (("cuda", {}, "cuda"), ("auto", {}, "cpu"), ("auto", {"gpus_per_task": 1}, "cuda")):
        assert plan(device=asked, slurm=resources, launcher="slurm").device == device  # this machine's do not count
