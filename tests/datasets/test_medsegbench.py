"""`convert medsegbench`: files of arrays with their splits, by file and by name."""

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from swin_umamba_nnunet import cli
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.datasets import ConversionError, MedSegBench, medsegbench
from tests.datasets.trees import blob, photo, save, write_medsegbench
from tests.messages import assert_names, raises


def test_the_published_split_is_kept(tmp_path, convert):
    source = write_medsegbench(tmp_path / "s", "kvasir_256")
    converted = convert(MedSegBench(), source / "kvasir_256.npz")
    assert converted.names("labelsTr") == [f"train_0000{i}.png" for i in range(3)] + ["val_00000.png", "val_00001.png"]
    assert converted.names("imagesTs") == ["test_00000_0000.png", "test_00001_0000.png"]
    assert [fold["val"] for fold in converted.splits] == [["val_00000", "val_00001"]]
    assert_array_equal(converted.read("imagesTr/val_00001_0000.png"), photo(21))
    assert_array_equal(converted.read("labelsTs/test_00000.png"), blob(1))
    assert converted.labels == ["background", "foreground"]
    assert converted.channels == ["R", "G", "B"]
    assert (converted.json["licence"], converted.json["reference"]) == (
        "research and education",
        "https://datasets.simula.no/kvasir-seg/",
    )
    assert converted.record["cases"]["val_00001"]["images"] == [str(source / "kvasir_256.npz/val_images/1")]
    assert_names(converted.report, "licence: research and education", "3 + 2 + 2", "700 + 100 + 200")


def test_grey_images_of_several_classes(tmp_path, convert):
    grey = {f"{part}_images": np.stack([photo(7)[..., :1]] * count) for part, count in (("train", 3), ("val", 2))}
    labels = np.stack([np.maximum(blob(1), blob(2)[::-1])] * 3)
    write_medsegbench(tmp_path / "s", "fhpsaop_128", **grey, train_label=labels, test_images=grey["val_images"][..., 0])
    converted = convert(MedSegBench(), tmp_path / "s")
    assert converted.labels == ["background", "pubic symphysis", "fetal head"]
    assert converted.channels == ["grey"]
    assert_array_equal(converted.read("imagesTr/train_00002_0000.png"), photo(7)[..., 0])
    assert_array_equal(converted.read("labelsTr/train_00002.png"), labels[2])


def test_categories(tmp_path, convert):
    """Of wbc, each has images of its own; idrib's share them, and there is no mask of everything."""
    own = {f"{part}_{kind}_C2": np.stack([what] * 2) for part in ("train", "val", "test") for kind, what in KINDS}
    write_medsegbench(tmp_path / "s", "wbc_128", **own)
    converted = convert(MedSegBench(category="C2"), tmp_path / "s")
    assert len(converted.names("labelsTr")) == 4
    assert_array_equal(converted.read("imagesTr/train_00000_0000.png"), photo(5))
    assert "Monocyte" in converted.json["description"]
    masks = {f"{part}_label_C3": np.stack([blob()] * n) for part, n in (("train", 3), ("val", 2), ("test", 2))}
    none = dict.fromkeys(("train_label", "val_label", "test_label"))
    write_medsegbench(tmp_path / "i", "idrib_512", **masks, **none)
    with raises(ConversionError, tmp_path / "i", "train_label", "--category", "C3 (Hard Exudates)"):
        MedSegBench().conversion(tmp_path / "i")
    with raises(ConversionError, "train_label_C7", "--category", "C3 (Hard Exudates)"):
        MedSegBench(category="C7").conversion(tmp_path / "i")
    converted = convert(MedSegBench(category="C3"), tmp_path / "i")
    assert_array_equal(converted.read("imagesTr/train_00001_0000.png"), photo(1))
    assert_array_equal(converted.read("labelsTr/train_00001.png"), blob(1))
    assert "every value above 0 became foreground" in converted.report


KINDS = (("images", photo(5)), ("label", blob(2)))


def test_files_of_another_name(tmp_path, convert):
    """A user's own in this form: labels as they are found, and nothing is claimed of a licence."""
    converted = convert(MedSegBench(), write_medsegbench(tmp_path / "s", "mine"))
    assert converted.labels == ["background", "foreground"]
    assert "licence" not in converted.json
    assert_names(converted.report, "mine.npz", "licence and source are not known")


ARRAY = np.stack([blob(1)] * 3)


@pytest.mark.parametrize(
    ("arrays", "facts"),
    [
        ({"val_label": None}, ("val_label", "train_images")),
        ({"train_label": ARRAY[:, 1:]}, ("train_label", "(3, 11, 17)", "(3, 12, 17, 3)")),
        ({"train_images": np.stack([photo(0)] * 3)[..., :2]}, ("train_images", "(3, 12, 17, 2)")),
        ({"train_label": ARRAY[:0]}, ("train_label", "(0, 12, 17)")),
        ({"train_label": np.array([{"a": 1}] * 3)}, ("train_label", "object")),
        ({"train_label": np.asfortranarray(ARRAY)}, ("train_label",)),
    ],
)
def test_foreign_arrays_are_one_sentence(tmp_path, arrays, facts):
    write_medsegbench(tmp_path, "kvasir_128", **arrays)
    with raises(ConversionError, tmp_path / "kvasir_128.npz", *facts) as refused:
        MedSegBench().conversion(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut off", "a byte", "no archive"])
def test_damaged_files_are_one_sentence(tmp_path, inspected, damage):
    """Damage inside an array is the whole file's, so that --skip-bad cannot leave only its last image out."""
    file = write_medsegbench(tmp_path) / "s.npz"
    with np.load(file) as arrays:
        np.savez(file, **arrays)
    content = bytearray(file.read_bytes())
    with ZipFile(file) as archive:
        content[archive.getinfo("val_images.npy").header_offset + 400] ^= 1
    np.save(tmp_path / "s.npy", ARRAY)
    contents = {
        "empty": b"",
        "garbage": b"garbage",
        "cut off": content[:-100],
        "a byte": content,
        "no archive": (tmp_path / "s.npy").read_bytes(),
    }
    file.write_bytes(contents[damage])
    with raises(ConversionError, file, "download it again") as refused:
        inspected(MedSegBench(), file, skip_bad=True)
    assert "\n" not in str(refused.value)


def test_a_folder_holds_one(tmp_path):
    (tmp_path / "none").mkdir()
    with raises(ConversionError, tmp_path / "none", "give the file"):
        MedSegBench().conversion(tmp_path / "none")
    for name in ("a", "b"):
        write_medsegbench(tmp_path, name)
    with raises(ConversionError, "a.npz, b.npz"):
        MedSegBench().conversion(tmp_path)
    with raises(ConversionError, "x.png", "folder is expected"):
        MedSegBench().conversion(save(tmp_path / "x.png", blob()))


def test_images_are_read_one_at_a_time(tmp_path):
    """Of an array that may be larger than the memory; twice, and by threads that do not keep to the order."""
    array = np.random.default_rng(0).integers(0, 256, (300, 64, 64), np.uint8)
    np.savez_compressed(tmp_path / "x.npz", x=array)
    rows = medsegbench._Rows(tmp_path / "x.npz", "x")
    tracemalloc.start()
    for _ in range(2):
        for index in range(len(rows)):
            assert_array_equal(rows[index], array[index])
    assert tracemalloc.get_traced_memory()[1] < array.nbytes / 4
    tracemalloc.stop()
    order = [index ^ 5 for index in range(296)]
    with ThreadPoolExecutor(8) as pool:
        for index, row in zip(order, pool.map(rows.__getitem__, order)):
            assert_array_equal(row, array[index])


def test_by_name(tmp_path, monkeypatch, convert):
    """As if the package medsegbench were installed, with calls that would download."""
    calls = []

    def download_url(url, root, filename, md5):
        calls.append((url, filename, md5))
        if "isic" in url:
            raise RuntimeError("File not found or corrupted.")
        write_medsegbench(tmp_path / "root", filename.removesuffix(".npz"))

    known = {f"{what}_{size}": f"{what} of {size} " for what in ("url", "MD5") for size in (128, 256, 512)}
    content = {"kvasir": known, "isic2016": {key: f"isic {value}" for key, value in known.items()}}
    info = SimpleNamespace(DEFAULT_ROOT=str(tmp_path / "root"), INFO=content)
    monkeypatch.setitem(sys.modules, "medsegbench.info", info)
    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", SimpleNamespace(download_url=download_url))
    monkeypatch.chdir(tmp_path)
    converted = convert(MedSegBench(size=128), tmp_path.__class__("kvasir"))
    assert calls == [("url of 128 ", "kvasir_128.npz", "MD5 of 128")]
    assert converted.record["source"] == str(tmp_path / "root/kvasir_128.npz")
    with raises(ConversionError, "isic url of 256", tmp_path / "root", "corrupted"):
        MedSegBench().conversion(tmp_path.__class__("isic2016"))


def test_names_without_the_package_and_names_of_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "medsegbench", None)
    with raises(ImportError, "kvasir", install_line("medsegbench")):
        MedSegBench().conversion(tmp_path.__class__("kvasir"))
    with raises(ConversionError, "kvazir", "did you mean kvasir?", "--list"):
        MedSegBench().conversion(tmp_path.__class__("kvazir"))


def test_the_list(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["convert", "medsegbench", "--list"])
    assert ended.value.code == 0
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["name", "train", "val", "test", "channels", "classes", "categories", "licence"]
    assert len(rows) == 35
    assert max(map(len, rows)) <= 120
    assert all(row["source"].startswith("http") and row["licence"] for row in medsegbench.published().values())
