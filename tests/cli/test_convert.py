"""`swin-umamba convert`: arguments, report, errors in one sentence, and the five layouts from end to end."""

import argparse
import errno
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from swin_umamba_nnunet import catalogue, cli
from swin_umamba_nnunet._atomic import new_folder
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.datasets import conversion, umamba
from tests.datasets.trees import (
    blob,
    integrity_here_and_now,
    photo,
    save,
    snapshot,
    write_images,
    write_isic,
    write_synapse,
    write_umamba_703,
    write_volumes,
)
from tests.messages import assert_names

LAYOUTS = ("isic", "synapse", "umamba", "images", "volumes")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """nnU-Net's folders are ours, and its check runs in this process."""
    for variable in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
    monkeypatch.setattr(conversion, "check_integrity", integrity_here_and_now)


def _refused(capsys, *argv):
    assert cli.main(["convert", *map(str, argv)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("swin-umamba convert: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("layout", LAYOUTS)
def test_help_of_a_layout(layout, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["convert", layout, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: swin-umamba convert {layout}" in text
    assert "--dry-run" in text
    assert "SOURCE" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_help_names_every_layout(capsys):
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(layout in text for layout in LAYOUTS)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom swin_umamba_nnunet import cli\n"
        "try: cli.main(['convert', 'images', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(' '.join(n for n in ('torch', 'nnunetv2', 'SimpleITK', 'PIL', 'numpy', 'h5py') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("argv", [[], ["dicom", "x"], ["images"], ["images", "x"], ["images", "x", "-d", "one"]])
def test_incomplete_commands_show_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["convert", *argv])
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_dry_run_writes_nothing(tmp_path, capsys):
    source = write_images(tmp_path / "my polyps")
    before = snapshot(tmp_path)
    assert cli.main(["convert", "images", str(source), "-d", "7", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "4 training, 0 test" in text
    assert_names(text.splitlines()[-1], "Dry run", tmp_path / "raw/Dataset007_my_polyps")
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "raw").exists()


def _make(layout, folder):
    make = {"isic": write_isic, "synapse": write_synapse, "umamba": write_umamba_703, "images": write_images,
            "volumes": write_volumes}[layout]  # fmt: skip
    return make(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_from_end_to_end(layout, tmp_path, capsys, monkeypatch):
    pytest.importorskip("h5py", reason="needs the synapse extra")
    small = replace(umamba.PUBLISHED[703], training=(3,), test=2)
    monkeypatch.setattr(umamba, "PUBLISHED", {**umamba.PUBLISHED, 703: small})
    source = _make(layout, tmp_path / "source")
    number = ["-d", "42"] if layout != "umamba" else []
    assert cli.main(["convert", layout, str(source), *number]) == 0
    text = capsys.readouterr().out
    assert "integrity check: passed" in text
    (dataset,) = (tmp_path / "raw").iterdir()
    assert dataset.name == ("Dataset042_source" if layout != "umamba" else "Dataset703_NeurIPSCell")
    assert f"nnUNetv2_plan_and_preprocess -d {int(dataset.name[7:10])} -c 2d" in text
    assert ("cp " in text) == (layout == "isic")
    assert ("--protocol cells" in text) == (layout == "umamba")
    assert_names(_refused(capsys, layout, source, *number), dataset, "--overwrite", " -d ", " -n ")
    assert cli.main(["convert", layout, str(source), *number, "--overwrite"]) == 0


def test_all_options_of_images(tmp_path, capsys):
    for index in range(12):
        save(tmp_path / f"s/photos/P{index // 2}-{index}.png", photo(index))
        save(tmp_path / f"s/marks/{index}_x.png", blob(7))
    argv = ["images", tmp_path / "s", "-d", 3, "-n", "Dataset003_Marks", "--images", "photos", "--masks", "marks/*.png"]
    argv += ["--image-key", r"P\d+-(\d+)", "--mask-key", r"(\d+)_x", "--group-pattern", r"(P\d+)-", "--folds", 2]
    argv += [
        "--label",
        "mark=7",
        "--test-fraction",
        0.34,
        "--seed",
        5,
        "--channels",
        "grey",
        "--install-splits",
        "-np",
        1,
    ]
    assert cli.main(["convert", *map(str, argv)]) == 0
    text = capsys.readouterr().out
    dataset = tmp_path / "raw/Dataset003_Marks"
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "mark": 1}
    assert content["channel_names"] == {"0": "grey"}
    assert content["numTraining"] == 8
    installed = tmp_path / "preprocessed/Dataset003_Marks/splits_final.json"
    assert installed.read_bytes() == (dataset / "splits_final.json").read_bytes()
    assert len(json.loads(installed.read_text())) == 2
    assert str(installed) in text
    assert "cp " not in text
    assert_names(_refused(capsys, *argv), "--install-splits", installed, "--overwrite")


def test_all_options_of_volumes(tmp_path, capsys):
    source = write_volumes(tmp_path / "s")
    argv = ["volumes", source, "-d", "4", "--images", "T1=images/*", "--images", "T2=images/*", "--masks", "labels"]
    assert cli.main(["convert", *map(str, argv), "--label", "spot=1", "--trust-image-geometry"]) == 0
    content = json.loads((tmp_path / "raw/Dataset004_s/dataset.json").read_text())
    assert content["channel_names"] == {"0": "T1", "1": "T2"}


def test_errors_are_listed_and_nothing_is_written(tmp_path, capsys):
    source = write_images(tmp_path / "s")
    (source / "masks/img1.png").unlink()
    save(source / "masks/img2.png", blob(255, 3, 3))
    assert cli.main(["convert", "images", str(source), "-d", "1"]) == 2
    captured = capsys.readouterr()
    assert_names(captured.out, f"img1: {source}/images/img1.png", "img2: image 12 x 17, mask 3 x 3")
    assert captured.err.startswith("swin-umamba convert: 2 errors")
    assert "--skip-bad" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "raw").exists()
    assert cli.main(["convert", "images", str(source), "-d", "1", "--skip-bad"]) == 0


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        (["images", "{s}", "-d", "0"], ("-d 0", "1 to 999")),
        (["images", "{s}", "-d", "1000"], ("-d 1000", "1 to 999")),
        (["images", "{s}", "-d", "1", "-n", "a b"], ('-n "a b"', "letters")),
        (["images", "{s}/nowhere", "-d", "1"], ("{s}/nowhere", "exist")),
        (["images", "{s}", "-d", "1", "-np", "0"], ("--workers 0", "1 or more")),
        (["images", "{s}", "-d", "1", "--label", "a"], ('"a"', "NAME=VALUE")),
        (["images", "{s}", "-d", "1", "--others-are-background"], ("--others-are-background", "--label NAME=VALUE")),
        (["images", "{s}", "-d", "1", "--threshold", "-1"], ("--threshold -1",)),
        (
            ["images", "{s}", "-d", "1", "--threshold", "9", "--label", "a=1", "--label", "b=2"],
            ("--threshold", "two labels", "--label"),
        ),
        (["images", "{s}", "-d", "1", "--images", "a", "--images", "b"], ("--images", "2D", "one file")),
        (["volumes", "{s}", "-d", "1", "--images", "a", "--images", "T1=b"], ("--images", "channel", "--images T1=")),
        (
            ["volumes", "{s}", "-d", "1", "--images", "T1=a", "--masks", "m", "--test-images", "T2=b"],
            ("--test-images", "'T2'", "--images", "'T1'"),
        ),
        (["images", "{s}", "-d", "1", "--install-splits"], ("--install-splits", "--group-pattern", "--folds")),
        (["images", "{s}", "-d", "1", "--folds", "9"], ("9 folds", "--folds", "2 to 4")),
        (["umamba", "{s}"], ("702", "703", "704", "{s}", "--published")),
        (["isic", "{s}", "-d", "1", "-o", "{s}/images/img0.png"], ("{s}/images/img0.png", "folder")),
    ],
)
def test_settings_that_do_not_fit(tmp_path, capsys, argv, facts):
    source = write_images(tmp_path / "s")
    before = snapshot(tmp_path)
    assert cli.main(["convert", *(part.format(s=source) for part in argv)]) == 2
    error = capsys.readouterr().err
    assert_names(error, *(fact.format(s=source) for fact in facts))
    assert error.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_without_nnunet_raw(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    source = write_images(tmp_path / "s")
    assert "nnUNet_raw" in _refused(capsys, "images", source, "-d", "1")
    monkeypatch.delenv("nnUNet_preprocessed")
    argv = ["images", source, "-d", "1", "-o", tmp_path / "out"]
    assert "nnUNet_preprocessed" in _refused(capsys, *argv, "--install-splits")
    assert cli.main(["convert", *map(str, argv)]) == 0
    assert f"export nnUNet_raw={tmp_path / 'out'}" in capsys.readouterr().out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dry_run_needs_no_destination(tmp_path, capsys, monkeypatch, layout):
    pytest.importorskip("h5py", reason="needs the synapse extra")
    monkeypatch.delenv("nnUNet_raw")
    source = _make(layout, tmp_path / "source")
    argv = ["convert", layout, str(source), "-d", "1", "--dry-run"]
    assert cli.main([*argv, *(["--allow-incomplete"] if layout == "umamba" else [])]) == 0
    text = capsys.readouterr().out
    assert "nnUNet_raw" in text
    assert "Dataset001_" in text
    assert ("--install-splits" in text) == (layout == "isic")
    assert "1 to 999" in _refused(capsys, layout, source, "-d", "1000", "--dry-run")


@pytest.mark.parametrize("layout", ["images", "volumes", "isic", "synapse", "umamba"])
def test_the_source_is_looked_at_before_the_destination(tmp_path, capsys, monkeypatch, layout):
    monkeypatch.delenv("nnUNet_raw")
    error = _refused(capsys, layout, tmp_path / "nowhere", "-d", "1000", "-n", "No Name")
    assert_names(error, tmp_path / "nowhere", "exist")


def test_interrupted_leaves_nothing_and_can_be_repeated(tmp_path, capsys, monkeypatch):
    from swin_umamba_nnunet.datasets._picture_cases import PictureCases

    source = write_images(tmp_path / "s")
    with monkeypatch.context() as patch:

        def interrupt(*args):
            raise KeyboardInterrupt

        patch.setattr(PictureCases, "write", interrupt)
        assert cli.main(["convert", "images", str(source), "-d", "1"]) == 130
    assert list((tmp_path / "raw").iterdir()) == []
    assert cli.main(["convert", "images", str(source), "-d", "1"]) == 0


def test_a_full_disk_is_one_sentence(tmp_path, capsys, monkeypatch):
    import errno

    from swin_umamba_nnunet.datasets._picture_cases import PictureCases

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PictureCases, "write", full)
    assert_names(_refused(capsys, "images", write_images(tmp_path / "s"), "-d", "1"), tmp_path / "raw", " full")
    assert list((tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize("layout", ["volumes", "synapse"])
@pytest.mark.parametrize("left", [0, 200, -1])
def test_a_full_disk_that_itk_does_not_notice(tmp_path, capsys, monkeypatch, layout, left):
    """It leaves half a file, which nnU-Net would read as zeros."""
    import SimpleITK as sitk

    source = _make(layout, tmp_path / "s")
    write = sitk.WriteImage

    def full(image, path, compressed):
        write(image, path, compressed)
        Path(path).write_bytes(Path(path).read_bytes()[:left])

    monkeypatch.setattr(sitk, "WriteImage", full)
    assert_names(_refused(capsys, layout, source, "-d", "1"), tmp_path / "raw", " full")
    assert list((tmp_path / "raw").iterdir()) == []


def test_itk_that_cannot_write(tmp_path, capsys, monkeypatch):
    import SimpleITK as sitk

    def fail(*args):
        raise RuntimeError("Exception thrown\nITK ERROR: the sea is rough")

    source = write_volumes(tmp_path / "s")
    monkeypatch.setattr(sitk, "WriteImage", fail)
    error = _refused(capsys, "volumes", source, "-d", "1")
    assert_names(error, "the sea is rough", "imagesTr/pat")


def test_a_source_that_changes_meanwhile(tmp_path, capsys, monkeypatch):
    from swin_umamba_nnunet.datasets._volumes import VolumeCases

    source = write_volumes(tmp_path / "s")
    write = VolumeCases.write

    def cut_first(self, case, *rest):
        case.images[0].write_bytes(case.images[0].read_bytes()[:-30])
        write(self, case, *rest)

    monkeypatch.setattr(VolumeCases, "write", cut_first)
    error = _refused(capsys, "volumes", source, "-d", "1")
    assert_names(error, f"{source}/images/pat", "cut off")
    assert list((tmp_path / "raw").iterdir()) == []


def test_two_at_a_time_on_one_target(tmp_path, capsys):
    source = write_images(tmp_path / "s")
    with new_folder(tmp_path / "raw/Dataset001_s"):
        error = _refused(capsys, "images", source, "-d", "1")
    assert_names(error, "another process", tmp_path / "raw/Dataset001_s")


@pytest.mark.parametrize("option", ["-n", "-o"])
def test_names_that_are_too_long(tmp_path, capsys, option):
    source = write_images(tmp_path / "s")
    error = _refused(capsys, "images", source, "-d", "1", option, "x" * 300)
    assert_names(error, "xxx", "shorter")
    assert not (tmp_path / "raw").exists()


def test_case_names_that_are_too_long(tmp_path, capsys):
    for kind in ("images", "masks"):
        for number in range(2):
            save(tmp_path / "s" / kind / ("a" * 120) / f"{'b' * 120}{number}.png", blob())
    assert cli.main(["convert", "images", str(tmp_path / "s"), "-d", "1"]) == 2
    captured = capsys.readouterr()
    assert "--image-key" in captured.out
    assert captured.err.count("\n") == 1
    assert cli.main(["convert", "images", str(tmp_path / "s"), "-d", "1", "--image-key", r"b(\d)"]) == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error", "/disk/img.png")])
def test_a_machine_that_gives_up_is_one_sentence(tmp_path, capsys, monkeypatch, error):
    from swin_umamba_nnunet.datasets._picture_cases import PictureCases

    def fail(*args):
        raise error

    monkeypatch.setattr(PictureCases, "write", fail)
    said = _refused(capsys, "images", write_images(tmp_path / "s"), "-d", "1")
    assert "/disk/img.png" in said if error.args else "-np 1" in said
    assert list((tmp_path / "raw").iterdir()) == []


class _Parsed(Exception):
    """A program has understood its arguments."""


def _run(command, monkeypatch):
    """Have the real program parse a command line, without doing what it says.  A shell's own commands are run."""
    program, *arguments = shlex.split(command, comments=True)
    if program in ("export", "cp"):
        if program == "cp":
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
        else:
            variable, _, value = arguments[0].partition("=")
            monkeypatch.setenv(variable, value)
        return
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=program)
    parse = argparse.ArgumentParser.parse_args

    def only_parse(self, *args, **settings):
        parse(self, *args, **settings)
        raise _Parsed

    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        with pytest.raises(_Parsed):
            entry.load()()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("configured", [True, False])
def test_what_is_printed_as_next_can_be_typed(layout, tmp_path, capsys, monkeypatch, configured):
    """Each line, with folders whose names a shell would take apart, by the program that it names."""
    pytest.importorskip("h5py", reason="needs the synapse extra")
    place = tmp_path / "it's a folder; really"
    raw, preprocessed, results = (f"nnUNet_{each}" for each in ("raw", "preprocessed", "results"))
    for variable in (raw, preprocessed, results):
        if configured:
            monkeypatch.setenv(variable, str(place / variable))
        else:
            monkeypatch.delenv(variable)
    source = _make(layout, place / "source")
    argv = [layout, source, "-d", "42", *([] if configured else ["-o", place / "out"])]
    argv += ["--allow-incomplete"] if layout == "umamba" else []
    monkeypatch.setattr(conversion, "check_integrity", lambda *args: replace(integrity_here_and_now(*args), cuda=False))
    assert cli.main(["convert", *map(str, argv)]) == 0
    lines = [line for line in capsys.readouterr().out.partition("Next:")[2].splitlines() if line.startswith("    ")]
    for line in lines:
        if line.lstrip().startswith("cp "):  # the line before has made this folder
            (Path(os.environ[preprocessed]) / "Dataset042_source").mkdir(parents=True)
        _run(line, monkeypatch)
    assert os.environ.get(results)
    dataset = Path(os.environ[raw]) / f"Dataset042_{'source' if layout != 'umamba' else 'NeurIPSCell'}"
    assert (dataset / "dataset.json").is_file()
    splits = Path(os.environ[preprocessed]) / "Dataset042_source/splits_final.json"
    assert splits.is_file() == (layout == "isic")
    (train,) = [line for line in lines if "nnUNetv2_train" in line]
    assert "-device cpu" in train
    words = shlex.split(train, comments=True)
    assert words[words.index("-tr") + 1] in {record.name for record in catalogue.TRAINERS}


@pytest.mark.parametrize(("cuda", "said"), [(True, False), (None, False), (False, True)])
def test_the_processor_is_named_where_torch_sees_no_gpu(tmp_path, capsys, monkeypatch, cuda, said):
    order = []

    def check(*args):
        order.append(capsys.readouterr().out)
        return replace(integrity_here_and_now(*args), cuda=cuda)

    monkeypatch.setattr(conversion, "check_integrity", check)
    assert cli.main(["convert", "images", str(write_images(tmp_path / "s")), "-d", "1"]) == 0
    assert ("-device cpu" in capsys.readouterr().out) == said
    assert "checks" in order[0]  # nothing happens on the screen meanwhile, so it is announced


def test_without_h5py(tmp_path, capsys, monkeypatch):
    pytest.importorskip("h5py", reason="needs the synapse extra")
    source = write_synapse(tmp_path / "s")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert install_line("synapse") in _refused(capsys, "synapse", source, "-d", "1")


def test_an_older_preprocessing_is_mentioned(tmp_path, capsys):
    save(tmp_path / "preprocessed/Dataset001_s/x.png", blob())
    (tmp_path / "preprocessed/Dataset001_s/dataset.json").write_text("{}")
    assert cli.main(["convert", "images", str(write_images(tmp_path / "s")), "-d", "1"]) == 0
    text = capsys.readouterr().out
    assert "nnUNetv2_plan_and_preprocess -d 1 -c 2d --clean" in text
    assert_names(text.splitlines()[-1], tmp_path / "preprocessed", "Dataset001_s", "--clean")
