"""Child processes: logged, stopped with everything they started."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from swin_umamba_nnunet.benchmark.process import Interrupted, command_line, describe_exit, export_lines, run_child, tail


def python(code):
    return [sys.executable, "-c", code]


def wait_for_the_end_of(pid, seconds=20.0):
    end = time.monotonic() + seconds
    with contextlib.suppress(FileNotFoundError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < end
            time.sleep(0.02)


def test_exit_code_environment_and_log(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/the/users/own")
    log = tmp_path / "logs" / "x.log"
    code = "import os, sys; print(os.environ['nnUNet_raw']); print('\u00fc to stderr', file=sys.stderr); sys.exit(5)"
    assert run_child(python(code), {"nnUNet_raw": "/given"}, log) == 5
    assert capsys.readouterr().out == ""
    run_child(python("print('second \u00fc')"), {}, log, echo=True)
    assert capsys.readouterr().out == "second \u00fc\n"
    text = log.read_text(encoding="utf-8")
    for part in ("$ ", "/given", "\u00fc to stderr", "second \u00fc\n"):
        assert part in text
    assert dict(os.environ)["nnUNet_raw"] == "/the/users/own"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("by", ["stop", "Ctrl-C"])
def test_an_end_ends_children_and_grandchildren(tmp_path, monkeypatch, by):
    stop, pids = threading.Event(), []
    code = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
print(f'{os.getpid()} {child.pid}')
time.sleep(60)
"""

    def look(text):  # called at every look, with what there is to show
        if text:
            pids.extend(map(int, text.split()))
            if by == "Ctrl-C":
                raise KeyboardInterrupt
            stop.set()

    monkeypatch.setattr(sys.stdout, "write", look)
    with pytest.raises(Interrupted if by == "stop" else KeyboardInterrupt):
        run_child(python(code), {}, tmp_path / "log", stop, echo=True)
    assert len(pids) == 2
    for pid in pids:
        wait_for_the_end_of(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_kill_or_a_closed_terminal_ends_the_child_too(tmp_path):
    """SIGTERM to the runner's process: the child must not train on alone."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        "import pathlib, sys\nfrom swin_umamba_nnunet.benchmark.process import ended_by_signals, run_child\n"
        "with ended_by_signals():\n"
        f"    run_child([sys.executable, '-c', {child!r}], {{}}, pathlib.Path({str(tmp_path / 'log')!r}), echo=True)"
    )
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as process:
        child_pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait(20) == 143
    wait_for_the_end_of(child_pid, seconds=0)


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
def test_printed_lines_give_a_shell_the_same(tmp_path):
    """Spaces and quotes included."""
    show = python("import os; print(os.environ['nnUNet_raw'])")
    script = "\n".join([*export_lines({"nnUNet_raw": f"{tmp_path}/it's here"}), command_line(show)])
    done = subprocess.run([shutil.which("sh"), "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path}/it's here\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_ended_by_somebody_else_is_not_a_failure(tmp_path):
    with pytest.raises(Interrupted):
        run_child(python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), {}, tmp_path / "log")
    code = run_child(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {}, tmp_path / "log")
    assert "memory runs out" in describe_exit(code)
    assert describe_exit(3) == "failed with exit code 3"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_does_not_outlive_a_killed_runner(tmp_path):
    child = (
        "import os, time; from swin_umamba_nnunet.benchmark.process import end_with_parent; end_with_parent()\n"
        "print(os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    runner = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True, stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), flush=True)
os.kill(os.getpid(), 9)
"""
    assert run_child(python(runner), {}, tmp_path / "log") == -9
    wait_for_the_end_of(tail(tmp_path / "log", 1))


def test_tail(tmp_path):
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("".join(f"line {number}\n\n" for number in range(100)) + "  0%\r 50%\r100%\nlast\n")
    assert tail(log, 3) == "line 99\n100%\nlast"
    log.write_bytes(b"\xff" * 100_000 + b"\nend")
    assert tail(log).endswith("end")
    assert len(tail(log, max_bytes=1000)) <= 1000
    log.write_bytes(b"\x1b[1;31mError\x1b[0m: no \x1b[2Kmemory\n\x1b[A\n")
    assert tail(log) == "Error: no memory"
