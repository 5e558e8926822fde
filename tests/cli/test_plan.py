"""`swin-umamba plan`: what is written and printed, what is refused, and that nnU-Net trains with it."""

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.cost.tasks import task_of_shape
from swin_umamba_nnunet.trainers import finding
from tests import synthetic_dataset as dataset
from tests.jsons import dump, load
from tests.messages import assert_names

TINY = {"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}


@pytest.fixture
def plan(folder, told):
    """A function (*arguments, memory="40G") -> what the verb printed.

    The tiny trainer and a memory are chosen where the arguments choose none, nor a patch.
    """

    def plan(*arguments, memory="40G"):
        chosen = () if {"--trainer", "--patch-size"} & {*arguments} else ("--trainer", "nnUNetTrainerTiny")
        if "--patch-size" not in arguments:
            chosen = ("--gpu-memory", memory, *chosen)
        return told(0, "plan", "-d", 907, *chosen, *arguments).out

    return plan


@pytest.fixture
def refused(folder, told):
    """A function (facts, *arguments): what is refused in a sentence that names the facts, and leaves all as it was."""

    def refused(facts, *arguments):
        before = files(folder)
        assert_names(told(2, "plan", "-d", 907, *arguments).err, *facts)
        assert files(folder) == before

    return refused


def configurations(folder, name):
    return load(folder / f"{name}.json")["configurations"]


@pytest.fixture
def folder(planned, monkeypatch):
    """The folder of a planned dataset, and a trainer of a tiny network."""
    tiny = type("nnUNetTrainerTiny", (trainers.nnUNetTrainerSwinUMambaDScratch,), {"network_settings": TINY})
    find = finding.find_trainer
    monkeypatch.setattr(finding, "find_trainer", lambda name: tiny if name == tiny.__name__ else find(name))
    return planned


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_plans_that_share_the_preprocessed_data(folder, plan):
    text = plan(memory="12G")
    assert_names(text, "patch 160 x 128, batch 5", "as planned", "12.00 GiB", "float16 autocast")
    assert "nnUNetv2_train 907 2d FOLD -tr nnUNetTrainerTiny -p nnUNetPlans_Tiny_12G" in text
    assert files(folder) == {"nnUNetPlans.json", "dataset.json", "nnUNetPlans_Tiny_12G.json"}
    source, written = (load(folder / f"nnUNetPlans{end}.json") for end in ("", "_Tiny_12G"))
    record = written.pop("swin_umamba_plan")
    assert record["made_from"] == "nnUNetPlans"
    assert record["gpu_bytes"] == 12 * 2**30
    assert record["peak_bytes"] < record["needed_bytes"] < record["gpu_bytes"]
    assert list(written["configurations"]) == ["2d"]
    assert written == {**source, "plans_name": "nnUNetPlans_Tiny_12G", "configurations": written["configurations"]}
    assert written["configurations"]["2d"] == source["configurations"]["2d"]


def test_a_smaller_batch_and_recomputation(folder, plan):
    text = plan("--gradient-checkpointing", "-o", "mine", memory="1060M")
    assert_names(text, "patch 160 x 128", "gradient checkpointing")
    written = load(folder / "mine.json")
    assert written["plans_name"] == "mine"
    configuration = written["configurations"]["2d"]
    assert configuration["gradient_checkpointing"] is True
    assert 2 <= configuration["batch_size"] < 5
    assert written["swin_umamba_plan"]["planned_batch_size"] == 5
    assert written["swin_umamba_plan"]["needed_bytes"] <= 1060 * 2**20


def test_an_inherited_configuration_stands_alone(folder, plan):
    plan("-c", "3d_fullres", "-o", "alone")
    found = configurations(folder, "alone")
    assert list(found) == ["3d_fullres"]
    assert "inherits_from" not in found["3d_fullres"]
    assert found["3d_fullres"]["patch_size"] == [160, 128]


@pytest.mark.parametrize(
    ("planner", "plans"),
    [("ExperimentPlanner", "nnUNetPlans"), ("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans")],
)
def test_a_patch_of_ones_own_has_stages_of_its_own(folder, plan, planner, plans):
    """The planned seven stages would leave a patch of 64 a single position, where nnU-Net's network cannot train."""
    file = folder / "nnUNetPlans.json"
    source = load(file)
    settings = task_of_shape((2, 256, 512), 3, plans).plans["configurations"]["2d"]
    assert len(settings["architecture"]["arch_kwargs"]["strides"]) == 7
    source["configurations"]["2d"] |= {
        key: settings[key] for key in ("architecture", "patch_size", "median_image_size_in_voxels")
    }
    source["experiment_planner_used"] = planner
    dump(file, source)
    text = plan("--patch-size", "64", "64", "--batch-size", "2")
    assert_names(text, "patch 256 x 512, batch 5", "patch 64 x 64, batch 2", "5 stages")
    assert "-tr TRAINER -p nnUNetPlans_64x64_batch2" in text
    written = load(folder / "nnUNetPlans_64x64_batch2.json")
    record = written.pop("swin_umamba_plan")
    assert record == {"made_from": "nnUNetPlans", "planned_patch_size": [256, 512], "planned_batch_size": 5}
    configuration, former = written["configurations"]["2d"], source["configurations"]["2d"]
    changed = {key for key in former if configuration[key] != former[key]}
    assert changed == {"patch_size", "batch_size", "architecture"}  # so the preprocessed data are those of the source
    assert configuration["architecture"]["network_class_name"] == settings["architecture"]["network_class_name"]

    manager = PlansManager(written)
    for trainer in nnUNetTrainer, finding.find_trainer("nnUNetTrainerTiny"):
        network = trainer.build_network_architecture(manager, manager.get_configuration("2d"), 2, 3, True)
        sum(output.square().mean() for output in network(torch.randn(2, 2, 64, 64))).backward()
        gradients = [each.grad for each in network.parameters() if each.grad is not None]
        assert gradients
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


TINY_12G = "--trainer nnUNetTrainerTiny --gpu-memory 12G"


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ("--patch-size 64", ("--patch-size 64", "'2d'", "2 sides")),
        ("--patch-size 64 64 64", ("--patch-size 64 x 64 x 64", "2 sides")),
        ("--patch-size 100 64", ("--patch-size 100 x 64", "112 x 64")),
        ("--patch-size 4 64", ("--patch-size 4 x 64", "8 a side")),
        ("--patch-size 0 64", ("--patch-size 0 x 64", "8 a side")),
        ("--patch-size 256 128", ("--patch-size 256 x 128", "160 x 128")),
        ("--patch-size 64 64 --batch-size 1", ("--batch-size 1", "2 is the least")),
        ("--patch-size 64 64 --batch-size 0", ("--batch-size 0",)),
        ("--patch-size 64 64 --grow", ("--grow", "--gpu-memory", "-p")),
        ("--patch-size 64 64 --gradient-checkpointing", ("--gradient-checkpointing", "--gpu-memory")),
        ("--patch-size 64 64 -o nnUNetPlans", ("nnUNetPlans.json", "-o")),
        ("", ("--gpu-memory", "--patch-size")),
        ("--gpu-memory 12G --patch-size 64 64", ("--gpu-memory", "--patch-size")),
        ("--gpu-memory 12G", ("--gpu-memory", "--trainer", "--batch-size")),
        ("--gpu-memory 12G --trainer nnUNetTrainer --batch-size 2", ("--gpu-memory", "--trainer", "--batch-size")),
        ("--gpu-memory twelve --trainer nnUNetTrainerTiny", ("--gpu-memory", "'twelve'", "12G")),
        ("--gpu-memory 0G --trainer nnUNetTrainerTiny", ("'0G'", "12G")),
        (
            "--gpu-memory 1G --trainer nnUNetTrainerTiny",
            ("nnUNetTrainerTiny", "1.00 GiB", "128 x 128", "--gradient-checkpointing"),
        ),
        (f"{TINY_12G} -o nnUNetPlans", ("nnUNetPlans.json", "-o")),
        (f"{TINY_12G} -o a/b", ("'a/b'", "folder", "nnUNetPlans_12G")),
        (f"{TINY_12G} -o a__b", ("'a__b'", "double underscore", "nnUNetPlans_12G")),
        (f"{TINY_12G} -o x.json", ("'x.json'", " .json", "nnUNetPlans_12G")),
        (f"{TINY_12G} -p Nobody", ("Nobody.json", "nnUNetv2_plan_and_preprocess -d 907 -c 2d")),
        (f"{TINY_12G} -c 3d_lowres", ("nnUNetPlans.json", "'3d_lowres'", "2d, 3d_fullres")),
        (
            "--gpu-memory 12G --trainer nnUNetTrainer --gradient-checkpointing",
            ("nnUNetTrainer ", "--gradient-checkpointing"),
        ),
    ],
)
def test_refused(refused, arguments, facts):
    refused(facts, *arguments.split())


def test_a_planner_that_is_gone(folder, refused):
    source = load(folder / "nnUNetPlans.json") | {"experiment_planner_used": "MyPlanner"}
    dump(folder / "nnUNetPlans.json", source)
    refused(("MyPlanner", "-p"), "--patch-size", 64, 64)


def test_a_full_disk_leaves_nothing(folder, refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    refused((folder / "nnUNetPlans_Tiny_12G.json", "No space left"), *TINY_12G.split())


@pytest.mark.parametrize("plans_name", ["nnUNetPlans", "nnUNetResEncUNetLPlans"])
def test_growing_without_augmentation_workers(folder, plan, monkeypatch, plans_name):
    """`nnUNet_n_proc_DA=0`, as for trainings that can be repeated, stops nnU-Net's own planner (2.8) and not this."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    assert task_of_shape((1, 64, 64), 2, plans_name).settings.patch_size == [64, 64]
    plan("--grow")
    assert configurations(folder, "nnUNetPlans_Tiny_40G")["2d"]["batch_size"] == round(0.05 * 200)


@pytest.mark.slow
def test_nnunet_trains_with_them(workspace):
    """On the data preprocessed for the dataset's own plans, with the batch of the new ones and recomputation."""
    source = f"""
from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaDScratch
class BriefPlanned(nnUNetTrainerSwinUMambaDScratch):
    network_settings = {TINY!r}
    num_epochs = num_iterations_per_epoch = num_val_iterations_per_epoch = 1
    def perform_actual_validation(self, save_probabilities=False):
        print('recomputes', self.network.encoder.layers[0].gradient_checkpointing, 'batch', self.batch_size)
"""
    (workspace.folder / "own" / "planned.py").write_text(source)
    verb = ("swin-umamba", "plan", "-d", "901", "--trainer", "BriefPlanned", "-o", "Fitted")
    workspace.ok(*verb, "--gpu-memory", "1.1G", "--gradient-checkpointing", "--grow")
    folder = workspace.folder / "nnUNet_preprocessed" / dataset.NAME
    batch = load(folder / "Fitted.json")["configurations"]["2d"]["batch_size"]
    output = workspace.ok("nnUNetv2_train", "901", "2d", "0", "-device", "cpu", "-tr", "BriefPlanned", "-p", "Fitted")
    assert f"recomputes True batch {batch}" in output
    results = workspace.folder / "nnUNet_results" / dataset.NAME / "BriefPlanned__Fitted__2d"
    assert (results / "fold_0" / "checkpoint_final.pth").is_file()
    assert not (folder / "Fitted_2d").exists()
