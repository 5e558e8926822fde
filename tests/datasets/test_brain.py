"""The brain dataset: what is written, that nothing is fetched, and that nothing half-written stays."""

import json
import re
import socket

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.datasets import BRAIN_DATASET_NAME, brain, write_brain_dataset
from tests.datasets.trees import integrity_here_and_now
from tests.messages import raises

nibabel = pytest.importorskip("nibabel", reason="needs the demo extra")
pytest.importorskip("nilearn", reason="needs the demo extra")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The dataset, written once, with the network cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(socket, "socket")
        return write_brain_dataset(tmp_path_factory.mktemp("nnUNet_raw"))


def _load(path):
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image


def test_no_slice_is_both_trained_on_and_held_out(dataset):
    """Read back from the files, by their place in MNI space."""
    heights = {}
    for part in ("Tr", "Ts"):
        heights[part] = set()
        for path in (dataset / f"images{part}").iterdir():
            array, image = _load(path)
            heights[part] |= {round(image.affine[2, 3]) + k for k in range(array.shape[2])}
    assert min(abs(a - b) for a in heights["Tr"] for b in heights["Ts"]) > 4


def test_files_shapes_labels_and_spacing(dataset):
    for slab in brain.SLABS:
        part = "Ts" if slab.held_out else "Tr"
        image, image_file = _load(dataset / f"images{part}" / f"{slab.case}_0000.nii.gz")
        labels, label_file = _load(dataset / f"labels{part}" / f"{slab.case}.nii.gz")
        assert image.shape == labels.shape == (197, 233, 6)
        assert image.dtype == np.float32
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1, 2}
        assert image_file.header.get_zooms() == label_file.header.get_zooms() == (1, 1, 1)
        assert_array_equal(image_file.affine, label_file.affine)
        # T1: white matter is brighter than grey matter, grey matter than what is neither
        means = [image[labels == label].mean() for label in (0, 1, 2)]
        assert means == sorted(means)
    assert sum(len(list((dataset / name).iterdir())) for name in ("imagesTr", "imagesTs")) == len(brain.SLABS)


def test_an_existing_dataset_is_left_alone(tmp_path):
    folder = tmp_path / BRAIN_DATASET_NAME
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with raises(FileExistsError, "already exists"):
        write_brain_dataset(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_without_nilearn_the_install_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nilearn", None)
    with pytest.raises(ImportError, match=re.escape(install_line("demo"))):
        write_brain_dataset(tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_nnunet_accepts_it(dataset):
    assert integrity_here_and_now(dataset, 1).passed
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "grey matter": 1, "white matter": 2}
    assert "not a benchmark" in content["description"]
