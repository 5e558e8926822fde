"""The command as a whole: help, version, errors; quick because nothing heavy is imported."""

import errno
import io
import json
import os
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

from swin_umamba_nnunet import __version__, catalogue, cli
from swin_umamba_nnunet.cli import list as list_verb
from swin_umamba_nnunet.cli import model
from swin_umamba_nnunet.cli.errors import CliError
from tests.commands import printed
from tests.messages import assert_names

HEAVY = {
    "torch",
    "nnunetv2",
    "numba",
    "matplotlib",
    "nilearn",
    "SimpleITK",
    "PIL",
    "h5py",
    "pandas",
    "scipy",
    "numpy",
    "tqdm",
    "filelock",
}


def _output(capsys, *argv, code=0):
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("--help", (*cli.VERBS, "swin-umamba demo")),
        ("--version", (__version__,)),
        *((f"{verb} --help", (f"usage: swin-umamba {verb}", "--")) for verb in cli.VERBS),
    ],
)
def test_help_and_version(line, facts, capsys):
    assert_names(_output(capsys, *line.split()).out, *facts)


def test_no_verb_prints_the_help(capsys):
    assert cli.main([]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("dmeo", (" dmeo;", " demo?", "swin-umamba --help")),
        ("evalute", (" evalute;", " evaluate?", "swin-umamba --help")),
        ("Lists", (" Lists;", " list?", "swin-umamba --help")),
        ("xyz", ("xyz", *cli.VERBS)),
        *((verb, (f" {verb} ", today)) for verb, today in cli.FORMER_VERBS.items()),
    ],
)
def test_what_is_no_verb_is_answered_with_the_nearest_or_todays_or_all(typed, facts, capsys):
    said = _output(capsys, typed, "--some", "option", code=2)
    assert_names(said.err, *facts)
    assert (said.err.count("\n"), said.out) == (1, "")


@pytest.mark.parametrize("today", [today for verb, today in cli.FORMER_VERBS.items() if verb != "bench"])
def test_what_a_verb_is_called_today_is_there(today, capsys):
    assert f"usage: {today} " in _output(capsys, *today.split()[1:], "--help").out


TOLD = ("weights verify absent", "weights fetch")  # a fault that shows without reading


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("--help", set()),
        ("demo --help", {"filelock"}),
        ("doctor --help", set()),
        ("describe --help", set()),
        ("list", set()),
        ("weights list", set()),
        ("convert images --help", set()),
        ("predict --help", set()),
        ("evaluate --help", {"numpy", "tqdm"}),  # its protocols state their options
        *((line, {"filelock", "tqdm"}) for line in TOLD),
    ],
)
def test_help_and_list_import_nothing_heavy(line, allowed):
    code = (
        "import sys\nfrom swin_umamba_nnunet import cli\n"
        f"try: cli.main({line.split()!r})\nexcept SystemExit: pass\n"
        f"print(sorted({HEAVY - allowed!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.count("\n") == (line in TOLD)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(CliError("found this"), 2, "swin-umamba list: found this\n"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_a_user_error_is_one_sentence_without_a_traceback(error, code, said, monkeypatch, capsys):
    monkeypatch.setattr(list_verb, "run", _raising(error))
    assert cli.main(["list"]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_the_package_is_a_command_too(monkeypatch, capsys):
    """`python -m swin_umamba_nnunet`, for whoever has the script of another environment first on the PATH."""
    monkeypatch.setattr(sys, "argv", ["swin_umamba_nnunet", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("swin_umamba_nnunet", run_name="__main__")
    assert __version__ in capsys.readouterr().out


@pytest.fixture
def tab(monkeypatch):
    """A function: what argcomplete, stood in for, is asked to complete a line with -> (parser, values of an action)."""
    asked = []

    def autocomplete(parser, default_completer):
        asked.append((parser, lambda action: tuple(default_completer("", action=action, parser=parser))))

    stand_in = SimpleNamespace(autocomplete=autocomplete, FilesCompleter=lambda: lambda prefix, **rest: ("a_file",))
    monkeypatch.setitem(sys.modules, "argcomplete", stand_in)
    monkeypatch.setenv("_ARGCOMPLETE", "1")

    def press(line):
        monkeypatch.setenv("COMP_LINE", line)
        assert cli.main([]) == 0
        return asked.pop()

    return press


def test_completion_knows_the_options_of_the_verb_that_is_typed(tab, capsys):
    parser, values = tab("swin-umamba describe --sha")
    actions = {action.dest: action for action in _verbs(parser)["describe"]._actions}
    assert "--shape" in actions["shape"].option_strings
    assert values(actions["trainer"]) == catalogue.trainer_names()
    assert values(actions["dataset"]) == ("a_file",)
    assert set(_verbs(tab("swin-umamba de")[0])) == set(cli.VERBS)
    assert capsys.readouterr().out == ""


def test_without_argcomplete_nothing_is_completed_and_nothing_run(tab, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("COMP_LINE", "swin-umamba list ")
    assert cli.main([]) == 1
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("_ARGCOMPLETE")
    assert cli.main(["list"]) == 0


def _verbs(parser):
    (verbs,) = (action for action in parser._actions if action.dest == "verb")
    return verbs.choices


def _raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "a" * 300 + ": File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "/folder"), "/folder: Permission denied"),
        (MemoryError("Unable to allocate 4 PiB"), "Unable to allocate 4 PiB"),
        (SyntaxError("invalid syntax", ("mine.py", 3, 1, "class A(:")), "mine.py, line 3: invalid syntax"),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(error, named, monkeypatch, capsys):
    monkeypatch.setattr(list_verb, "run", _raising(error))
    assert cli.main(["list"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("swin-umamba list: ")
    assert named in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), FileNotFoundError(errno.ENOENT, "absent", "x"), BrokenPipeError("a worker died")]
)
def test_an_error_of_ours_keeps_its_traceback_whatever_its_kind(error, monkeypatch, capsys):
    monkeypatch.setattr(list_verb, "run", _raising(error))
    with pytest.raises(type(error)):
        cli.main(["list"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [["list"], ["list", "--names"], ["--help"], ["weights", "list"]])
@pytest.mark.parametrize("buffered", [True, False])
def test_output_that_cannot_be_written_is_said(argv, buffered, monkeypatch, capsys):
    with open("/dev/full", "wb", buffering=-1 if buffered else 0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=not buffered))
        assert cli.main(argv) == 1
        said = capsys.readouterr().err
        assert_names(said, "output", "No space left on device")
        assert said.count("\n") == 1
        print("Python's own flush at the end does not fail")
        sys.stdout.close()


def test_a_reader_that_has_left_is_no_error_to_tell(monkeypatch, capsys):
    """`swin-umamba list | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["list"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_leads_nowhere(closed, monkeypatch, capsys):
    """`2>&-`, after which an error would be printed to stdout."""
    if closed == "stderr":
        monkeypatch.setattr(list_verb, "run", _raising(CliError("found this")))
    monkeypatch.setattr(sys, closed, None)
    assert cli.main(["list"]) == (2 if closed == "stderr" else 0)
    getattr(sys, closed).close()
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_children_of_a_command_without_stderr_have_one():
    """The number 2 would else be that of the next file opened, in this process and in its children."""
    child = "subprocess.run([sys.executable, '-S', '-c', 'import os; os.fstat(2); print(7)'], check=True)"
    code = f"import os, subprocess, sys\nfrom swin_umamba_nnunet import cli\ncli.main(['list'])\nos.fstat(2)\n{child}"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, code], capture_output=True, check=False)
    assert done.stdout.split()[-1] == b"7"


def test_list_says_where_to_start_and_shows_the_families(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 45  # one screen
    assert text.startswith("Start here")
    first = text.splitlines()[2].split("-tr ")[1].split()[0]
    assert not catalogue.get_trainer(first).pretrained  # needs no file
    for network in catalogue.NETWORKS:
        assert f"({network.title})" in text
        assert network.summary in text.replace("\n      ", " ")
    assert all(length.suffix in text for length in catalogue.LENGTHS)
    assert "--all" in text


def test_every_trainer_can_be_spelt_from_the_list(capsys):
    """The family's first name and its endings, all of which are explained."""
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out.replace("\n      ", " ")
    found = re.findall(r"^  (nnUNetTrainer\w+)   .*?\(\+ ([\w, ]+)\)$", text, re.MULTILINE)
    spelt = {first + ending for first, endings in found for ending in ("", *endings.split(", "))}
    assert spelt == {record.name for record in catalogue.TRAINERS}
    explained = " ".join(list_verb._ENDINGS)
    for ending in {ending.removesuffix("Scratch") for _, endings in found for ending in endings.split(", ")}:
        assert ending in explained


def test_list_all_shows_every_trainer_and_length(capsys):
    assert cli.main(["list", "--all"]) == 0
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


@pytest.mark.parametrize("text", ["DESCRIPTION", "IMPORT", "ADAPT", "EXPORT"])
def test_the_commands_in_a_description_can_be_typed(text):
    assert printed(getattr(model, text), "swin-umamba")
    printed(getattr(model, text), "nnUNetv2_train")
