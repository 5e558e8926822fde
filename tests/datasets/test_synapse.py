"""`convert synapse`: slices become volumes, and what is not known is said."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from swin_umamba_nnunet.datasets import ConversionError, Synapse, synapse
from tests.datasets.trees import synapse_volume, write_synapse
from tests.messages import assert_names, raises

h5py = pytest.importorskip("h5py", reason="needs the synapse extra")


def test_volumes_are_the_slices_in_order(tmp_path, convert):
    source = write_synapse(tmp_path / "s")
    for path in sorted(source.glob("train_npz/case0006*")):  # by number, that is, and not by name
        path.rename(path.with_name(path.name.replace("slice000", "slice0").replace("slice001", "slice01")))
    converted = convert(Synapse(), source)
    for text in (converted.report, converted.json["description"], str(converted.record["findings"])):
        assert "unknown: 1 x 1 x 1 mm is written" in text
    assert "spacing      " not in converted.report
    for part, case in (("Tr", 5), ("Tr", 6), ("Ts", 1)):
        image, label = synapse_volume(case)
        written = converted.read(f"images{part}/case{case:04d}_0000.nii.gz")
        assert written.dtype == np.float32
        assert_array_equal(written, image)
        written = converted.read(f"labels{part}/case{case:04d}.nii.gz")
        assert written.dtype == np.uint8
        assert_array_equal(written, label)
    assert converted.labels == ["background", *synapse.ORGANS]
    assert converted.labels[8] == "stomach"
    assert converted.channels == ["CT"]


def test_the_published_split_is_recognised(tmp_path, monkeypatch):
    write_synapse(tmp_path, train=(5, 6), test=(1, 2))
    monkeypatch.setattr(synapse, "PUBLISHED_TRAIN", {5, 6})
    monkeypatch.setattr(synapse, "PUBLISHED_TEST", {1, 2})
    assert "the published split" in Synapse().conversion(tmp_path).findings[-1].topic
    monkeypatch.setattr(synapse, "PUBLISHED_TEST", {1, 3})
    assert Synapse().conversion(tmp_path).findings[-1].detail == "without case0003; with case0002"


@pytest.mark.parametrize("number", [0, 1])
def test_missing_slices_are_named(tmp_path, refused, number):
    write_synapse(tmp_path)
    (tmp_path / f"train_npz/case0006_slice{number:03d}.npz").unlink()
    error = refused(Synapse(), tmp_path)
    assert (error.case, error.detail) == ("case0006", f"case0006_slice{number:03d}.npz")


def test_a_missing_last_slice_is_known_from_the_list(tmp_path, inspected, refused):
    write_synapse(tmp_path)
    (tmp_path / "train_npz/case0006_slice002.npz").unlink()
    assert not inspected(Synapse(), tmp_path).errors  # nothing says that there was one
    (tmp_path / "lists/lists_Synapse").mkdir(parents=True)
    listed = [f"case{case:04d}_slice{index:03d}" for case in (5, 6) for index in range(3)]
    (tmp_path / "lists/lists_Synapse/train.txt").write_text("\n".join(listed) + "\n")
    assert refused(Synapse(), tmp_path).detail == "case0006_slice002.npz"


def test_a_case_in_training_and_test_or_twice(tmp_path, refused):
    first = write_synapse(tmp_path / "twice") / "test_vol_h5/case0001.npy.h5"
    first.with_name("case0001.h5").write_bytes(first.read_bytes())
    assert_names(refused(Synapse(), tmp_path / "twice"), first.name, "case0001.h5")
    with raises(ConversionError, "case0005 is in train_npz and in test_vol_h5"):
        Synapse().conversion(write_synapse(tmp_path, train=(5, 6), test=(5,)))


def _replace_slice(folder, **arrays):
    image, label = synapse_volume(5)
    np.savez(folder / "train_npz/case0005_slice001.npz", **({"image": image[1], "label": label[1]} | arrays))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((3, 3))}, "differ in shape"),
        ({"image": np.full((10, 8), np.nan)}, "not finite"),
        ({"label": np.full((10, 8), 9)}, "not in the label map"),
        ({"image": np.zeros((10, 8), complex)}, "integers or floats are expected"),
        ({"label": np.zeros((10, 8), "U3")}, "integers or floats are expected"),
    ],
)
def test_broken_slices(tmp_path, refused, arrays, message):
    _replace_slice(write_synapse(tmp_path), **arrays)
    assert_names(refused(Synapse(), tmp_path), "case='case0005'", message)


def test_slices_with_other_keys_or_pickles_and_garbage(tmp_path, inspected):
    write_synapse(tmp_path, train=(5, 6, 7))
    _replace_slice(tmp_path, image=np.array([{"a": 1}], dtype=object))
    (tmp_path / "train_npz/case0006_slice001.npz").write_bytes(b"garbage")
    np.savez(tmp_path / "train_npz/case0007_slice001.npz", picture=np.zeros((10, 8)))
    (tmp_path / "test_vol_h5/case0001.npy.h5").write_bytes(b"garbage")
    errors = inspected(Synapse(), tmp_path).errors
    assert sorted(error.case for error in errors) == ["case0001", "case0005", "case0006", "case0007"]


def test_volumes_that_are_declared_larger_than_memory(tmp_path, refused):
    write_synapse(tmp_path)
    with h5py.File(tmp_path / "test_vol_h5/case0001.npy.h5", "w") as file:
        for name in ("image", "label"):
            file.create_dataset(name, (1 << 20, 1 << 15, 1 << 15), "f4", chunks=(1, 64, 64))  # 4 PB in a few kB
    assert_names(refused(Synapse(), tmp_path), "case0001.npy.h5", "GB of memory")


WAYS = ["external link", "soft link", "external storage", "virtual dataset", "group", "strings"]


@pytest.mark.parametrize("way", WAYS)
def test_volumes_whose_numbers_are_in_another_file_or_none(tmp_path, refused, way):
    write_synapse(tmp_path)
    private = tmp_path / "private"
    image, label = synapse_volume(1)
    with h5py.File(private, "w") as file:
        file["image"] = image
    with h5py.File(tmp_path / "test_vol_h5/case0001.npy.h5", "w") as file:
        file["label"] = label
        if way == "external link":
            file["image"] = h5py.ExternalLink(str(private), "/image")
        elif way == "soft link":
            file["there"] = h5py.ExternalLink(str(private), "/image")
            file["image"] = h5py.SoftLink("/there")
        elif way == "external storage":
            file.create_dataset("image", image.shape, image.dtype, external=[(str(private), 0, image.nbytes)])
        elif way == "virtual dataset":
            layout = h5py.VirtualLayout(image.shape, image.dtype)
            layout[:] = h5py.VirtualSource(str(private), "image", image.shape)
            file.create_virtual_dataset("image", layout)
        elif way == "group":
            file.create_group("image")
        else:
            file["image"] = np.zeros(image.shape, "S3")
    said = {"group": "no dataset", "strings": "integers or floats are expected"}
    facts = "case='case0001'", said.get(way, "only what lies in the file itself")
    assert_names(refused(Synapse(), tmp_path), *facts)


def test_too_little_memory_is_said_of_the_case(tmp_path, refused, monkeypatch):
    def too_much(*args, **settings):
        raise MemoryError

    write_synapse(tmp_path, train=(5,), test=())
    monkeypatch.setattr(np, "load", too_much)
    assert_names(refused(Synapse(), tmp_path), "-np 1", "case0005")


def test_without_test_volumes_h5py_is_not_needed(tmp_path, monkeypatch, inspected, reported):
    write_synapse(tmp_path, test=())
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert not inspected(Synapse(), tmp_path).errors
    assert "no test volumes" in reported(Synapse(), tmp_path)


def test_other_folders(tmp_path):
    with raises(ConversionError, "train_npz"):
        Synapse().conversion(tmp_path)
    (tmp_path / "train_npz").mkdir()
    with raises(ConversionError, "no files such as"):
        Synapse().conversion(tmp_path)
