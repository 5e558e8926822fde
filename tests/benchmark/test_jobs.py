"""Checks against this machine, each caught before anything runs, and the jobs that come out."""

import json
import shutil
from pathlib import Path

import pytest

from swin_umamba_nnunet.benchmark import ConfigError, prepare
from tests.benchmark.conftest import NAME
from tests.messages import assert_names, naming


def problems(config, probe, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(config, probe=probe, **options)
    assert not Path(config["output"]).exists()
    return "\n".join(caught.value.problems)


def test_tasks_of_all_cells(make_config, probe, folders):
    config = make_config(folds=[0, 1], seeds=[0, 1])
    prepared = prepare(config, probe=probe)
    assert [job.name.removeprefix(f"{NAME}/") for job in prepared.jobs][:3] == [
        "One__nnUNetPlans__2d/fold_0/seed_0",
        "Two__nnUNetPlans__2d/fold_0/seed_0",
        "One__nnUNetPlans__2d/fold_1/seed_0",
    ]
    assert len({job.folder for job in prepared.jobs}) == 8
    first, third = prepared.jobs[0], prepared.jobs[2]
    assert set(first.cases) == {"a", "b"}
    assert set(third.cases) == {"c", "d"}
    assert [path.name for path in first.cases["a"].images] == ["a_0000.png", "a_0001.png"]
    assert first.inputs["versions"]["torch"]
    assert (first.inputs["weights_sha256"], first.inputs["device"]) == (None, "cpu")
    for name in ("plans_sha256", "splits_sha256", "dataset_fingerprint_sha256"):
        assert len(first.inputs[name]) == 64
    prepared.write()
    written = json.loads((folders.output / "benchmark.json").read_text())
    assert len(written["cells"]) == 8
    assert [row["pretrained"] for row in written["rows"]] == [False, False]
    assert {"config", "created", "versions", "hardware", "findings"} <= set(written)


def test_hashes_are_of_the_content(make_config, probe, folders):
    before = prepare(make_config(), probe=probe).jobs[0].inputs
    plans = folders.preprocessed / "nnUNetPlans.json"
    plans.write_text(json.dumps(json.loads(plans.read_text()), indent=8))
    assert prepare(make_config(), probe=probe).jobs[0].inputs == before
    plans.write_text(plans.read_text().replace("2d_large", "2d_huge"))
    after = prepare(make_config(), probe=probe).jobs[0].inputs
    assert {name for name in before if before[name] != after[name]} == {"plans_sha256"}


def test_missing_folders_and_datasets(make_config, probe, folders, monkeypatch):
    assert "Dataset904_*" in problems(make_config(datasets=[904]), probe)
    assert "'Dataset9_No'" in problems(make_config(datasets=["Dataset9_No"]), probe)
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(folders.output / "no"))
    found = problems(make_config(), probe)
    assert_names(found, "nnUNet_raw", "nnUNet_preprocessed", folders.output / "no")


def test_not_preprocessed(make_config, probe, folders):
    shutil.rmtree(folders.preprocessed / "nnUNetPlans_2d")
    remedy = "nnUNetv2_preprocess -d 903 -plans_name nnUNetPlans -c 2d"
    assert_names(problems(make_config(), probe), NAME, "planned", remedy)
    shutil.rmtree(folders.preprocessed)
    found = problems(make_config(), probe)
    assert_names(found, NAME, "nnUNetv2_plan_and_preprocess -d 903")
    assert "planned" not in found


def test_plans_and_configurations(make_config, probe):
    rows = ["A:otherPlans", "A:nnUNetPlans:3d_lowres", "A:nnUNetPlans:3d_fullres"]
    found = problems(make_config(trainers=rows), probe)
    assert_names(found, NAME, " otherPlans", ": nnUNetPlans", " 3d_lowres", "2d, 2d_large, 3d_fullres")
    assert "for nnUNetPlans 3d_fullres" in found
    prepare(make_config(trainers=["A:nnUNetPlans:2d_large"]), probe=probe)  # inherits its data


def test_folds(make_config, probe, folders):
    found = problems(make_config(folds=[0, 2, "all"]), probe)
    assert_names(found, "fold 2 ", "0 to 1", 'fold "all"', "test set")
    (folders.raw / "labelsTr" / "a.png").unlink()
    assert_names(problems(make_config(), probe), "fold 0 ", " a (1 such)")
    (folders.preprocessed / "splits_final.json").unlink()
    assert_names(problems(make_config(folds=[5]), probe), "fold 5 ", " 5 folds")


def test_the_test_set(make_config, probe, folders):
    for folder, name in (("imagesTs", "t_0000.png"), ("imagesTs", "unlabelled_0000.png"), ("labelsTs", "t.png")):
        (folders.raw / folder).mkdir(exist_ok=True)
        (folders.raw / folder / name).touch()
    for settings in ({"test": True}, {"folds": ["all"]}):
        (job, _) = prepare(make_config(**settings), probe=probe).jobs
        assert set(job.cases) == {"t"}
        assert job.inputs["scored_on"] == "test set"


def test_cases_listed_in_dataset_json(make_config, probe, folders):
    file = folders.preprocessed / "dataset.json"
    entry = {"images": ["elsewhere/x.png", "/absolute/y.png"], "label": "elsewhere/z.png"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "dataset": dict.fromkeys("abcd", entry)}))
    case = prepare(make_config(), probe=probe).jobs[0].cases["a"]
    assert [str(path) for path in case.images] == [str(folders.raw / "elsewhere/x.png"), "/absolute/y.png"]


def test_mistakes_of_the_file_and_of_the_machine_are_said_together(probe, folders):
    settings = {"output": str(folders.output), "datasets": [903], "trainers": ["A", "A"], "folds": [9], "device": "gpu"}
    with pytest.raises(ConfigError) as caught:
        prepare(settings, probe=probe)
    found = "\n".join(caught.value.problems)
    for expected in ("A__nnUNetPlans__2d is there twice", "fold 9 ", "`device` is 'gpu'"):
        assert expected in found
    assert probe.request["fetch"] is False
    with pytest.raises(ConfigError, match=naming("1 thing", "A__nnUNetPlans__2d")):
        prepare({**settings, "folds": [0], "device": "cpu"}, probe=probe)
    with pytest.raises(ConfigError, match="`datasets`"):
        prepare({"output": "x", "trainers": ["A"]}, probe=probe)
    assert len(prepare({**settings, "trainers": ["A"], "folds": [0], "device": "cpu"}, probe=probe).jobs) == 1


def test_a_cascade(make_config, probe, folders):
    file = folders.preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_cascade"] = {"inherits_from": "2d", "previous_stage": "3d_lowres"}
    file.write_text(json.dumps(plans))
    assert "cascade" in problems(make_config(configuration="3d_cascade"), probe)


def test_one_dataset_twice(make_config, probe):
    assert "dataset twice" in problems(make_config(datasets=[903, NAME]), probe)


def test_what_the_probe_finds_is_said_together_with_the_rest(make_config, probe):
    probe.trainers = {"One": {"problems": ["trainer One: none is called so"]}}
    probe.pairs = {"Two__nnUNetPlans__2d": {"problems": ["Two: 3D only"]}}
    probe.problems = ["the evaluation needs surface-distance"]
    found = problems(make_config(folds=[7]), probe)
    for expected in ("none is called so", "3D only", "surface-distance", "fold 7 "):
        assert expected in found
    assert probe.request["fetch"] is False  # nothing is downloaded for a benchmark that will not run


def test_a_dry_run_fetches_nothing(make_config, probe, folders):
    (folders.preprocessed / "splits_final.json").unlink()  # nnU-Net would make it in the first training
    prepared = prepare(make_config(), probe=probe, dry=True)
    assert probe.request["fetch"] is False
    assert prepared.jobs[0].cases == {}


def test_devices(make_config, probe):
    assert_names(problems(make_config(device="cuda"), probe), '`device = "cuda"`', "no GPU", '"cpu"', "slurm")
    assert_names(problems(make_config(device="mps"), probe), '"mps"', "no Apple GPU")
    assert_names(problems(make_config(), probe, gpus=(0,)), "--gpus 0", "cpu")
    assert prepare(make_config(device="auto"), probe=probe).device == "cpu"
    several = {"name": "One", "num_gpus": 3}
    assert_names(problems(make_config(trainers=[several]), probe), "One", "3 GPUs", " 1 on cpu")
    probe.hardware = {**probe.hardware, "gpus": ["A", "B"]}
    assert prepare(make_config(device="auto"), probe=probe, gpus=(1, 0)).device == "cuda"
    auto = make_config(device="auto", trainers=[several])
    assert_names(problems(auto, probe), "One", "3 GPUs", " 2")
    assert "sees 2 here, 0 to 1" in problems(make_config(device="cuda"), probe, gpus=(2,))
    assert "names a GPU twice" in problems(make_config(device="cuda"), probe, gpus=(1, 1))


def test_on_slurm_this_machine_needs_no_gpu(make_config, probe):
    assert prepare(make_config(device="cuda"), probe=probe, launcher="slurm").device == "cuda"
    assert prepare(make_config(device="auto"), probe=probe, launcher="slurm").device == "cpu"
    with_gpu = make_config(device="auto", slurm={"gpus_per_node": 1})
    assert prepare(with_gpu, probe=probe, launcher="slurm").device == "cuda"
