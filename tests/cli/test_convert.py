"""`swin-umamba convert`: arguments, report, errors in one sentence, and the five layouts from end to end."""

import errno
import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import SimpleITK as sitk

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet._atomic import new_folder
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.datasets import _write
from swin_umamba_nnunet.settings import FOLDERS
from tests.commands import parse_printed
from tests.datasets.trees import (
    MAKERS,
    blob,
    integrity_here_and_now,
    photo,
    publish_703_small,
    save,
    snapshot,
    write_case,
)
from tests.jsons import dump, load
from tests.messages import assert_names

RAW, PREPROCESSED, RESULTS = FOLDERS
WITH_FOLDS = ("isic", "medsegbench")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """nnU-Net's folders are ours, its check runs in this process, and 703 was published with five images."""
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path / variable.removeprefix("nnUNet_")))
    monkeypatch.setattr(_write, "check_integrity", integrity_here_and_now)
    publish_703_small(monkeypatch)


@pytest.fixture
def layout():
    """Where the test has no other."""
    return "images"


@pytest.fixture
def source(layout, tmp_path):
    """What the test's layout takes."""
    if layout == "synapse":
        pytest.importorskip("h5py", reason="needs the synapse extra")
    return MAKERS[layout](tmp_path / "it's a folder; really" / "s")


@pytest.fixture
def converting(told):
    """A function (exit code, command, *places) -> what `swin-umamba convert` said; {0} and so on are the places."""
    return lambda code, command, *places: told(
        code, "convert", *(word.format(*places) for word in shlex.split(command))
    )


@pytest.fixture
def convert(converting):
    """A function (command, *places) -> what is printed, of a conversion that succeeds."""
    return lambda *command: converting(0, *command).out


@pytest.fixture
def refused(converting):
    """A function (command, *places) -> the sentence on stderr."""
    return lambda *command, code=2: converting(code, *command).err


def test_all_options_of_images(tmp_path, convert, refused):
    for index in range(12):
        save(tmp_path / f"s/photos/P{index // 2}-{index}.png", photo(index))
        save(tmp_path / f"s/marks/{index}_x.png", blob(7))
    command = (
        r"images {}/s -d 3 -n Dataset003_Marks --images photos --masks marks/*.png --image-key 'P\d+-(\d+)' "
        r"--mask-key '(\d+)_x' --group-pattern '(P\d+)-' --folds 2 --label mark=7 --test-fraction 0.34 --seed 5 "
        "--channels grey -np 1"
    )
    text = convert(command, tmp_path)
    dataset = tmp_path / "raw/Dataset003_Marks"
    content = load(dataset / "dataset.json")
    assert content["labels"] == {"background": 0, "mark": 1}
    assert content["channel_names"] == {"0": "grey"}
    assert content["numTraining"] == 8
    assert len(load(dataset / "splits_final.json")) == 2
    assert_names(text, "takes its folds too")
    assert_names(refused(command, tmp_path), dataset, "--overwrite", " -d ", " -n ")
    stale = tmp_path / "preprocessed/Dataset003_Marks/splits_final.json"
    stale.parent.mkdir(parents=True)
    dump(stale.with_name("dataset.json"), {})
    for folds, told in (b"[]", True), ((dataset / "splits_final.json").read_bytes(), False):
        stale.write_bytes(folds)
        assert (f"rm {stale}" in convert(f"{command} --overwrite", tmp_path)) == told
    dataset.parent.rename(tmp_path / "elsewhere")
    dataset.parent.touch()
    assert_names(refused(command, tmp_path), dataset, "cannot be written", dataset.parent)


def test_errors_are_listed_and_nothing_is_written(source, tmp_path, converting, convert):
    for number in (1, 3):
        (source / f"masks/img{number}.png").unlink()
    save(source / "masks/img2.png", blob(255, 3, 3))
    said = converting(2, "images {} -d 1", source)
    assert_names(said.out, "(2 times)", f"img1: {source}/images/img1.png", "img2: image 12 x 17, mask 3 x 3")
    assert_names(said.err, "swin-umamba convert: 3 errors", "--skip-bad")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "raw").exists()
    convert("images {} -d 1 --skip-bad", source)


@pytest.mark.parametrize(
    ("command", "facts"),
    [
        ("images {} -d 0", ("-d 0", "1 to 999")),
        ("images {} -d 1000", ("-d 1000", "1 to 999")),
        ("images {} -d 1 -n 'a b'", ('-n "a b"', "letters")),
        ("images {}/nowhere -d 1", ("{}/nowhere", "exist")),
        ("images {} -d 1 -np 0", ("--workers 0", "1 or more")),
        ("images {} -d 1 --label a", ('"a"', "NAME=VALUE")),
        ("images {} -d 1 --label a=1 --label a=2", ("label name a", "twice")),
        ("images {} -d 1 --label a=1 --label b=1", ("label value 1", "twice")),
        ("images {} -d 1 --label a=1 --label b=#ff0000", ("grey values", "colours")),
        ("images {} -d 1 --label background=0 --label ignore=255", ("at least one",)),
        ("images {} -d 1 --others-are-background", ("--others-are-background", "--label NAME=VALUE")),
        ("images {} -d 1 --threshold -1", ("--threshold -1",)),
        ("images {} -d 1 --threshold 9 --label a=1 --label b=2", ("--threshold", "two labels", "--label")),
        ("images {} -d 1 --images a --images b", ("--images", "2D", "one file")),
        ("images {} -d 1 --images nowhere", ("--images", "{}/nowhere")),
        ("images {} -d 1 --images */none.png", ("--images", "{}/*/none.png")),
        ("images {} -d 1 --images ../*.png", ("--images", "../*.png", "inside")),
        ("images {} -d 1 --images **x/[", ("**x/[",)),
        ("images {} -d 1 --images images --masks images", ("--images", "--masks", "same")),
        ("images {} -d 1 --masks masks", ("--masks", "--images")),
        ("images {} -d 1 --test-masks masks", ("--test-masks", "--test-images")),
        ("images {} -d 1 --image-key (", ("--image-key", '"("')),
        ("images {} -d 1 --mask-key (", ("--mask-key", '"("')),
        ("images {} -d 1 --group-pattern (", ("--group-pattern", '"("')),
        ("images {} -d 1 --group-pattern img", ("one group", "--group-pattern")),
        ("images {} -d 1 --test-fraction 1", ("--test-fraction 1",)),
        ("images {} -d 1 --test-fraction -1", ("--test-fraction -1",)),
        ("images {} -d 1 --test-fraction 0.01", ("--test-fraction 0.01",)),
        ("images {} -d 1 --folds 9", ("9 folds", "--folds", "2 to 4")),
        ("images {} -d 1 --folds 2 --seed -1", ("--seed -1", "from 0")),
        ("volumes {} -d 1 --images a --images T1=b", ("--images", "channel", "--images T1=")),
        ("volumes {} -d 1 --images T1=a --images T1=b", ("same name", "T1")),
        ("volumes {} -d 1 --images T1=images --modality CT", ("--modality", "--images")),
        (
            "volumes {} -d 1 --images T1=a --masks m --test-images T2=b",
            ("--test-images", "'T2'", "--images", "'T1'"),
        ),
        ("umamba {}", ("702", "703", "704", "{}", "--published")),
        ("isic {0} -d 1 -o {0}/images/img0.png", ("{}/images/img0.png", "folder")),
    ],
)
def test_settings_that_do_not_fit(source, tmp_path, refused, command, facts):
    before = snapshot(tmp_path)
    assert_names(refused(command, source), *(fact.format(source) for fact in facts))
    assert snapshot(tmp_path) == before


def test_without_nnunet_raw(source, tmp_path, convert, refused, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw" in refused("images {} -d 1", source)
    monkeypatch.delenv("nnUNet_preprocessed")
    places = source, tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)  # which root may everywhere
        assert_names(refused("images {0} -d 1 -o {1}", *places), places[1], "cannot be written", tmp_path)
    assert f"export nnUNet_raw={places[1]}" in convert("images {0} -d 1 -o {1}", *places)


@pytest.mark.parametrize("layout", ["images", "medsegbench"])
def test_a_dry_run_writes_nothing_and_needs_no_destination(layout, source, tmp_path, convert, refused, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    for file in source.glob("*.npz"):
        file.rename(source / "s (1).npz")  # as browsers name what is there already
    before = snapshot(tmp_path)
    text = convert("{1} {0} -d 1 --dry-run", source, layout)
    assert_names(text, "nnUNet_raw", "Dataset001_s", "training")
    # the source is looked at before the destination
    assert_names(refused("{1} {0}/nowhere -d 1000 -n 'No Name'", source, layout), source / "nowhere", "exist")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "code", "facts"),
    [
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (OSError(errno.ENOSPC, "No space left on device"), 2, ["raw", " full"]),
        (OSError(errno.EIO, "Input/output error", "/disk/img.png"), 1, ["/disk/img.png"]),
        (MemoryError(), 2, ["-np 1"]),
    ],
)
def test_a_machine_that_gives_up_is_one_sentence(source, tmp_path, convert, refused, monkeypatch, error, code, facts):
    with monkeypatch.context() as patch:
        patch.setattr(_write, "write_picture", mock.Mock(side_effect=error))
        assert_names(refused("images {} -d 1", source, code=code), *facts)
    assert list((tmp_path / "raw").iterdir()) == []
    convert("images {} -d 1", source)


@pytest.mark.parametrize("layout", ["volumes", "synapse"])
@pytest.mark.parametrize("left", [0, 200, -1])
def test_a_full_disk_that_itk_does_not_notice(source, tmp_path, refused, monkeypatch, layout, left):
    """It leaves half a file, which nnU-Net would read as zeros."""
    write = sitk.WriteImage

    def full(image, path, compressed):
        write(image, path, compressed)
        Path(path).write_bytes(Path(path).read_bytes()[:left])

    monkeypatch.setattr(sitk, "WriteImage", full)
    assert_names(refused("{1} {0} -d 1", source, layout), tmp_path / "raw", " full")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize("layout", ["volumes"])
def test_itk_that_cannot_write(source, refused, monkeypatch):
    failure = RuntimeError("Exception thrown\nITK ERROR: the sea is rough")
    monkeypatch.setattr(sitk, "WriteImage", mock.Mock(side_effect=failure))
    assert_names(refused("volumes {} -d 1", source, code=1), "the sea is rough", "imagesTr/pat")


@pytest.mark.parametrize("layout", ["volumes"])
def test_a_source_that_changes_meanwhile(source, tmp_path, refused, monkeypatch):
    folder = _write.new_folder

    def cut_first(*args):
        for path in sorted(source.glob("images/*")):
            path.write_bytes(path.read_bytes()[:-30])
        return folder(*args)

    monkeypatch.setattr(_write, "new_folder", cut_first)
    assert_names(refused("volumes {} -d 1", source), f"{source}/images/pat", "cut off")
    assert list((tmp_path / "raw").iterdir()) == []


def test_two_at_a_time_on_one_target(source, tmp_path, refused):
    with new_folder(tmp_path / "raw/Dataset001_s"):
        error = refused("images {} -d 1", source)
    assert_names(error, "another process", tmp_path / "raw/Dataset001_s")


@pytest.mark.parametrize("option", ["-n", "-o"])
def test_names_that_are_too_long(source, tmp_path, refused, option):
    assert_names(refused("images {0} -d 1 {1} {2}", source, option, "x" * 300), "xxx", "shorter")
    assert not (tmp_path / "raw").exists()


def test_case_names_that_are_too_long(tmp_path, converting, convert):
    for number in range(2):
        write_case(tmp_path / "s", f"{'a' * 120}/{'b' * 120}{number}", number)
    said = converting(2, "images {}/s -d 1", tmp_path)
    assert "--image-key" in said.out
    assert said.err.count("\n") == 1
    convert(r"images {}/s -d 1 --image-key 'b(\d)'", tmp_path)


@pytest.mark.parametrize("layout", MAKERS)
def test_what_is_printed_as_next_can_be_typed(layout, source, tmp_path, convert, monkeypatch):
    """Each line, with folders whose names a shell would take apart, by the program that it names."""
    for variable in FOLDERS:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(_write, "check_integrity", lambda *args: replace(integrity_here_and_now(*args), cuda=False))
    text = convert("{1} {0} -d 42 -o {0}/../out", source, layout)
    lines = [line.strip() for line in text.partition("Next:")[2].splitlines() if line.startswith("    ")]
    for line in lines:
        if line.startswith("export "):
            variable, _, value = shlex.split(line)[1].partition("=")
            monkeypatch.setenv(variable, value)
        else:
            parse_printed(re.sub(r"\s+#.*", "", line))
    assert os.environ[RESULTS]
    assert ("takes its folds too" in text) == (layout in WITH_FOLDS)
    assert ("--protocol cells" in text) == (layout == "umamba")
    dataset = f"Dataset042_{'s' if layout != 'umamba' else 'NeurIPSCell'}"
    assert (Path(os.environ[RAW]) / dataset / "dataset.json").is_file()
    (train,) = [parse_printed(line.partition("#")[0]) for line in lines if "nnUNetv2_train" in line]
    assert train.device == "cpu"
    assert train.fold == ("0" if layout in WITH_FOLDS else "all")  # nnU-Net makes no five folds of four cases
    assert train.tr.removesuffix("_1epoch") in {record.name for record in catalogue.TRAINERS}


@pytest.mark.parametrize("cuda", [True, None])
def test_the_processor_is_not_named_where_there_may_be_a_gpu(source, capsys, convert, monkeypatch, cuda):
    order = []

    def check(*args):
        order.append(capsys.readouterr().out)
        return replace(integrity_here_and_now(*args), cuda=cuda)

    monkeypatch.setattr(_write, "check_integrity", check)
    assert "-device cpu" not in convert("images {} -d 1", source)
    assert "checks" in order[0]  # nothing happens on the screen meanwhile, so it is announced


@pytest.mark.parametrize("layout", ["synapse"])
def test_without_h5py(source, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert install_line("synapse") in refused("synapse {} -d 1", source)


def test_an_older_preprocessing_is_mentioned(source, tmp_path, convert):
    save(tmp_path / "preprocessed/Dataset001_s/x.png", blob())
    (tmp_path / "preprocessed/Dataset001_s/dataset.json").write_text("{}")
    text = convert("images {} -d 1", source)
    assert "nnUNetv2_plan_and_preprocess -d 1 -c 2d --clean" in text
    assert_names(text.splitlines()[-1], tmp_path / "preprocessed", "Dataset001_s", "--clean")
