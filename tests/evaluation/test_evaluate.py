"""Whole evaluations: files written, bad input, options, processes."""

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from swin_umamba_nnunet.evaluation import Endoscopy, EvaluationError, LabelSet, Plain, from_options
from swin_umamba_nnunet.evaluation.evaluate import case_workers
from swin_umamba_nnunet.evaluation.output import format_result
from tests.evaluation import worker_functions
from tests.evaluation.files import blobs, evaluated, refused, write_folders, write_image, write_twice, write_volume
from tests.jsons import dump, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


def test_metrics_csv_has_every_value(folders, tmp_path):
    """A spreadsheet would compute some of these names; numbers stay numbers."""
    for folder in folders:
        (folder / "case_0.png").rename(folder / "-1+case.png")
    result = evaluated(folders, Plain(["=cmd=1", "@x=2", "3"]), output=tmp_path / "out")
    with (tmp_path / "out/metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["case", "class", "metric", "value", "unit", "convention"]
    assert len(found) == 3 * 3 * 9
    values = [float(row["value"]) for row in found]
    np.testing.assert_array_equal(values, [m.value for m in result.measurements])
    for name, wanted in {
        "unit": {"1", "px"},
        "convention": {"plain", "plain: tolerance 2 px"},
        "class": {"'=cmd", "'@x", "3"},
        "case": {"'-1+case", "case_1", "case_2"},
    }.items():
        assert {row[name] for row in found} == wanted


def test_names_do_not_act_on_the_terminal(folders):
    text = format_result(evaluated(folders, Plain(["\x1b[2Jliver=1", "a\n\u202eb=2,3"])))
    assert not set(text) & set("\x1b\u202e")
    assert "\\x1b[2Jliver" in text
    assert "a\\n\\u202eb" in text


def test_summary_json_is_nnunets_and_more(folders, tmp_path):
    result = evaluated(folders, output=tmp_path / "out")
    found = load_summary_json(str(tmp_path / "out/summary.json"))
    for pair, ours in zip(result.cases, found["metric_per_case"], strict=True):
        files = str(pair.ground_truth), str(pair.prediction)
        theirs = compute_metrics(*files, NaturalImage2DIO(), [1, 2, 3])
        assert (ours["reference_file"], ours["prediction_file"]) == files
        for key, values in theirs["metrics"].items():
            assert {name: ours["metrics"][key][name] for name in values} == pytest.approx(values, rel=1e-12)
    for key in (1, 2, 3):
        mean = np.mean([case["metrics"][key]["Dice"] for case in found["metric_per_case"]])
        assert found["mean"][key]["Dice"] == pytest.approx(mean, rel=1e-12)
    means = [found["mean"][key]["Dice"] for key in (1, 2, 3)]
    assert found["foreground_mean"]["Dice"] == pytest.approx(np.mean(means), rel=1e-12)
    ours = found["swin_umamba_evaluation"]
    assert ours["protocol"] == "plain"
    assert len(ours["statistics"]) == len(result.statistics)
    assert ours["conventions"][0]["definition"]


def test_the_authors_values_are_named_in_summary_json(tmp_path):
    truth, predicted = write_folders(tmp_path, 2)
    evaluated((truth, predicted), Endoscopy(), output=tmp_path / "out")
    content = load(tmp_path / "out/summary.json")
    assert {"Dice", "NSD", "DSC (endoscopy)", "NSD (endoscopy)"} <= set(content["mean"]["1"])
    assert len(content["swin_umamba_evaluation"]["image_values"]) == 2 * 5


def test_nothing_of_others_is_overwritten(folders, tmp_path):
    evaluated(folders, output=tmp_path / "out")
    evaluated(folders, output=tmp_path / "out")  # our own files are
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.csv", "summary.json"]
    foreign = folders[1] / "summary.json"
    foreign.write_text('{"foreground_mean": {}}')
    with refused(foreign, "overwritten", "another output"):
        evaluated(folders, output=folders[1])
    assert foreign.read_text() == '{"foreground_mean": {}}'
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.csv").write_text("epoch,loss\n")
    with refused(other / "metrics.csv", "overwritten", "another output"):
        evaluated(folders, output=other)
    with refused(foreign, "a file", "a folder"):
        evaluated(folders, output=foreign)


def test_several_processes_give_the_same(folders):
    results = [evaluated(folders, processes=processes) for processes in (1, 2)]
    assert repr(results[0].measurements) == repr(results[1].measurements)
    assert repr(results[0].statistics) == repr(results[1].statistics)


def test_all_bad_cases_are_told_before_anything_is_scored(folders, tmp_path):
    truth, predicted = folders
    write_image(predicted / "case_0.png", np.zeros((3, 3), np.uint8))
    (predicted / "case_2.png").write_bytes(b"noise")
    with pytest.raises(EvaluationError, match=r"(?s)2 of 3 cases .*case_0\b.*\(3, 3\).*case_2.png .*damaged"):
        evaluated((truth, predicted), output=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_dataset_json_is_found_and_that_of_the_predictions_comes_first(folders, tmp_path):
    for folder, labels in ((tmp_path, {"a": 1, "b": 2}), (folders[1], {"right": 1, "b": 2, "c": 3})):
        dump(folder / "dataset.json", {"labels": {"background": 0, **labels}})
    result = evaluated(folders)
    assert {m.label for m in result.measurements} == {"right", "b", "c"}
    assert any("right = 1" in note and str(folders[1]) in note for note in result.notes)
    (folders[1] / "dataset.json").unlink()
    with refused("case_0.png", "label 3", tmp_path / "dataset.json", "0 to 2"):
        evaluated(folders)
    result = evaluated(folders, Plain(["1", "odd=2,3"]))
    assert {m.label for m in result.measurements} == {"1", "odd"}


def test_labels_that_only_one_side_or_none_has(tmp_path):
    write_twice(tmp_path, np.zeros((4, 4), np.uint8))
    with refused("background", "--labels"):
        evaluated(tmp_path)
    result = evaluated(tmp_path, Plain([1]))
    assert math.isnan(result.value("a", "1", "Dice"))
    for side, value in (("gt", 255), ("pred", 1)):
        write_image(tmp_path / side / "a.png", np.full((4, 4), value, np.uint8))
    assert any("No class is in both" in note for note in evaluated(tmp_path).notes)


def test_millimetres_and_voxels_do_not_mix(tmp_path):
    for number, volume in enumerate((blobs(0, (3, 9, 9)), blobs(1, (3, 9, 9)))):
        for side in ("gt", "pred"):
            write_image(tmp_path / side / f"{number}.tif", volume)
            if number:
                dump(tmp_path / side / f"{number}.json", {"spacing": [1, 1, 1]})
    with refused("1 in mm", "0 in voxel", "spacing"):
        evaluated(tmp_path)


def test_directions_that_differ_are_said(tmp_path):
    import SimpleITK as sitk

    truth, predicted = write_folders(tmp_path, 1, (3, 9, 9), ".nii.gz")
    image = sitk.ReadImage(str(predicted / "case_0.nii.gz"))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    sitk.WriteImage(image, str(predicted / "case_0.nii.gz"))
    result = evaluated((truth, predicted))
    assert any("directions" in note for note in result.notes)


@pytest.mark.parametrize(
    ("protocol", "options", "facts"),
    [
        ("nonsense", {}, ("nonsense", "plain, abdomen")),
        ("abdomen", {"labels": [1]}, ("abdomen", "--labels", "--protocol plain")),
        ("synapse", {"tolerance": 2}, ("synapse", "--tolerance", "--protocol plain")),
        ("plain", {"isic_size": 64}, ("plain", "--isic-size", "--protocol isic")),
        ("plain", {"tolerance": ["x"]}, ("--tolerance x", "NAME=DISTANCE")),
        ("plain", {"tolerance": -1.0}, ("--tolerance -1", "NAME=DISTANCE")),
        ("plain", {"labels": [1], "tolerance": ["liver=2"]}, ("--tolerance", "liver", "command line has 1")),
        ("plain", {"labels": [1], "dataset_json": LabelSet({})}, ("labels", "dataset.json", "one of them")),
        ("plain", {"labels": [1], "instances": "ids"}, ("--instances ids", "leave the labels out")),
        ("plain", {"instances": "nonsense"}, ("nonsense", "components, ids")),
        ("isic", {"isic_size": -1}, ("--isic-size -1", "1 or more")),
        ("cells", {"toleranse": 1}, ("cells", "toleranse", "iou_thresholds, count_border_cells")),
        ("abdomen", {}, ("case_0", "abdomen", "volumes", "2D image (20, 24)")),
        ("isic", {}, ("gt/case_0.png", "value 2", "0 and 1", "0 and 255")),
        ("cells", {}, ("pred/case_0.png", "label 3", "2 boundary", "--instances ids")),
    ],
)
def test_bad_options(folders, protocol, options, facts):
    with refused(*facts):
        evaluated(folders, from_options(protocol, options))
    table = {"labels": ["liver=1"], "tolerance": {"liver": 5}, "iou_thresholds": [0.5], "medpy_hd95": None}
    assert from_options("plain", table) == Plain(["liver=1"], tolerance=["liver=5"], iou_thresholds=(0.5,))


@pytest.mark.parametrize(("option", "value", "least"), [("processes", 0, 1), ("resamples", 0, 1), ("seed", -1, 0)])
def test_numbers_too_small(folders, option, value, least):
    with refused(f"{option} {value}", f"{least} or more"):
        evaluated(folders, **{option: value})


@pytest.mark.parametrize(
    ("protocol", "facts"),
    [
        ("endoscopy", ("endoscopy", "2D images", "(4, 9, 9)")),
        ("cells", ("cells", "2D images", "(4, 9, 9)")),
        ("isic", ("isic", "2D images", "(4, 9, 9)")),
        ("abdomen", ("label 14", "abdomen", "0 to 13")),
        ("synapse", ("label 14", "synapse", "0 to 8")),
    ],
)
def test_volumes_that_are_refused(tmp_path, protocol, facts):
    folders = write_folders(tmp_path, 1, (4, 9, 9), ".nii.gz")
    write_volume(folders[1] / "case_0.nii.gz", np.full((4, 9, 9), 14, np.uint8))
    with refused("case_0", *facts):
        evaluated(folders, from_options(protocol))


@pytest.mark.parametrize("library", ["surface_distance", "medpy.metric.binary"])
def test_missing_libraries_are_said_before_reading(folders, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with refused("pip install ", "[evaluate]"):
        evaluated(("not", "read"), Plain(medpy_hd95=True))
    result = evaluated(folders, Plain(distances=False))  # needs neither
    assert "NSD" not in {m.metric for m in result.measurements}
    assert "NSD" not in result.conventions[0].definition


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_dead_worker_is_an_error_and_no_hang():
    with case_workers(2, 6, False) as run, refused("worker", "testing", "--processes 1"):
        run(worker_functions.die_at_three, range(6), "testing")


def test_an_error_does_not_wait_for_other_cases(tmp_path):
    finished = tmp_path / "finished"
    with pytest.raises(ZeroDivisionError), case_workers(2, 2, False) as run:
        run(worker_functions.sleep_or_fail, [str(finished), ""], "testing")
    assert not finished.exists()


_INTERRUPTED = """
import sys
from swin_umamba_nnunet.evaluation.evaluate import case_workers
from tests.evaluation.worker_functions import sleep_then_touch
if __name__ == "__main__":
    with case_workers(2, 4, False) as run:
        run(abs, range(4), "warming up")
        print("ready", flush=True)
        run(sleep_then_touch, [sys.argv[1]] * 4, "sleeping")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups to interrupt")
def test_interrupt_ends_everything(tmp_path):
    script, finished = tmp_path / "script.py", tmp_path / "finished"
    script.write_text(_INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(finished)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to the workers too
        _, errors = process.communicate(
            timeout=60
        )  # ends when nobody holds the pipes any more, so with the last worker
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert errors.count("KeyboardInterrupt") == 1
    assert not finished.exists()
