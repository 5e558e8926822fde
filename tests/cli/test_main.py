"""The command as a whole: help, version, errors; quick because nothing heavy is imported."""

import importlib
import json
import subprocess
import sys

import pytest

from swin_umamba_nnunet import __version__, catalogue, cli
from swin_umamba_nnunet.cli import list_trainers
from swin_umamba_nnunet.cli.errors import CliError
from tests.commands import printed

HEAVY = ("torch", "nnunetv2", "numba", "matplotlib", "nilearn", "SimpleITK")


def _output(capsys, *argv, code=0):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == code
    return capsys.readouterr()


def test_help_names_every_verb(capsys):
    text = _output(capsys, "--help").out
    assert all(verb in text for verb in cli.VERBS)
    assert "swin-umamba demo" in text


def test_no_verb_prints_the_help(capsys):
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_version(capsys):
    assert __version__ in _output(capsys, "--version").out


@pytest.mark.parametrize("verb", ["demo", "list", "doctor"])
def test_help_of_a_verb(verb, capsys):
    text = _output(capsys, verb, "--help").out
    assert f"usage: swin-umamba {verb}" in text
    assert len(text.splitlines()) > 5


@pytest.mark.parametrize(("typo", "verb"), [("dmeo", "demo"), ("evalute", "evaluate"), ("Lists", "list")])
def test_a_mistyped_verb_is_answered_with_the_nearest(typo, verb, capsys):
    said = _output(capsys, typo, "--some", "option", code=2)
    assert f"there is no verb {typo}; did you mean {verb}?" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_an_unknown_verb_is_answered_with_the_known_ones(capsys):
    text = _output(capsys, "xyz", code=2).err
    assert "xyz" in text
    assert all(verb in text for verb in cli.VERBS)


@pytest.mark.parametrize("argv", [["--help"], ["demo", "--help"], ["list"], ["doctor", "--help"]])
def test_help_and_list_import_nothing_heavy(argv):
    code = (
        "import sys\nfrom swin_umamba_nnunet import cli\n"
        f"try: cli.main({argv!r})\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_user_error_is_one_sentence_and_exit_code_2(monkeypatch, capsys):
    def refuse(args):
        raise CliError("found this, expected that, do so")

    monkeypatch.setattr(list_trainers, "run", refuse)
    assert cli.main(["list"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "swin-umamba list: found this, expected that, do so\n"
    assert captured.out == ""


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(list_trainers, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["list"])


def test_interrupted_without_a_traceback(monkeypatch, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_trainers, "run", interrupt)
    assert cli.main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_list_shows_every_trainer_and_length(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(record.name in text and record.summary in text.replace("\n      ", " ") for record in catalogue.TRAINERS)
    assert all(length.suffix in text for length in catalogue.LENGTHS)


def test_list_of_names_is_what_nnunet_accepts(capsys):
    assert cli.main(["list", "--names"]) == 0
    assert tuple(capsys.readouterr().out.split()) == catalogue.trainer_names()


def test_list_as_json_holds_the_catalogue(capsys):
    assert cli.main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed["networks"]] == [record.name for record in catalogue.NETWORKS]
    names = [name for each in listed["trainers"] for name in (each["name"], *each["variants"])]
    assert tuple(names) == catalogue.trainer_names()


@pytest.mark.parametrize("verb", ["import-checkpoint", "adapt-checkpoint", "export"])
def test_the_commands_in_a_description_can_be_typed(verb):
    text = importlib.import_module(cli.VERBS[verb][0]).DESCRIPTION
    assert printed(text, "swin-umamba")
    printed(text, "nnUNetv2_train")
