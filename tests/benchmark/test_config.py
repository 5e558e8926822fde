"""Configuration: everything wrong is said at once."""

import math

import pytest

from swin_umamba_nnunet.benchmark import BenchmarkError, ConfigError, build_config, read_file
from tests.messages import assert_names

GOOD = {"output": "bench", "datasets": [901], "trainers": ["nnUNetTrainer"]}


def problems(**settings):
    with pytest.raises(ConfigError) as caught:
        build_config({**GOOD, **settings})
    return caught.value.problems


def test_a_file_and_its_defaults(tmp_path):
    file = tmp_path / "bench.toml"
    file.write_text(
        """
output = "b"
datasets = [901, "Dataset902_X"]
folds = [0, "1", "all"]
seeds = [0, 7]
baseline = "ResEnc"
[[trainers]]
name = "nnUNetTrainer"
[[trainers]]
name = "nnUNetTrainer"
plans = "nnUNetResEncUNetLPlans"
label = "ResEnc"
slurm = {mem = "48GB"}
[slurm]
additional_parameters = {reservation = "r"}
"""
    )
    config = build_config(read_file(file))
    assert config.datasets == (901, "Dataset902_X")
    assert config.folds == (0, 1, "all")
    assert (config.seeds, config.mirroring, config.checkpoint) == ((0, 7), True, "checkpoint_final.pth")
    assert [row.label for row in config.trainers] == ["nnUNetTrainer", "ResEnc"]
    assert config.trainers[1].slurm == {"mem": "48GB"}
    assert config.output.is_absolute()


def test_rows_from_flags():
    config = build_config({**GOOD, "trainers": ["A", "A:P", "A:P:3d_fullres", "B::3d"], "configuration": "2d_x"})
    keys = "A__nnUNetPlans__2d_x A__P__2d_x A__P__3d_fullres B__nnUNetPlans__3d"
    assert [row.key for row in config.trainers] == keys.split()
    assert [row.label for row in config.trainers] == ["A", "A (P)", "A (P, 3d_fullres)", "B (3d)"]


def test_everything_at_once():
    found = problems(
        trainers=["A", "A", {"nam": "B"}, {"name": "C", "num_gpus": 0, "plan": "P"}],
        seeds=[0, 0, -1],
        folds=["x"],
        datasets=[],
        devise="cpu",
        device="gpu",
        mirroring="yes",
        checkpoint_minutes=-1,
        baseline="Z",
    )
    for expected in (
        ("A__nnUNetPlans__2d", "twice"),
        ("row 3 of `trainers`", "name"),
        ("row 4", "`num_gpus` is 0"),
        ("row 4", "`plan`", "did you mean plans?"),
        ("`seeds`", " 0 twice"),
        ("`seeds`", "-1", "0 and 2^32"),
        ("`folds`", "'x'", '"all"'),
        ("`datasets`", "empty"),
        ("`devise`", "did you mean device?"),
        ("`device` is 'gpu'", "cuda"),
        ("`mirroring` is 'yes'", "true"),
        ("`checkpoint_minutes` is -1", "0 or more"),
        ("`baseline` 'Z'", "A, A, C"),
    ):
        assert sum(all(part in problem for part in expected) for problem in found) == 1, (expected, found)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"datasets": 901}, ("`datasets` is 901", "list")),
        ({"datasets": [1.5]}, ("`datasets` holds 1.5", "id", "name")),
        ({"seeds": [True]}, ("`seeds` holds True",)),
        ({"folds": []}, ("`folds` is []", "list")),
        ({"folds": [0, "0"]}, ("`folds`", "0 twice")),
        ({"trainers": [{"name": "A", "label": "x"}, {"name": "B", "label": "x"}]}, ("two rows", "'x'", "`label`")),
        ({"output": 3}, ("`output` is 3", "folder")),
        ({"slurm": {"time": {}}}, ("`slurm`", "numbers and strings", "time = 720 (minutes)")),
        ({"observers": "FOLDER"}, ("`observers` is 'FOLDER'", '{second = "FOLDER"}')),
        ({"observers": {"second": {}}}, ("`observers` is ", '{second = {1 = "FOLDER"}}')),
        ({"observers": {"a/b": "FOLDER"}}, ("`observers` is ", "a/b")),
        ({"checkpoint_minutes": math.inf}, ("`checkpoint_minutes`", "0 or more")),  # JSON has no infinity
    ],
)
def test_each_mistake(settings, expected):
    (found,) = problems(**settings)
    assert_names(found, *expected)


@pytest.mark.parametrize("name", ["../Dataset901_X/nnUNetPlans", "a\\b", "..", "", "C:a", "-o", "a\n", " a"])
def test_names_that_become_folders_are_no_paths(name):
    """Trained with such plans, a benchmark could not be reported: its runs lay in folders that nobody looks into."""
    for settings, where in (
        ({"trainers": [{"name": "A", "plans": name}]}, "plans"),
        ({"trainers": ["A", "B"], "configuration": name}, "configuration"),
        ({"trainers": ["A", {"name": "B", "configuration": name}]}, "configuration"),
        ({"datasets": [name]}, "datasets"),
        ({"folds": [name]}, "folds"),
        ({"trainers": [{"name": name}]}, "name"),
    ):
        (found,) = problems(**settings)
        assert_names(found, f"`{where}` " if name else where, repr(name))


def test_files_that_are_no_configuration(tmp_path):
    (tmp_path / "bad.toml").write_text("output = bench")
    for name, why in (("none", "cannot be read"), ("bad", "not valid TOML")):
        with pytest.raises(BenchmarkError, match=why):
            read_file(tmp_path / f"{name}.toml")
