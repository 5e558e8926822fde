"""`swin-umamba weights` with made-up checkpoints, folders as mirrors, and a server that misbehaves."""

import dataclasses
import logging
import subprocess
import sys

import pytest
import torch

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli import weights
from swin_umamba_nnunet.cli._weights import names
from swin_umamba_nnunet.pretrained import cache_folder, locate, registry
from tests.commands import printed
from tests.pretrained.conftest import save, secluded, server, state_dict  # noqa: F401  (fixtures)

TRAINER = "nnUNetTrainerSwinUMamba"


@pytest.fixture
def published(monkeypatch, state_dict, tmp_path):  # noqa: F811
    """A function that writes a checkpoint as if its authors had published that very file; returns its path."""

    def publish(name="vmamba_tiny_v0", folder=tmp_path / "mirror", url=None, **values):
        record = registry.get_record(name)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"model": state_dict(name)}, path := folder / record.file_name)
        known = {"size_bytes": path.stat().st_size, "sha256": None, "mirrors": (), **values}
        record = dataclasses.replace(record, **known, **({"url": url} if url else {}))
        records = tuple(record if one.name == name else one for one in registry.RECORDS)
        for module in (registry, weights, "swin_umamba_nnunet.pretrained.variants"):
            target = f"{module}.RECORDS" if isinstance(module, str) else f"{module.__name__}.RECORDS"
            monkeypatch.setattr(target, records)
        return path

    return publish


def run(*argv):
    return cli.main(["weights", *map(str, argv)])


# -------------------------------------------------------------------------------------------------------------- list


def test_the_list_says_everything_about_every_checkpoint(capsys, published):
    published(folder=cache_folder())
    assert run("list") == 0
    text = capsys.readouterr().out
    for record in registry.RECORDS:
        for part in (record.name, record.file_name, str(record.top1_percent), record.url, *record.other_file_names):
            assert part in text
    assert text.count("not on this machine") == len(registry.RECORDS) - 1
    assert f"here      {cache_folder()}" in text
    words = text.replace("\n", " ").replace(",", " ").replace(";", " ").split()
    assert all(trainer.name in words for trainer in TRAINERS if trainer.pretrained)


def test_the_list_says_how_far_a_hash_is_trusted(capsys, monkeypatch):
    records = [
        dataclasses.replace(registry.RECORDS[0], sha256=digest, sha256_confirmed=trusted)
        for digest, trusted in (("a" * 64, True), ("b" * 64, False), (None, False))
    ]
    monkeypatch.setattr(weights, "RECORDS", records)
    run("list")
    text = capsys.readouterr().out
    assert f"{'a' * 64} (confirmed: another one is refused)" in text
    assert f"{'b' * 64} (second-hand" in text
    assert "unknown; size and the name and shape of every tensor" in text


def test_the_list_says_which_file_the_variable_names(capsys, monkeypatch, tmp_path):
    (tmp_path / "mine.pth").touch()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine.pth"))
    assert run("list") == 0
    text = capsys.readouterr().out
    assert f"SWIN_UMAMBA_WEIGHTS names {tmp_path / 'mine.pth'}" in text
    assert text.count("not on this machine") == len(registry.RECORDS)


def test_a_variable_that_names_nothing_is_told(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    assert run("list") == 1
    assert "SWIN_UMAMBA_WEIGHTS names" in capsys.readouterr().err


def test_list_and_help_import_no_torch():
    code = (
        "import sys\nfrom swin_umamba_nnunet import cli\ncli.main(['weights', 'list'])\n"
        "sys.exit(' '.join(name for name in ('torch', 'nnunetv2') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------------------------- fetch


@pytest.mark.parametrize("name", ["vmamba_tiny_v0", "swin_umamba", TRAINER, f"{TRAINER}_5epochs"])
def test_fetching_from_a_mirror_folder(capsys, published, name):
    source = published()
    assert run("fetch", name, "--from", source.parent) == 0
    assert (cache_folder() / source.name).read_bytes() == source.read_bytes()
    text = capsys.readouterr().out
    assert "fetched" in text
    assert "every tensor as published" in text
    assert run("fetch", name) == 0
    assert "was there already" in capsys.readouterr().out


def test_fetching_from_a_file_and_from_a_file_address(published, tmp_path):
    source = published()
    for i, mirror in enumerate((source, source.as_uri(), source.parent.as_uri())):
        assert run("fetch", TRAINER, "--from", mirror, "--to", tmp_path / f"to {i}") == 0
        assert (tmp_path / f"to {i}" / source.name).read_bytes() == source.read_bytes()


def test_fetching_from_the_network_resumes_and_says_so(capsys, published, server):  # noqa: F811
    source = published(url=server.url)
    server.content = source.read_bytes()
    server.script = ["break 10000", "break 0"]
    assert run("fetch", TRAINER) == 1
    captured = capsys.readouterr()
    assert "broke off after 10,000" in captured.err
    assert "resuming" in captured.err
    assert "--from FOLDER" in captured.err
    assert run("fetch", TRAINER) == 0
    assert server.requests[-1]["Range"] == "bytes=10000-"
    assert (cache_folder() / source.name).read_bytes() == server.content


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"<!DOCTYPE html><html>Please log in</html>", "text/html", "web page"),
        (b"PK\x03\x04" + bytes(100_000), "application/octet-stream", "cannot read it"),
        (b"wrong bytes", "application/octet-stream", "offers 11 bytes, expected"),
    ],
)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(capsys, published, server, content, kind, message):  # noqa: F811
    published(url=server.url, **({} if content == b"wrong bytes" else {"size_bytes": None}))
    server.content, server.content_type = content, kind
    assert run("fetch", TRAINER) == 1
    assert message in capsys.readouterr().err
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]


def test_a_checkpoint_of_another_network_is_refused(capsys, published, tmp_path):
    published()
    other = published("vmamba_small_v0")
    other.rename(tmp_path / "mirror" / registry.get_record("vmamba_tiny_v0").file_name)
    assert run("fetch", TRAINER, "--from", tmp_path / "mirror") == 1
    assert "expected" in capsys.readouterr().err
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]


def test_a_broken_file_under_a_published_name_is_told(capsys, published):
    path = published(folder=cache_folder())
    path.write_bytes(path.read_bytes()[:-100])
    assert run("fetch", TRAINER) == 1
    assert "truncated or damaged" in capsys.readouterr().err


def test_fetching_all_goes_on_past_a_failure(capsys, published, tmp_path):
    published()
    published("vmamba_tiny_v2")
    assert run("fetch", "--all", "--from", tmp_path / "mirror") == 1
    text = capsys.readouterr().out
    assert "2 of 6 checkpoints are there" in text
    assert "vmamba_base_v0: the mirror" in text
    assert len([path for path in cache_folder().iterdir() if path.suffix == ".pth"]) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "name what to fetch"),
        (("vmamba_tiny_v0", "--all"), "name what to fetch"),
        (("vmamba_tini_v0",), "did you mean vmamba_tiny_v0?"),
        ((f"{TRAINER}Scratch",), "starts from random weights"),
        (("nnUNetTrainerNonsense",), "no trainer is called 'nnUNetTrainerNonsense'; `swin-umamba list`"),
        ((f"{TRAINER}D2",), f"did you mean {TRAINER}DV2, {TRAINER}D or "),
        (("--all", "--from", "https://example.org/a.pth"), "is one file"),
    ],
)
def test_names_nobody_knows(capsys, argv, message):
    assert run("fetch", *argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("mirror", "message"), [("nodir", "nodir does not exist"), ("http://a.b/c/", "only https://")])
def test_a_mirror_that_is_none_is_told_once(capsys, tmp_path, monkeypatch, mirror, message):
    monkeypatch.chdir(tmp_path)
    assert run("fetch", "--all", "--from", mirror) == 1
    said = capsys.readouterr()
    assert said.err.count(message) == 1
    assert said.out == ""


def test_an_address_without_encryption_is_refused(capsys):
    assert run("fetch", TRAINER, "--from", "http://example.org/weights/") == 1
    assert "only https:// and file://" in capsys.readouterr().err


def test_the_logger_is_left_as_it_was(published):
    logger = logging.getLogger("swin_umamba_nnunet.pretrained.download")
    before = (logger.level, list(logger.handlers))
    run("fetch", TRAINER, "--from", published().parent)
    assert (logger.level, list(logger.handlers)) == before


# ------------------------------------------------------------------------------------------------------------ verify


@pytest.mark.parametrize("name", [record.name for record in registry.RECORDS if "base" not in record.name])
def test_a_file_is_recognised_whatever_its_name(capsys, save, state_dict, name):  # noqa: F811
    record = registry.get_record(name)
    fitting = {name for each in names.trainers_from(record) for name in each}
    assert run("verify", save({"model": state_dict(name)}, "some.pth")) == (0 if fitting else 1)
    text = capsys.readouterr().out
    assert f"{record.title} (depths" in text
    assert f"generation {record.generation}" in text
    assert "norm and head as published" in text
    words = text.partition("What fits")[0].replace(",", " ").split()
    assert {trainer.name for trainer in TRAINERS} & set(words) == fitting


def test_a_file_for_other_trainers_says_which_one_fits(capsys, save, state_dict):  # noqa: F811
    file = save({"model": state_dict("vmamba_small_v0")}, "some.pth")
    assert run("verify", file, "--for", TRAINER) == 1
    text = capsys.readouterr().out
    assert f"{TRAINER}: vssmtiny_dp01_ckpt_epoch_292.pth" in text
    assert "swin-umamba weights fetch vmamba_tiny_v0" in text
    assert [command.names for command in printed(text, "swin-umamba")] == [["vmamba_tiny_v0"]]
    assert run("verify", file, "--for", "nnUNetTrainerVMUNet") == 0


@pytest.mark.filterwarnings("ignore:`torch.jit.interface` is deprecated:FutureWarning")
def test_a_trainer_of_the_users_own_is_known_by_what_it_is_built_on(
    capsys, published, save, state_dict, tmp_path, monkeypatch  # noqa: F811
):  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_weights_trainers.py").write_text(
        "from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaD\n"
        "class nnUNetTrainerMine(nnUNetTrainerSwinUMambaD):\n"
        "    pass\n"
        "class nnUNetTrainerMineSmall(nnUNetTrainerSwinUMambaD):\n"
        "    imagenet_weights = 'vmamba_small_v0'\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "mine"))
    path = published(folder=cache_folder())
    assert run("path", "nnUNetTrainerMine") == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert run("verify", path, "--for", "nnUNetTrainerMine") == 0
    assert run("verify", path, "--for", "nnUNetTrainerMineSmall") == 1
    assert "nnUNetTrainerMineSmall: vssmsmall" in capsys.readouterr().out
    trained = save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": "nnUNetTrainerMine"}, "mine.pth")
    assert run("verify", trained) == 1
    assert "trained with nnUNetTrainerMine built on one of this package" in " ".join(capsys.readouterr().out.split())
    assert run("path", "nnUNetTrainerYours") == 2
    assert "no trainer is called 'nnUNetTrainerYours'" in capsys.readouterr().err


def test_a_published_file_is_compared_with_the_registry(capsys, published):
    path = published(sha256="0" * 64)
    assert run("verify", path) == 0
    text = capsys.readouterr().out
    assert "bytes, as published" in text
    assert "different from the registry's, which is not confirmed" in text
    path = published(sha256="0" * 64, sha256_confirmed=True)
    assert run("verify", path) == 1
    assert f"its sha256 differs from that of the published file of its name, {'0' * 64}" in " ".join(
        capsys.readouterr().out.split()
    )


def test_another_size_under_a_published_name_is_a_fault_and_under_another_name_is_not(capsys, published, tmp_path):
    path = published(size_bytes=5)
    assert run("verify", path) == 1
    assert "a copy saved again needs another name" in " ".join(capsys.readouterr().out.split())
    assert run("verify", path.rename(tmp_path / "resaved.pth")) == 0


def test_an_encoder_without_its_classifier_fits(capsys, save, state_dict):  # noqa: F811
    tensors = {key: value for key, value in state_dict().items() if not key.startswith(("norm.", "head."))}
    assert run("verify", save(tensors, "encoder.pth")) == 0
    assert "without the published norm and head" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("layers.0.blocks.0.ln_1.weight"), "1 missing: layers.0.blocks.0.ln_1.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda tensors: tensors["head.bias"].copy_(torch.nan), "not finite, the first in head.bias"),
    ],
)
def test_faults_are_named(capsys, save, state_dict, change, message):  # noqa: F811
    tensors = {key: value.clone() for key, value in state_dict().items()}
    change(tensors)
    assert run("verify", save({"model": tensors}, "some.pth")) == 1
    assert message in " ".join(capsys.readouterr().out.split())


def test_a_vmamba_nobody_published(capsys, save, state_dict):  # noqa: F811
    tensors = {key: value for key, value in state_dict().items() if not key.startswith("layers.2.blocks.8")}
    assert run("verify", save(tensors, "some.pth")) == 1
    text = capsys.readouterr().out
    assert "a VMamba nobody published (depths 2,2,8,2" in text
    assert "no trainer of this package" in text


def test_the_authors_segmentation_models_are_recognised(capsys, save):  # noqa: F811
    from tests import golden

    shapes = golden.manifest()["swin_umamba_d"]["state_dict"]
    tensors = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    file = save({"network_weights": tensors, "trainer_name": "nnUNetTrainerSwinUMambaD_theirs"}, "theirs.pth")
    assert run("verify", file) == 1
    text = capsys.readouterr().out
    assert "authors' segmentation model swin_umamba_d" in text
    assert "import-checkpoint" in text
    assert "What fits instead" in text


def test_a_model_that_says_no_trainer_by_name_is_examined_all_the_same(capsys, save):  # noqa: F811
    file = save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": torch.zeros(2)}, "odd.pth")
    assert run("verify", file) == 1
    assert "is an nnU-Net checkpoint" in capsys.readouterr().err


def test_a_model_of_this_package_is_recognised(capsys, save):  # noqa: F811
    file = save({"network_weights": {"a": torch.zeros(1)}, "trainer_name": f"{TRAINER}_5epochs"}, "ours.pth")
    assert run("verify", file) == 1
    assert f"trained with {TRAINER}_5epochs of this package" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_checkpoint_at_all(capsys, tmp_path, content, message):
    if content is not None:
        (tmp_path / "file.pth").write_bytes(content)
    assert run("verify", tmp_path / "file.pth") == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_file_that_is_not_there_is_told_without_loading_torch(tmp_path):
    code = (
        "import sys\nfrom swin_umamba_nnunet import cli\n"
        f"code = cli.main(['weights', 'verify', {str(tmp_path / 'absent.pth')!r}])\n"
        "sys.exit(' '.join(name for name in ('torch', 'nnunetv2') if name in sys.modules) or code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "absent.pth does not exist" in done.stderr
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_weights_of_something_else(capsys, save):  # noqa: F811
    assert run("verify", save({"conv1.weight": torch.zeros(3)}, "resnet.pth")) == 1
    assert "no VMamba backbone" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- path


def test_the_path_and_nothing_else(capsys, published):
    path = published(folder=cache_folder())
    assert run("path", TRAINER) == 0
    assert capsys.readouterr().out == f"{path}\n"


def test_no_path(capsys):
    assert run("path", TRAINER) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "swin-umamba weights fetch vmamba_tiny_v0" in captured.err


def test_the_folders_in_order(capsys, monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv(locate.ENVIRONMENT_VARIABLE, str(tmp_path / "mine"))
    assert run("path") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(tmp_path / "mine")
    assert lines[-1] == str(cache_folder())
