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
        assert all(set(item) == {"severity", "code", "text", "datasets"} for item in findings)
        return {item["code"]: item for item in findings}

    return find


def test_a_fair_benchmark_has_nothing_to_flag(codes, probe):
    """Other epochs, but as many iterations in all."""
    probe.pairs = {"Two__nnUNetPlans__2d": {"epochs": 20, "iterations_per_epoch": 125}}
    found = codes(seeds=[0, 1], folds=[0, 1])
    assert [code for code, item in found.items() if item["severity"] == "flag"] == []


@pytest.mark.parametrize(
    ("recipe", "code", "said"),
    [
        ({"epochs": 20}, "iterations_differ", "One: 10 x 250 = 2,500; Two: 20 x 250 = 5,000"),
        ({"batch_size": 4}, "batch_differs", "One: 2; Two: 4"),
        ({"patch_size": [32, 64]}, "patch_differs", "One: [32, 32]; Two: [32, 64]"),
        ({"mirroring_axes": None}, "mirroring_differs", "Two: None"),
        ({"split": [0]}, "split_differs", "Two"),
    ],
)
def test_recipes(codes, probe, recipe, code, said):
    probe.pairs = {"Two__nnUNetPlans__2d": recipe}
    (item,) = (item for item in codes().values() if item["datasets"] == ["Dataset903_Matrix"])
    assert (item["code"], item["severity"]) == (code, "flag")
    assert said in item["text"]


def test_a_question_is_answered_by_the_worst_of_its_remarks():
    """Twice the same is said once, of all its datasets; a note alone leaves the comparison in order.

    A lack of random starts spoils only a comparison of both kinds: all rows pretrained alike are a matter of care.
    """
    note, flag = (fairness.remark(kind, "selected_on_validation", kind, "D") for kind in ("note", "flag"))
    missing, differs = (fairness.remark("flag", code, code) for code in ("scratch_missing", "pretraining_differs"))
    for remarks, question, verdict, answer in (
        ([note, note, {**note, "datasets": ["E"]}], "Tuning", "in order", "note (D, E)"),
        ([fairness.remark("note", "by_hand", "besides")], "Tuning", "in order", f"{FINAL} besides"),
        ([note, flag], "Tuning", "problem", "note (D) flag (D)"),
        ([missing], "Confounding booster:", "caution", "scratch_missing"),
        ([missing, differs], "Confounding booster:", "problem", "pretraining_differs scratch_missing"),
    ):
        (item,) = (item for item in fairness.answered(remarks) if item.question.startswith(question))
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
        ([row("nnUNetTrainer_5epochs", "m.nnUNetTrainer_5epochs")], "nnunet_missing", ["nnUNetTrainer"]),
        # of an older version
        ([NNUNET, Row("Old", label="Old")], "baselines", ["run it once more"]),
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
    for device, expected in (("H100", ("hardware_differs", "flag")), ("cpu", ("hosts_differ", "fine"))):
        (item,) = fairness.of_records([record(), record(host="b", device=device)])
        assert (item["code"], item["severity"]) == expected
