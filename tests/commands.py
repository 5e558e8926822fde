"""Commands that the program prints for the user to type."""

import argparse
import importlib.metadata
import shlex
from unittest import mock


class _ParsedError(Exception):
    """The command's parser has accepted its arguments."""


def parse_printed(line):
    """What a printed command's own parser makes of it: the command is installed, its entry point imported and called.

    Raises:
        AssertionError: no such command, or its parser refuses the arguments.
    """
    name, *arguments = shlex.split(line)
    entries = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert entries, f"no command is called {name!r}: {line}"
    (entry,) = entries
    found = []
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        found.append(parse_args(self, args, namespace))
        raise _ParsedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse), mock.patch("sys.argv", [name, *arguments]):
        try:
            entry.load()()
        except _ParsedError:
            return found[0]
        except SystemExit as refused:
            raise AssertionError(f"{name} refuses the arguments it is printed with: {line}") from refused
    raise AssertionError(f"{name} parses no arguments: {line}")


def printed(text, name):
    """Every command called `name` in what was printed, parsed; a command has a line of its own."""
    return [parse_printed(line) for line in text.splitlines() if line.strip().startswith(f"{name} ")]
