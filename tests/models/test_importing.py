"""Released models become folders that nnU-Net's own predictor loads, with the authors' outputs."""

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.models import import_model
from swin_umamba_nnunet.models.checkpoints import ModelError
from swin_umamba_nnunet.models.importing import recognise
from tests import golden
from tests.commands import printed
from tests.jsons import dump, edit, load
from tests.messages import assert_names, raises
from tests.models.conftest import DATASET, old_plans, their_checkpoint

NETWORKS = {
    "swin_umamba": "nnUNetTrainerSwinUMamba",
    "swin_umamba_d": "nnUNetTrainerSwinUMambaD",
    "umamba_bot": "nnUNetTrainerUMambaBot",
    "umamba_enc": "nnUNetTrainerUMambaEnc",
    "umamba_bot_2024_01": "nnUNetTrainerUMambaBotPaper",
    "umamba_enc_2024_01": "nnUNetTrainerUMambaEncPaper",
}


def load_as_nnunet_does(folder, fold):
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
    return predictor.network.eval()


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_authors_output_comes_out_of_nnunets_predictor(name, released, tmp_path):
    report = import_model(released(name), tmp_path / "model")
    assert (report.network, report.trainer) == (name, NETWORKS[name])
    assert report.tensors + report.dropped == len(golden.shapes(name))
    case = golden.case(name)
    with torch.no_grad():
        output = load_as_nnunet_does(tmp_path / "model", "all")(case.image)
    # This one amplifies float32's rounding (tests/networks/test_umamba.py).
    tolerance = 1e-3 if name == "umamba_enc_2024_01" else golden.OUTPUT
    assert golden.relative_error(output, case.outputs[0]) < tolerance


def vm_unet_files(folder, heads=2, wrapped=False):
    """Bare weights as VM-UNet's authors release them, and plans and a dataset.json that go with them."""
    folder.mkdir()
    shapes = golden.shapes("vm_unet")
    shapes |= {key: (heads, *shape[1:]) for key, shape in shapes.items() if key.startswith("final_conv")}
    weights = {f"vmunet.{key}": value for key, value in golden.weights(shapes).items()}
    torch.save({"model_state_dict": weights, "epoch": 3} if wrapped else weights, folder / "best.pth")
    dump(folder / "plans.json", old_plans())
    dataset = {**DATASET, "channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "lesion": 1}}
    dump(folder / "dataset.json", dataset)
    return folder / "best.pth", folder / "plans.json", folder / "dataset.json"


@pytest.mark.parametrize("wrapped", [False, True])
def test_vm_unets_bare_weights(wrapped, tmp_path):
    weights, plans, dataset = vm_unet_files(tmp_path / "theirs", wrapped=wrapped)
    report = import_model(weights, tmp_path / "model", plans=plans, dataset_json=dataset)
    assert (report.network, report.trainer, report.configuration) == ("vm_unet", "nnUNetTrainerVMUNet", "2d")
    assert "256x256" in " ".join(report.remarks)
    case = golden.case("vm_unet")
    with torch.no_grad():
        output = load_as_nnunet_does(tmp_path / "model", "0")(case.image)
    assert golden.relative_error(output, case.outputs[0]) < golden.OUTPUT


def test_one_channel_of_logits_is_a_region(tmp_path):
    weights, plans, dataset = vm_unet_files(tmp_path / "theirs", heads=1)
    with raises(ModelError, "1 channels of logits, but dataset.json describes 2 ", "regions_class_order"):
        import_model(weights, tmp_path / "model", plans=plans, dataset_json=dataset)
    region = {"labels": {"background": 0, "lesion": [1, 2]}, "regions_class_order": [1]}
    edit(dataset, lambda content: content.update(region))
    import_model(weights, tmp_path / "model", plans=plans, dataset_json=dataset)


def test_the_present_format_is_written_and_the_old_files_are_untouched(released, tmp_path):
    source = released("umamba_bot", narrow=True, folds=("fold_0", "fold_1"))
    (source / "fold_0 (1)").mkdir()  # a copy, as file managers call it
    (source / "fold_0 (1)/checkpoint_final.pth").touch()
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    report = import_model(source, tmp_path / "model")
    assert {path: path.read_bytes() for path in before} == before
    written = load(tmp_path / "model" / "plans.json")
    settings = written["configurations"]["2d"]
    assert settings["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8, 16, 32, 64, 64]
    assert "UNet_class_name" not in settings
    assert [target.parent.name for _, target in report.folds] == ["fold_0", "fold_1"]
    assert report.their_trainer == "nnUNetTrainerUMambaEnc"  # the file says so, its tensors say otherwise
    checkpoint = torch.load(tmp_path / "model" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1)
    assert checkpoint["imported_from"]["network"] == "umamba_bot"


def test_refusals_leave_nothing_behind(released, tmp_path):
    source, target = released("umamba_enc"), tmp_path / "model"
    checkpoint = source / "fold_all" / "checkpoint_final.pth"
    good = checkpoint.read_bytes()

    def refused(match, path=source, **settings):
        with pytest.raises(ModelError, match=match):
            import_model(path, target, **settings)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["released"]

    refused("does not exist", tmp_path / "nowhere")
    refused("is no model folder", source / "fold_all")
    refused("no configuration '3d_fullres', only 2d", configuration="3d_fullres")
    refused("plans.json is no file; name the file with --plans", plans=source / "not" / "plans.json")
    checkpoint.write_bytes(good[: len(good) // 2])
    refused("truncated or damaged|damaged or no PyTorch")
    torch.save({"network_weights": {"conv.weight": torch.zeros(1)}}, checkpoint)
    refused("none of the networks this can import .* start with conv.weight")
    weights, key = their_checkpoint("umamba_enc")["network_weights"], "decoder.seg_layers.0.weight"
    torch.save({"network_weights": {k: value for k, value in weights.items() if "stages.2" not in k}}, checkpoint)
    refused("none of the networks")
    checkpoint.write_bytes(good)
    dump(source / "plans.json", old_plans((128, 192)))
    refused("does not fit the UMambaEnc .* instead of")  # its weights depend on the patch
    (source / "plans.json").write_text("{}")
    refused("no plans that nnU-Net understands")
    (source / "plans.json").write_text("{")
    refused("cannot be read as JSON")
    dump(source / "plans.json", old_plans())
    for odd, match in (
        ({"trainer_name": torch.zeros(3)}, "names its trainer by a Tensor"),
        ({"inference_allowed_mirroring_axes": torch.zeros(2)}, "holds Tensor as its mirroring axes"),
        ({"init_args": None}, "holds a NoneType as its init_args"),
        ({"init_args": {}}, "does not say which configuration it is for; name it: -c 2d"),
        ({"network_weights": weights | {key: weights[key] * torch.nan}}, f"{checkpoint} holds .*{key}"),
    ):
        torch.save(their_checkpoint("umamba_enc") | odd, checkpoint)
        refused(match)
    target.mkdir()
    with raises(ModelError, "already exists"):
        import_model(source, target)


@pytest.mark.parametrize("key", ["encoder.stages.{}.0.conv1.weight", "vmunet.layers.0.blocks.{}.ln_1.bias"])
def test_a_number_in_a_name_is_not_counted_up_to(key):
    with raises(ModelError, "none of the networks"):
        recognise({key.format(10**15): torch.zeros(1)}, "file.pth")


def test_the_verb_prints_the_command_to_predict_with(released, tmp_path, capsys):
    """And it can be typed as it is printed."""
    source, target = (
        released("umamba_bot_2024_01", ("fold_0", "fold_3"), narrow=True),
        tmp_path / "my model (new) $HOME",
    )
    command = ["model", "import", str(source), "-o", str(target)]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert_names(text, "umamba_bot_2024_01", "nnUNetTrainerUMambaBotPaper", "--disable_tta")
    (typed,) = printed(text, "nnUNetv2_predict_from_modelfolder")
    assert (typed.m, typed.f, typed.i, typed.o) == (str(target), ["0", "3"], "NEW_SCANS", "OUT")
    assert cli.main(command) == 2
    assert "already exists" in capsys.readouterr().err
