"""`swin-umamba weights` with made-up checkpoints, folders as mirrors, and a server that misbehaves."""

import dataclasses

import pytest
import torch

from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli import weights
from swin_umamba_nnunet.pretrained import cache_folder, locate, registry
from tests.commands import printed
from tests.messages import assert_names
from tests.pretrained.conftest import save, saved, secluded, server, state_dict  # noqa: F401  (fixtures)

TRAINER, PRETRAINED = "nnUNetTrainerSwinUMamba", "-pretrained_weights FILE"


@pytest.fixture
def said(told):
    """A function (exit code, *words) -> what the verb printed."""
    return lambda code, *words: told(code, "weights", *words)


# -------------------------------------------------------------------------------------------------------------- list


def test_the_list_says_everything_about_every_checkpoint(said, published):
    published(folder=cache_folder())
    text = said(0, "list").out
    for record in registry.RECORDS:
        for part in (record.name, record.file_name, str(record.top1_percent), record.url, *record.other_file_names):
            assert part in text
    assert text.count("not on this machine") == len(registry.RECORDS) - 1
    assert f"here      {cache_folder()}" in text
    words = text.replace("\n", " ").replace(",", " ").replace(";", " ").split()
    assert all(trainer.name in words for trainer in TRAINERS if trainer.pretrained)


def test_the_list_says_how_far_a_hash_is_trusted(said, monkeypatch):
    records = [
        dataclasses.replace(registry.RECORDS[0], sha256=digest, sha256_confirmed=trusted)
        for digest, trusted in (("a" * 64, True), ("b" * 64, False), (None, False))
    ]
    monkeypatch.setattr(weights, "RECORDS", records)
    text = said(0, "list").out
    assert f"{'a' * 64} (confirmed" in text
    assert f"{'b' * 64} (second-hand" in text
    assert "unknown" in text


def test_the_list_says_which_file_the_variable_names(said, monkeypatch, tmp_path):
    file = tmp_path / "mine.pth"
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(file))
    assert_names(said(1, "list").err, "SWIN_UMAMBA_WEIGHTS", file)
    file.touch()
    text = said(0, "list").out
    assert_names(text, "SWIN_UMAMBA_WEIGHTS", file)
    assert text.count("not on this machine") == len(registry.RECORDS)


# ------------------------------------------------------------------------------------------------------------- fetch


@pytest.mark.parametrize("name", ["vmamba_tiny_v0", "swin_umamba", TRAINER, f"{TRAINER}_5epochs"])
def test_fetching_from_a_mirror_folder(published, name, said):
    source = published()
    text = said(0, "fetch", name, "--from", source.parent).out
    assert (cache_folder() / source.name).read_bytes() == source.read_bytes()
    assert_names(text, "fetched", "as published")
    assert "already" in said(0, "fetch", name).out


def test_fetching_from_the_network_resumes_and_says_so(said, published, server):
    source = published(urls=(server.url,))
    server.content = source.read_bytes()
    server.script = ["break 10000", "break 0"]
    facts = ("resuming", server.url, "10,000 of", source.name, "--from FOLDER", cache_folder())
    assert_names(said(1, "fetch", TRAINER).err, *facts)
    said(0, "fetch", TRAINER)  # how it goes on: tests/pretrained/test_download.py


def test_a_web_page_in_place_of_the_file_is_refused_and_leaves_nothing(said, published, server):
    source = published(urls=(server.url,), size_bytes=None)
    server.content, server.content_type = b"<!DOCTYPE html><html>Please log in</html>", "text/html"
    assert_names(said(1, "fetch", TRAINER).err, server.url, "web page", source.name, "--from FOLDER", cache_folder())
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]


def test_fetching_all_goes_on_past_a_failure(said, published, tmp_path):
    published()
    published("vmamba_tiny_v2")
    text = said(1, "fetch", "--all", "--from", tmp_path / "mirror").out
    assert_names(text, "2 of 6", "vmamba_base_v0: ", tmp_path / "mirror")
    assert len([path for path in cache_folder().iterdir() if path.suffix == ".pth"]) == 2


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        ((), ("--all", "swin-umamba weights list")),
        (("vmamba_tiny_v0", "--all"), ("--all", "swin-umamba weights list")),
        (("vmamba_tini_v0",), ("'vmamba_tini_v0'", "vmamba_base_v2", " vmamba_tiny_v0?")),
        ((f"{TRAINER}Scratch",), (f"{TRAINER}Scratch", "random")),
        (("nnUNetTrainerNonsense",), ("'nnUNetTrainerNonsense'", "`swin-umamba list`")),
        ((f"{TRAINER}D2",), (f"'{TRAINER}D2'", f" {TRAINER}DV2, {TRAINER}D ", "`swin-umamba list`")),
        (("--all", "--from", "https://example.org/a.pth"), ("--all", "https://example.org/a.pth", "folder")),
    ],
)
def test_names_nobody_knows(said, argv, facts):
    assert_names(said(2, "fetch", *argv).err, *facts)


@pytest.mark.parametrize(("mirror", "remedy"), [("nodir", "folder"), ("http://a.b/c/", "https://")])
def test_a_mirror_that_is_none_is_told_once(said, tmp_path, monkeypatch, mirror, remedy):
    monkeypatch.chdir(tmp_path)
    told = said(1, "fetch", "--all", "--from", mirror)
    assert told.err.count(mirror) == 1
    assert remedy in told.err
    assert told.out == ""


# ------------------------------------------------------------------------------------------------------------ verify


@pytest.mark.parametrize("name", [record.name for record in registry.RECORDS if "base" not in record.name])
def test_a_file_is_recognised_whatever_its_name(name, saved, said):
    record = registry.get_record(name)
    fitting = {each.name for each in TRAINERS if each.weights and record in registry.accepted_records(each.weights)}
    text = said(0 if fitting else 1, "verify", saved(name, "some.pth")).out
    assert_names(
        text, f"{record.title} (depths", f"generation {record.variant.generation}", "norm and head as published"
    )
    words = text.partition("What fits")[0].replace(",", " ").split()
    assert {trainer.name for trainer in TRAINERS} & set(words) == fitting


def test_a_file_for_other_trainers_says_which_one_fits(said, saved):
    file = saved("vmamba_small_v0", "some.pth")
    text = said(1, "verify", file, "--for", TRAINER).out
    assert f"{TRAINER}: vssmtiny_dp01_ckpt_epoch_292.pth" in text
    assert "swin-umamba weights fetch vmamba_tiny_v0" in text
    assert [command.names for command in printed(text, "swin-umamba")] == [["vmamba_tiny_v0"]]
    said(0, "verify", file, "--for", "nnUNetTrainerVMUNet")


def test_a_trainer_of_the_users_own_is_known_by_what_it_is_built_on(published, save, tmp_path, monkeypatch, said):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_weights_trainers.py").write_text("""
from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaD
class nnUNetTrainerMine(nnUNetTrainerSwinUMambaD): pass
class nnUNetTrainerMineSmall(nnUNetTrainerSwinUMambaD): imagenet_weights = 'vmamba_small_v0'
""")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "mine"))
    path = published(folder=cache_folder())
    assert said(0, "path", "nnUNetTrainerMine").out == f"{path}\n"
    said(0, "verify", path, "--for", "nnUNetTrainerMine")
    assert "nnUNetTrainerMineSmall: vssmsmall" in said(1, "verify", path, "--for", "nnUNetTrainerMineSmall").out
    trained = save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": "nnUNetTrainerMine"}, "mine.pth")
    assert_names(" ".join(said(1, "verify", trained).out.split()), "nnUNetTrainerMine ", "nnUNetv2_predict", PRETRAINED)
    assert_names(said(2, "path", "nnUNetTrainerYours").err, "'nnUNetTrainerYours'", "swin-umamba list")


def test_a_published_file_is_compared_with_the_registry(said, published):
    path = published(sha256="0" * 64)
    text = said(0, "verify", path).out
    assert_names(text, f"{path.stat().st_size:,} bytes, as published", "different", "not confirmed")


def test_an_encoder_without_its_classifier_fits(said, save, state_dict):
    tensors = {key: value for key, value in state_dict().items() if not key.startswith(("norm.", "head."))}
    assert_names(said(0, "verify", save(tensors, "encoder.pth")).out, "without", "norm and head")


LARGE = {"norm.bias": torch.full((768,), 1e300, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda tensors: tensors["head.bias"].copy_(torch.nan), ("not finite, ", "head.bias")),
        (lambda tensors: tensors.update(LARGE), ("not finite in float32", "norm.bias")),
    ],
)
def test_faults_are_named(save, state_dict, change, facts, said):
    tensors = {key: value.clone() for key, value in state_dict().items()}
    change(tensors)
    text = said(1, "verify", save({"model": tensors}, "some.pth")).out
    assert_names(" ".join(text.split()), *facts)


def test_a_vmamba_nobody_published(said, save, state_dict):
    tensors = {key: value for key, value in state_dict().items() if not key.startswith("layers.2.blocks.8")}
    text = said(1, "verify", save(tensors, "some.pth")).out
    assert_names(text, "nobody", "depths 2,2,8,2", "no trainer of this package")


def test_segmentation_models_are_recognised(said, save):
    from tests import golden

    shapes = golden.manifest()["swin_umamba_d"]["state_dict"]
    tensors = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    file = save({"network_weights": tensors, "trainer_name": "nnUNetTrainerSwinUMambaD_theirs"}, "theirs.pth")
    facts = ("authors", "swin_umamba_d", "swin-umamba model import", "swin-umamba weights fetch")
    assert_names(" ".join(said(1, "verify", file).out.split()), *facts)


def test_a_model_that_says_no_trainer_by_name_is_examined_all_the_same(said, save):
    file = save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": torch.zeros(2)}, "odd.pth")
    assert_names(said(1, "verify", file).err, file, "'network_weights'", "-pretrained_weights")


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"", "empty"),
        (b"\n\n<html lang='en'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n and so on", "PNG"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x80\x02 and then nothing of a pickle", "damaged"),
        (bytes(100_000), "not a PyTorch checkpoint"),
        (None, "exist"),
    ],
)
def test_what_is_no_checkpoint_at_all(said, tmp_path, content, telling):
    if content is not None:
        (tmp_path / "file.pth").write_bytes(content)
    assert_names(said(1, "verify", tmp_path / "file.pth").err, tmp_path / "file.pth", telling)


# -------------------------------------------------------------------------------------------------------------- path


def test_the_path_and_nothing_else(published, monkeypatch, tmp_path, said):
    captured = said(1, "path", TRAINER)
    assert captured.out == ""
    assert "swin-umamba weights fetch vmamba_tiny_v0" in captured.err
    path = published(folder=cache_folder())
    assert said(0, "path", TRAINER).out == f"{path}\n"
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    lines = said(0, "path").out.splitlines()
    assert (lines[0], lines[-1]) == (str(tmp_path / "mine"), str(cache_folder()))
