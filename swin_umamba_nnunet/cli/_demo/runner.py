"""Runs nnU-Net's commands as child processes: found, printed, streamed to the terminal and a log, stopped cleanly."""

import codecs
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.benchmark.process import _end as end_process
from swin_umamba_nnunet.benchmark.process import ended_by_signals
from swin_umamba_nnunet.cli.errors import CliError

_POSIX = os.name == "posix"


def child_environment(settings: dict[str, str]) -> dict[str, str]:
    """The variables a child gets on top of ours: `settings`, and what makes nnU-Net and our trainers findable."""
    additions = dict(settings)
    scripts = _scripts_folder()
    if shutil.which("nnUNetv2_train") is None:  # this environment was not activated
        additions["PATH"] = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    folders = [folder for folder in os.environ.get(_autoregister.VARIABLE, "").split(os.pathsep) if folder]
    if _autoregister.FOLDER not in folders:  # start-up lines do not run here, or were switched off
        additions[_autoregister.VARIABLE] = os.pathsep.join([*folders, _autoregister.FOLDER])
    return additions


def export_lines(additions: dict[str, str]) -> list[str]:
    """The lines that give a shell of the user's the same variables."""
    tail = os.pathsep + os.environ.get("PATH", "")
    lines = []
    for name, value in additions.items():
        if not _POSIX:
            lines.append(f"set {name}={value.removesuffix(tail) + ';%PATH%' if name == 'PATH' else value}")
        elif name == "PATH":
            lines.append(f'export PATH={shlex.quote(value.removesuffix(tail))}:"$PATH"')
        else:
            lines.append(f"export {name}={shlex.quote(value)}")
    return lines


def command_line(command: Sequence[str]) -> str:
    """The command as one would type it."""
    return shlex.join(command) if _POSIX else subprocess.list2cmdline(command)


def find_command(name: str) -> str:
    """Full path of one of nnU-Net's commands, preferably the one installed beside this interpreter.

    Raises:
        CliError: it is not installed.
    """
    places = os.pathsep.join([str(_scripts_folder()), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        raise CliError(
            f"nnU-Net's command {name} was found neither beside {sys.executable} nor on the PATH; "
            'install it with   pip install "nnunetv2>=2.8"'
        )
    return found


def run_command(command: Sequence[str], additions: dict[str, str], log: Path) -> int:
    """Run a command, show what it prints as it prints it, keep that in `log` too, and return the exit code.

    The child sits in a process group of its own, so that Ctrl-C reaches this process alone, which then ends the whole
    group: nnU-Net's worker processes would otherwise answer with a page of tracebacks each.
    """
    environment = {**os.environ, **additions, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"}
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with open(log, "ab") as log_file, ended_by_signals():
        process = subprocess.Popen(
            [find_command(command[0]), *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=_POSIX,
        )
        assert process.stdout is not None
        try:
            while chunk := process.stdout.read(65536):
                log_file.write(chunk)
                sys.stdout.write(decoder.decode(chunk))
                sys.stdout.flush()
            return process.wait()
        finally:
            end_process(process)
            process.stdout.close()


def _scripts_folder() -> Path:
    beside = Path(sys.executable).parent
    has_commands = any(beside.glob("nnUNetv2_train*"))
    return beside if has_commands else Path(sysconfig.get_path("scripts"))
