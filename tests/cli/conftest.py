"""What the verbs' tests share: a verb that is run and listened to, and a dataset that nnU-Net has planned."""

import dataclasses

import pytest

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.cli import doctor, weights
from swin_umamba_nnunet.pretrained import registry
from swin_umamba_nnunet.settings import FOLDERS
from tests.jsons import dump


@pytest.fixture
def told(capsys):
    """A function (exit code, *words) -> what `swin-umamba` with these words said, .out and .err.

    What goes wrong is said in one line, the last, or with a list below it.
    """

    def told(code, *words):
        capsys.readouterr()
        try:
            ended = cli.main([*map(str, words)])
        except SystemExit as end:  # argparse
            ended = end.code
        assert ended == code
        said = capsys.readouterr()
        _, _, sentence = f"\n{said.err}".partition("\nswin-umamba")
        assert all(line.startswith("  - ") for line in sentence.splitlines()[1:])
        return said

    return told


@pytest.fixture
def published(monkeypatch, tmp_path, saved):
    """A function that writes a checkpoint as if its authors had published that very file; returns its path."""

    def publish(name="vmamba_tiny_v0", folder=tmp_path / "mirror", **values):
        record = registry.get_record(name)
        path = saved(name, record.file_name, folder)
        known = {"size_bytes": path.stat().st_size, "sha256": None, "urls": (record.url,), **values}
        record = dataclasses.replace(record, **known)
        records = tuple(record if one.name == name else one for one in registry.RECORDS)
        for module in (registry, weights, doctor):
            monkeypatch.setattr(module, "RECORDS", records)
        return path

    return publish


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Its folder: 2 channels, 3 classes, 200 images, patches of 160x128 in batches of 5; a 3D configuration too."""
    from swin_umamba_nnunet.cost.tasks import task_of_shape  # here: many tests of verbs need no nnU-Net

    for name in FOLDERS:
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
