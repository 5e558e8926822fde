"""Configuration: everything wrong is said at once."""

import pytest

from swin_umamba_nnunet.benchmark import ConfigError, MatrixError, build_config, read_file

GOOD = {"output": "bench", "datasets": [901], "trainers": ["nnUNetTrainer"]}


def problems(**settings) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build_config({**GOOD, **settings})
    return caught.value.problems


def test_a_file_and_its_defaults(tmp_path):
    file = tmp_path / "bench.toml"
    file.write_text(
        'output = "b"\ndatasets = [901, "Dataset902_X"]\nfolds = [0, "1", "all"]\nseeds = [0, 7]\n'
        'baseline = "ResEnc"\n[[trainers]]\nname = "nnUNetTrainer"\n[[trainers]]\nname = "nnUNetTrainer"\n'
        'plans = "nnUNetResEncUNetLPlans"\nlabel = "ResEnc"\nslurm = {mem = "48GB"}\n[slurm]\ntime = 60\n'
    )
    config = build_config(read_file(file))
    assert config.datasets == (901, "Dataset902_X")
    assert config.folds == (0, 1, "all")
    assert (config.seeds, config.mirroring, config.checkpoint) == ((0, 7), True, "checkpoint_final.pth")
    assert [row.label for row in config.trainers] == ["nnUNetTrainer", "ResEnc"]
    assert config.trainers[1].slurm == {"mem": "48GB"}
    assert config.output.is_absolute()


def test_rows_from_flags():
    config = build_config({**GOOD, "trainers": ["A", "A:P", "A:P:3d_fullres"], "configuration": "2d_x"})
    assert [row.key for row in config.trainers] == ["A__nnUNetPlans__2d_x", "A__P__2d_x", "A__P__3d_fullres"]
    assert [row.label for row in config.trainers] == ["A", "A (P)", "A (P, 3d_fullres)"]


def test_everything_at_once():
    found = problems(
        trainers=["A", "A", {"nam": "B"}, {"name": "C", "num_gpus": 0, "plan": "P"}], seeds=[0, 0, -1], folds=["x"],
        datasets=[], devise="cpu", device="gpu", mirroring="yes", checkpoint_minutes=-1, baseline="Z",
    )  # fmt: skip
    for expected in (
        "the row A__nnUNetPlans__2d is there twice", "row 3 of `trainers`", "`num_gpus` is 0", "did you mean `plans`?",
        "`seeds` names 0 twice", "between 0 and 2^32", "`folds` holds 'x'", "`datasets` is missing or empty",
        "did you mean `device`?", "`device` is 'gpu'", "`mirroring` is 'yes'", "`checkpoint_minutes` is -1",
        "`baseline` 'Z' is none of the rows",
    ):  # fmt: skip
        assert sum(expected in problem for problem in found) == 1, (expected, found)
    assert len(found) == 13, found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"datasets": 901}, "a list was expected"),
        ({"datasets": [1.5]}, "int or str was expected"),
        ({"seeds": [True]}, "`seeds` holds True"),
        ({"folds": []}, "`folds` is an empty list"),
        ({"folds": [0, "0"]}, "`folds` names 0 twice"),
        ({"trainers": "A"}, "`trainers` is 'A'"),
        ({"trainers": [{"name": "A", "plans": 3}]}, "`plans` is 3"),
        ({"trainers": [{"name": "A", "label": "x"}, {"name": "B", "label": "x"}]}, "two rows have the label 'x'"),
        ({"output": 3}, "`output` is 3"),
        ({"slurm": 3}, "`slurm` is 3, but a table was expected"),
        ({"checkpoint": "best"}, "choose one of checkpoint_final.pth"),
    ],
)
def test_each_mistake(settings, expected):
    (found,) = problems(**settings)
    assert expected in found


NAMES_THAT_ARE_PATHS = ("../Dataset901_X/nnUNetPlans", "a/b", "a\\b", "..", ".", "", "/etc", "C:a", "-o", "a\n", " a")


@pytest.mark.parametrize("name", NAMES_THAT_ARE_PATHS)
def test_names_that_become_folders_are_no_paths(name):
    """Trained with such plans, a benchmark could not be reported: its cells lay in folders that nobody looks into."""
    for settings, where in (
        ({"trainers": [{"name": "A", "plans": name}]}, "plans"),
        ({"trainers": ["A"], "configuration": name}, "configuration"),
        ({"trainers": ["A", {"name": "B", "configuration": name}]}, "configuration"),
        ({"datasets": [name]}, "datasets"),
    ):
        (found,) = problems(**settings)
        assert f"`{where}` is {name!r}" in found
        assert "a single name was expected" in found
    if name:
        assert f"`name` is {name!r}" in problems(trainers=[{"name": name}])[0]
    (fold,) = problems(folds=[name])
    assert repr(name) in fold


def test_a_path_in_the_setting_of_the_whole_is_said_once():
    (found,) = problems(trainers=["A", "B", "C"], configuration="../2d")
    assert "`configuration` is '../2d'" in found


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(MatrixError, match="cannot be read"):
        read_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("output = bench")
    with pytest.raises(MatrixError, match="not valid TOML"):
        read_file(tmp_path / "bad.toml")
