"""Findings: what makes a comparison unfair is said, with the rows it concerns."""

import pytest

from swin_umamba_nnunet.benchmark import fairness, prepare


@pytest.fixture
def codes(make_config, probe):
    """A function (**settings) -> {code: finding}."""

    def find(**settings):
        plan = prepare(make_config(**settings), probe=probe)
        assert all(set(item) == {"severity", "code", "text", "rows", "datasets"} for item in plan.findings)
        return {item["code"]: item for item in plan.findings}

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


def test_plans_and_pretraining_and_own_protocol(codes, probe, folders):
    plans = folders.preprocessed / "nnUNetPlans.json"
    (folders.preprocessed / "nnUNetResEncUNetLPlans.json").write_text(plans.read_text())
    probe.trainers = {
        "One": {"weights": {"name": "vmamba", "sha256": "1"}, "stock_network": False},
        "Two": {"own_protocol": ["the split", "the loss"]},
    }
    found = codes(trainers=["One", "Two:nnUNetResEncUNetLPlans"])
    assert found["plans_differ"]["severity"] == "flag"
    assert found["pretraining_differs"]["rows"] == ["One"]
    assert "in: the loss." in found["own_protocol"]["text"]
    assert "resenc_missing" not in found
    assert "nnunet_missing" in found


def test_settings_of_the_benchmark(codes):
    found = codes(mirroring=False, checkpoint="checkpoint_best.pth", seeds=[3])
    assert found["no_mirroring"]["severity"] == "note"
    assert "scores are optimistic" in found["selected_on_validation"]["text"]
    assert "(3)" in found["one_seed"]["text"]


def test_controls_that_are_missing(codes, probe):
    probe.trainers = {"nnUNetTrainerSwinUMambaD_10epochs": {"stock_network": False, "weights": {"name": "vmamba"}}}
    item = codes(trainers=["nnUNetTrainerSwinUMambaD_10epochs"])["scratch_missing"]
    assert item["severity"] == "suggestion"
    assert "nnUNetTrainerSwinUMambaDScratch_10epochs" in item["text"]
    both = ["nnUNetTrainerSwinUMambaD_10epochs", "nnUNetTrainerSwinUMambaDScratch_10epochs"]
    assert "scratch_missing" not in codes(trainers=both)


def test_controls_of_the_catalogue(codes, probe, monkeypatch):
    import dataclasses

    from swin_umamba_nnunet import catalogue

    base = catalogue.TRAINERS[-1]
    control = dataclasses.replace(base, name=base.name + "NoScan", control_of=base.name)
    monkeypatch.setattr(catalogue, "TRAINERS", (*catalogue.TRAINERS, control))
    missing = [item for code, item in codes(trainers=[base.name + "_5epochs"]).items() if code == "control_missing"]
    assert any(f"{control.name}_5epochs" in item["text"] for item in missing)


def test_rows_are_what_their_trainers_derive_from(codes, probe):
    """Subclasses under any name: a pretrained one, its control, nnU-Net's, and another's with nnU-Net's name."""
    base = "swin_umamba_nnunet.trainers.generated.nnUNetTrainerSwinUMambaD"
    probe.trainers = {
        "Mine": {"stock_network": False, "ancestors": ["m.Mine", base], "weights": {"name": "vmamba"}},
        "MineNoScan": {"stock_network": False, "ancestors": ["m.MineNoScan", f"{base}NoScan", base]},
        "Short": {"ancestors": ["m.Short", "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"]},
        "nnUNetTrainer_5epochs": {"stock_network": False, "ancestors": ["m.nnUNetTrainer_5epochs"]},
    }
    found = codes(trainers=["Mine", "Short"])
    said = found["control_missing"]["text"]
    assert "Add nnUNetTrainerSwinUMambaDNoScan (changed as Mine is), the control of Mine" in said
    assert "add nnUNetTrainerSwinUMambaDScratch (changed as Mine is)" in found["scratch_missing"]["text"]
    assert "nnunet_missing" not in found
    assert "control_missing" not in codes(trainers=["Mine", "MineNoScan"])
    assert "nnunet_missing" in codes(trainers=["Mine", "nnUNetTrainer_5epochs"])
    probe.pairs = {"Short__nnUNetPlans__2d": {"network_class": "dynamic_network_architectures.x.ResidualEncoderUNet"}}
    found = codes(trainers=["Short"])  # whatever the plans are called
    assert "nnunet_missing" in found
    assert "resenc_missing" not in found


def test_what_shows_once_cells_have_run():
    def record(host="a", device="cpu", torch="2.4", state="done"):
        return {"state": state, "host": host, "training": {"device_name": device},
                "inputs": {"device": "cpu", "versions": {"torch": torch}}}  # fmt: skip

    assert fairness.of_records([record(), record(), record(host="b", state="failed"), {"state": "waiting"}]) == []
    (item,) = fairness.of_records([record(), record(torch="2.5")])
    assert "different versions of torch: 2.4, 2.5" in item["text"]
    (item,) = fairness.of_records([record(), record(host="b", device="H100")])
    assert (item["code"], item["severity"]) == ("hardware_differs", "flag")
    (item,) = fairness.of_records([record(), record(host="b")])
    assert (item["code"], item["severity"]) == ("hosts_differ", "note")
