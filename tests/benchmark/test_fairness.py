"""Findings: what makes a comparison unfair is said, with the rows it concerns."""

import pytest

from swin_umamba_nnunet.benchmark import fairness
from swin_umamba_nnunet.benchmark.config import Row
from tests.messages import assert_names


@pytest.fixture
def codes(plan):
    """A function (**settings) -> {code: finding}."""

    def find(**settings):
        findings = plan(**settings).findings
        assert all(set(item) == {"severity", "code", "text", "rows", "datasets"} for item in findings)
        return {item["code"]: item for item in findings}

    return find


def test_a_fair_benchmark_has_nothing_to_flag(codes):
    found = codes(seeds=[0, 1], folds=[0, 1])
    assert [code for code, item in found.items() if item["severity"] == "flag"] == []


def test_iterations(codes, probe):
    probe.pairs = {"Two__nnUNetPlans__2d": {"epochs": 20}}
    item = codes()["iterations_differ"]
    assert item["severity"] == "flag"
    assert "One: 10 x 250 = 2,500; Two: 20 x 250 = 5,000" in item["text"]
    assert item["datasets"] == ["Dataset903_Matrix"]
    probe.pairs = {"Two__nnUNetPlans__2d": {"epochs": 20, "iterations_per_epoch": 125}}
    assert "iterations_differ" not in codes()


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        ({"batch_size": 4}, "batch_differs"),
        ({"patch_size": [32, 64]}, "patch_differs"),
        ({"mirroring_axes": None}, "mirroring_differs"),
        ({"split": [0]}, "split_differs"),
    ],
)
def test_recipes(codes, probe, recipe, code):
    probe.pairs = {"Two__nnUNetPlans__2d": recipe}
    assert codes()[code]["severity"] == "flag"


def test_a_question_is_answered_by_the_worst_of_its_remarks():
    """Twice the same is said once; a note alone leaves the comparison in order."""
    note, flag = (fairness.remark(kind, "selected_on_validation", kind, [], ["D"]) for kind in ("note", "flag"))
    for remarks, verdict, answer in (
        ([note, note], "in order", f"{FINAL} note (D)"),
        ([note, flag], "problem", "note (D) flag (D)"),
    ):
        (item,) = (item for item in fairness.answered(remarks) if item.question.startswith("Tuning"))
        assert (item.verdict, item.answer) == (verdict, answer)


def test_plans_and_own_protocol(codes, probe, folders):
    plans = folders.preprocessed / "nnUNetPlans.json"
    (folders.preprocessed / "nnUNetResEncUNetLPlans.json").write_text(plans.read_text())
    probe.trainers = {"Two": {"own_protocol": ["the split", "the loss"]}}
    found = codes(trainers=["One", "Two:nnUNetResEncUNetLPlans"])
    assert found["plans_differ"]["severity"] == "flag"
    assert "in: the loss." in found["own_protocol"]["text"]
    assert "resenc_missing" not in found  # the rows' own facts are looked at, too


def test_settings_of_the_benchmark(codes):
    found = codes(mirroring=False, checkpoint="checkpoint_best.pth", seeds=[3])
    assert found["no_mirroring"]["severity"] == "note"
    assert "scores are optimistic" in found["selected_on_validation"]["text"]
    assert "(3)" in found["one_seed"]["text"]


FINAL = "All rows predict with their final checkpoint: none was chosen by a score."
BASE = "swin_umamba_nnunet.trainers.generated.nnUNetTrainerSwinUMambaD"
STOCK = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"
DAGGER, NO_SCAN, SCRATCH = (f"nnUNetTrainerSwinUMambaD{part}_10epochs" for part in ("", "NoScan", "Scratch"))


def row(name, *ancestors, weights=False, stock=False, network="PlainConvUNet"):
    """A row as benchmark.json has recorded it; of this package's trainer of that name, unless ancestors are given."""
    recorded = {
        "name": name,
        "ancestors": ancestors or (f"swin_umamba_nnunet.trainers.{name}",),
        "stock_network": stock,
        "network_classes": [f"dynamic_network_architectures.x.{network}"],
        "weights": {"name": "vmamba"} if weights else None,
    }
    return Row(name, label=name, recorded=recorded)


NNUNET = row("Short", "m.Short", STOCK, stock=True)
RESENC = row("Big", STOCK, stock=True, network="ResidualEncoderUNet")


@pytest.mark.parametrize(
    ("rows", "code", "named"),
    [
        # names of this package, with the suffix of their length
        ([row(DAGGER, weights=True)], "scratch_missing", [f"add {SCRATCH}"]),
        ([row(DAGGER, weights=True), row(SCRATCH)], "scratch_missing", None),
        ([row(DAGGER, weights=True), row(SCRATCH)], "scratch_present", [f"{SCRATCH} is {DAGGER} from random weights"]),
        ([row(DAGGER, weights=True), row(SCRATCH)], "pretraining_differs", [f"From ImageNet: {DAGGER}", SCRATCH]),
        ([row(DAGGER, weights=True)], "all_pretrained", [DAGGER]),
        ([row(DAGGER, weights=True)], "control_missing", [f"Add {NO_SCAN}", DAGGER]),
        ([row(DAGGER), row(NO_SCAN)], "controls", [f"{NO_SCAN} is the control of {DAGGER}"]),
        # subclasses under any name
        ([row("Mine", "m.Mine", BASE)], "control_missing", ["NoScan (changed as Mine is)", "control of Mine"]),
        ([row("Mine", "m.Mine", BASE, weights=True)], "scratch_missing", ["DScratch (changed as Mine is)"]),
        ([row("Mine", "m.Mine", BASE), row("Off", "m.Off", f"{BASE}NoScan", BASE)], "controls", ["Off", "Mine"]),
        ([row("Mine", "m.Mine", BASE), row(NO_SCAN[:-9])], "controls_unequal", ["Mine", "may differ in more"]),
        ([row(DAGGER, f"theirs.{DAGGER}")], "control_missing", None),  # another's trainer of that name
        # nnU-Net's, whatever trainer and plans are called
        ([NNUNET, RESENC], "baselines", ["Short, Big"]),
        ([NNUNET], "nnunet_missing", None),
        ([NNUNET], "resenc_missing", ["nnUNetResEncUNetLPlans"]),
        ([RESENC], "nnunet_missing", ["nnUNetTrainer"]),
        ([RESENC], "resenc_missing", None),
        ([row("nnUNetTrainer_5epochs", "m.nnUNetTrainer_5epochs")], "nnunet_missing", ["nnUNetTrainer"]),
        # of an older version
        ([NNUNET, Row("Old", label="Old")], "baselines", ["run it once more"]),
        ([NNUNET, Row("Old", label="Old")], "controls", ["run it once more"]),
    ],
)
def test_rows_are_what_their_trainers_derive_from(rows, code, named):
    found = {item["code"]: item["text"] for item in fairness.of_rows(rows)}
    assert (code in found) is (named is not None)
    assert_names(found.get(code), *named or ())


def test_what_shows_once_cells_have_run():
    def record(host="a", device="cpu", torch="2.4", state="done"):
        return {
            "state": state,
            "host": host,
            "training": {"device_name": device},
            "inputs": {"device": "cpu", "versions": {"torch": torch}},
        }

    unlike = record(host="b", state="failed")
    assert list(fairness.of_records([record(), record(), unlike, {"state": "waiting"}])) == []
    (item,) = fairness.of_records([record(), record(torch="2.5")])
    assert "different versions of torch: 2.4, 2.5" in item["text"]
    for device, expected in (("H100", ("hardware_differs", "flag")), ("cpu", ("hosts_differ", "note"))):
        (item,) = fairness.of_records([record(), record(host="b", device=device)])
        assert (item["code"], item["severity"]) == expected


def test_a_lack_of_random_starts_spoils_only_a_comparison_of_both_kinds():
    """All rows pretrained alike: with care; some: a problem, also where a user's trainer has no known counterpart."""
    missing = fairness.remark("suggestion", "scratch_missing", "no row is it from random weights", ["A"])
    differs = fairness.remark("flag", "pretraining_differs", "some start from ImageNet weights", ["A"])
    verdicts = [
        {item.verdict for item in fairness.answered(remarks) if "no row is it" in item.answer}
        for remarks in ([missing], [missing, differs])
    ]
    assert verdicts == [{fairness.CAUTION}, {fairness.PROBLEM}]
