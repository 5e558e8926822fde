"""What the verbs' tests share: a verb that is run and listened to, and a dataset that nnU-Net has planned."""

import pytest

from swin_umamba_nnunet import cli
from tests.jsons import dump


@pytest.fixture
def told(capsys):
    """A function (exit code, *words) -> what `swin-umamba` with these words said, .out and .err."""

    def told(code, *words):
        capsys.readouterr()
        try:
            ended = cli.main([*map(str, words)])
        except SystemExit as end:  # argparse
            ended = end.code
        assert ended == code
        return capsys.readouterr()

    return told


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Its folder: 2 channels, 3 classes, 200 images, patches of 160x128 in batches of 5; a 3D configuration too."""
    from swin_umamba_nnunet.cost.tasks import task_of_shape  # here: many tests of verbs need no nnU-Net

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset907_Planned"
    folder.mkdir(parents=True)
    plans = task_of_shape((2, 160, 128), 3).plans
    plans["configurations"]["2d"] |= {"batch_size": 5, "data_identifier": "nnUNetPlans_2d"}
    plans["configurations"]["3d_fullres"] = {"inherits_from": "2d"}
    plans["original_median_shape_after_transp"] = [1, 160, 128]
    dump(folder / "nnUNetPlans.json", plans)
    labels = {"background": 0, "x": 1, "y": 2}
    description = {"channel_names": {"0": "a", "1": "b"}, "labels": labels, "file_ending": ".png", "numTraining": 200}
    dump(folder / "dataset.json", description)
    return folder
