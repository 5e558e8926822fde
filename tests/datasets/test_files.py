"""Finding, matching and naming files."""

import pytest

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._model import Findings

ENDINGS = (".png", ".nii", ".nii.gz")


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_hidden_files_and_other_endings_do_not_count(tmp_path_factory):
    tmp_path, elsewhere = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("elsewhere")
    _touch(
        tmp_path,
        "a.png",
        "B.PNG",
        ".c.png",
        "._a.png",
        "__MACOSX/a.png",
        ".hidden/d.png",
        "Thumbs.db",
        "x/e f.png",
        "notes.txt",
    )
    (tmp_path / "folder.png").mkdir()
    _touch(elsewhere, "P1/f.png")
    for link, place in ((".x", elsewhere), ("x/linked", elsewhere), ("circle", tmp_path), ("lost.png", "nowhere")):
        (tmp_path / link).symlink_to(place)
    (elsewhere / "circle").symlink_to(tmp_path.parent)
    found = [path.relative_to(tmp_path).as_posix() for path in _files.list_files(tmp_path, ENDINGS)]
    assert found == ["B.PNG", "a.png", "lost.png", "x/e f.png", "x/linked/P1/f.png"]


@pytest.mark.parametrize(
    ("tree", "parts"),
    [
        (("Images/a.png", "Labels/a.png"), {"train": ("Images", "Labels")}),
        (
            ("train/images/a.png", "train/masks/a.png", "valid/imgs/b.png"),
            {"train": ("train/images", "train/masks"), "val": ("valid/imgs", None)},
        ),
        (
            ("images/train/a.png", "masks/train/a.png", "images/test/b.png"),
            {"train": ("images/train", "masks/train"), "test": ("images/test", None)},
        ),
        (  # DRIVE: "mask" holds fields of view, and newer copies have nobody's segmentations of the test set
            (
                "training/images/a.tif",
                "training/mask/a.gif",
                "training/1st_manual/a.gif",
                "test/images/b.tif",
                "test/mask/b.gif",
            ),
            {"train": ("training/images", "training/1st_manual"), "test": ("test/images", None)},
        ),
        (("photos/a.png",), {}),
    ],
)
def test_usual_folders(tmp_path, tree, parts):
    _touch(tmp_path, *tree)
    expected = {part: tuple(each and tmp_path / each for each in pair) for part, pair in parts.items()}
    assert {part: (each.images, each.masks) for part, each in _files.find_parts(tmp_path).items()} == expected


@pytest.mark.parametrize(
    ("images", "masks", "matched"),
    [
        (["a", "b"], ["b", "a"], {"a": "a", "b": "b"}),
        (["a", "b"], ["a_mask", "b-seg"], {"a": "a_mask", "b": "b-seg"}),
        (["a", "a_mask"], ["a_mask"], {"a_mask": "a_mask"}),
        (["x/a", "y/b"], ["a", "b_label"], {"x/a": "a", "y/b": "b_label"}),
        (["x/a", "y/a"], ["a"], {}),
        (["a"], ["a_mask", "a_seg"], {}),
        (["x/a", "y/a"], ["x/a", "y/a"], {"x/a": "x/a", "y/a": "y/a"}),
        (["A"], ["a"], {}),
    ],
)
def test_masks_find_their_images(images, masks, matched):
    found, spare = _files.match_masks(dict.fromkeys(images, None), {mask: mask for mask in masks})
    assert found == matched
    assert sorted(spare) == sorted(set(masks) - set(matched.values()))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("x/a b.v2", "x_a_b_v2"),
        ("Münze ü", "Münze_ü"),
        ("cafe\u0301", "café"),
        ("..", "case"),
    ],
)
def test_case_names(key, name):
    assert _files.case_name(key) == name


def test_names_that_would_collide():
    for keys in ["a b", "a_b", "c"], ["A1", "a1"]:
        _files.name_cases([("train", key) for key in keys], findings := Findings())
        assert [finding.severity for finding in findings].count("error") == 1
    names = _files.name_cases([("train", "1"), ("test", "1"), ("test", "2")], findings := Findings())
    assert names == {("train", "1"): "train_1", ("test", "1"): "test_1", ("test", "2"): "2"}
    assert {finding.severity for finding in findings} == {"note"}


def test_one_case_twice_is_named(tmp_path):
    _touch(tmp_path, "a.png", "a.nii", "u\u0308.png")
    chosen = _files.select(tmp_path, ".", ENDINGS, "--images")
    assert {*_files.keys_of(chosen, None, "image", findings := Findings())} == {"a", "ü"}  # whatever system it is from
    assert "a.nii and a.png" in findings[0].detail
