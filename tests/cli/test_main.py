"""The command as a whole: help, version, errors; quick because nothing heavy is imported."""

import argparse
import errno
import io
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from swin_umamba_nnunet import __version__, catalogue, cli
from swin_umamba_nnunet._text import UserError
from swin_umamba_nnunet.cli import list as list_verb
from swin_umamba_nnunet.cli import model
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


def parsers(parser):
    """A parser, and those of its verbs and actions."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help(verb, told):
    """Of every action too: a % in a text fails only when it is printed."""
    assert_names(told(0, verb, "--help").out, f"usage: swin-umamba {verb}", "--")
    for parser in parsers(cli._parser_for([verb])):
        assert max(map(len, parser.format_help().splitlines())) <= 120


def test_help_and_version_of_all(told):
    assert_names(told(0, "--help").out, *cli.VERBS, "swin-umamba demo")
    assert told(0) == told(0, "--help")
    assert __version__ in told(0, "--version").out


@pytest.mark.parametrize(
    ("typed", "facts"),
    [
        ("evalute", (" evalute;", " evaluate?", "swin-umamba --help")),
        ("Lists", (" Lists;", " list?", "swin-umamba --help")),
        ("xyz", ("xyz", *cli.VERBS)),
        *((verb, (f" {verb} ", today)) for verb, today in cli.FORMER_VERBS.items()),
    ],
)
def test_what_is_no_verb_is_answered_with_the_nearest_or_todays_or_all(typed, facts, told):
    said = told(2, typed, "--some", "option")
    assert_names(said.err, *facts)
    assert said.out == ""


def test_what_a_verb_is_called_today_is_there(told):
    for today in cli.FORMER_VERBS.values():
        command = today.partition("   ")[0]
        assert f"usage: {command} " in told(0, *command.split()[1:], "--help").out


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
    ("error", "code", "named"),
    [
        (UserError("found this"), 2, "found this"),
        (UserError("found this", 7), 7, "found this"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), 1, "a" * 300 + ": File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "/folder"), 1, "/folder: Permission denied"),
        (MemoryError("Unable to allocate 4 PiB"), 1, "Unable to allocate 4 PiB"),
        (SyntaxError("invalid syntax", ("mine.py", 3, 1, "class A(:")), 1, "mine.py, line 3: invalid syntax"),
    ],
)
def test_what_the_user_or_the_machine_can_put_right_is_one_sentence(error, code, named, monkeypatch, told):
    monkeypatch.setattr(list_verb, "run", _raising(error))
    (line,) = told(code, "list").err.strip().splitlines()
    assert line.startswith("swin-umamba list: ")
    assert named in line


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), FileNotFoundError(errno.ENOENT, "absent", "x"), BrokenPipeError("a worker died")]
)
def test_an_error_of_ours_keeps_its_traceback_whatever_its_kind(error, monkeypatch, capsys):
    monkeypatch.setattr(list_verb, "run", _raising(error))
    with pytest.raises(type(error)):
        cli.main(["list"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [["list"], ["--help"]])
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
        monkeypatch.setattr(list_verb, "run", _raising(UserError("found this")))
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


def test_list_shows_where_to_start_and_every_trainer_can_be_spelt_from_it(told):
    """The family's first name and its endings, all of which are explained."""
    lines = told(0, "list").out.splitlines()
    assert len(lines) < 45  # one screen
    first = lines[2].split("-tr ")[1].split()[0]
    assert not catalogue.get_trainer(first).pretrained  # needs no file
    text = "\n".join(lines).replace("\n      ", " ")
    assert_names(text, "--all", *(part for each in catalogue.NETWORKS for part in (f"({each.title})", each.summary)))
    assert_names(text, *(length.suffix for length in catalogue.LENGTHS))
    found = re.findall(r"^  (nnUNetTrainer\w+)   .*?\(\+ ([\w, ]+)\)$", text, re.MULTILINE)
    spelt = {first + ending for first, endings in found for ending in ("", *endings.split(", "))}
    assert spelt == {record.name for record in catalogue.TRAINERS}
    endings = {ending.removesuffix("Scratch") for _, endings in found for ending in endings.split(", ")}
    assert_names(" ".join(list_verb._ENDINGS), *endings)


def test_other_lists_hold_the_catalogue(told):
    text = told(0, "list", "--all").out.replace("\n      ", " ")
    assert_names(text, *(part for record in catalogue.TRAINERS for part in (record.name, record.summary)))
    assert_names(text, *(length.suffix for length in catalogue.LENGTHS))
    assert tuple(told(0, "list", "--names").out.split()) == catalogue.trainer_names()
    listed = json.loads(told(0, "list", "--json").out)
    assert [each["name"] for each in listed["networks"]] == [record.name for record in catalogue.NETWORKS]
    names = [name for each in listed["trainers"] for name in (each["name"], *each["variants"])]
    assert tuple(names) == catalogue.trainer_names()


@pytest.mark.parametrize("text", ["DESCRIPTION", "IMPORT", "ADAPT", "EXPORT"])
def test_the_commands_in_a_description_can_be_typed(text):
    assert printed(getattr(model, text), "swin-umamba")
    printed(getattr(model, text), "nnUNetv2_train")
