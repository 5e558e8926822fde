"""Running commands: what a child sees, what the user sees, and that nothing runs on after an interruption."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet.cli._demo import runner
from swin_umamba_nnunet.cli.errors import CliError
from tests.messages import naming


@pytest.fixture
def python(monkeypatch):
    """Commands are Python one-liners: `["python", "-c", CODE]`."""
    monkeypatch.setattr(runner, "find_command", lambda name: sys.executable)


def test_output_is_shown_and_logged(python, tmp_path, capsys):
    code = "import sys; print('to stdout'); print('ü to stderr', file=sys.stderr); sys.exit(7)"
    log = tmp_path / "log"
    assert runner.run_command(["python", "-c", code], {}, log) == 7
    shown = capsys.readouterr().out
    assert "to stdout" in shown
    assert "ü to stderr" in shown
    assert log.read_text(encoding="utf-8") == shown


def test_additions_reach_the_child_and_only_the_child(python, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/the/users/own")
    code = "import os; print(os.environ['nnUNet_raw'])"
    runner.run_command(["python", "-c", code], {"nnUNet_raw": "/the/demos"}, tmp_path / "log")
    assert capsys.readouterr().out.strip() == "/the/demos"
    assert dict(os.environ)["nnUNet_raw"] == "/the/users/own"


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_interruption_ends_the_child_and_its_workers(python, tmp_path, monkeypatch):
    worker = f"[{sys.executable!r}, '-c', 'import time; time.sleep(60)']"
    code = f"import subprocess, time; print(subprocess.Popen({worker}).pid, flush=True); time.sleep(60)"
    shown = []

    def press_ctrl_c(text):
        shown.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.sys.stdout, "write", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        runner.run_command(["python", "-c", code], {}, tmp_path / "log")
    worker_pid = int(shown[0])
    for _ in range(100):  # init reaps it; a zombie counts as gone
        if not os.path.exists(f"/proc/{worker_pid}") or _state(worker_pid) == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child's worker still runs")


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_trainers_are_registered_for_the_child_once(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", "/my/trainers")
    additions = runner.child_environment({})
    assert additions["nnUNet_extTrainer"] == f"/my/trainers{os.pathsep}{_autoregister.FOLDER}"
    monkeypatch.setenv("nnUNet_extTrainer", additions["nnUNet_extTrainer"])
    assert "nnUNet_extTrainer" not in runner.child_environment({})


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_printed_lines_do_what_the_demo_does(tmp_path, monkeypatch):
    """The lines, typed into a shell, give the same variables; spaces and quotes included."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    additions = {"nnUNet_raw": str(tmp_path / "it's here"), "PATH": f"/my bin{os.pathsep}{os.environ['PATH']}"}
    show = [sys.executable, "-c", "import os; print(os.environ['nnUNet_raw']); print(os.environ['PATH'])"]
    script = "\n".join([*runner.export_lines(additions), runner.command_line(show)])
    shell = shutil.which("sh")
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(additions.values())


def test_a_missing_command_says_how_to_install_nnunet(monkeypatch):
    monkeypatch.setattr(runner.shutil, "which", lambda name, path=None: None)
    with pytest.raises(CliError, match=naming("nnUNetv2_train", "PATH", "pip install", "nnunetv2")):
        runner.find_command("nnUNetv2_train")


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_kill_or_a_closed_terminal_ends_the_child_too(tmp_path):
    """SIGTERM to the demo's process: the child must not train on alone."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        "import pathlib, sys\nfrom swin_umamba_nnunet.cli._demo import runner\n"
        "runner.find_command = lambda name: sys.executable\n"
        f"runner.run_command(['python', '-c', {child!r}], {{}}, pathlib.Path({str(tmp_path / 'log')!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with process:
        child_pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait(20) == 143
    assert not os.path.exists(f"/proc/{child_pid}")
