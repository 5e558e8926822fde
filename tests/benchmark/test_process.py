"""Child processes: logged, stopped with everything they started."""

import os
import sys
import threading
import time

import pytest

from swin_umamba_nnunet.benchmark.process import Interrupted, describe_exit, run_child, tail


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_exit_code_environment_and_log(tmp_path):
    log = tmp_path / "logs" / "x.log"
    code = "import os, sys; print(os.environ['SPECIAL']); print('to stderr', file=sys.stderr); sys.exit(5)"
    assert run_child(python(code), {"SPECIAL": "given"}, log) == 5
    run_child(python("print('second')"), {}, log)
    text = log.read_text()
    for part in ("$ ", "given", "to stderr", "second"):
        assert part in text


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_stop_ends_children_and_grandchildren(tmp_path):
    stop, pids = threading.Event(), tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r} + '.part', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids)!r} + '.part', {str(pids)!r})\n"
        "time.sleep(60)\n"
    )

    def end():
        wait_for(pids.exists)
        stop.set()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Interrupted):
        run_child(python(code), {}, tmp_path / "log", stop)
    thread.join()
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: not is_alive(pid))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_ended_by_somebody_else_is_not_a_failure(tmp_path):
    with pytest.raises(Interrupted):
        run_child(python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), {}, tmp_path / "log")
    code = run_child(python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), {}, tmp_path / "log")
    assert "memory runs out" in describe_exit(code)
    assert describe_exit(3) == "failed with exit code 3"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_child_does_not_outlive_a_killed_runner(tmp_path):
    pid_file = tmp_path / "pid"
    child = (
        "import os, time; from swin_umamba_nnunet.benchmark.process import end_with_parent; end_with_parent()\n"
        f"open({str(pid_file)!r} + '.part', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(pid_file)!r} + '.part', {str(pid_file)!r})\n"
        "time.sleep(60)"
    )
    runner = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        f"while not os.path.exists({str(pid_file)!r}): time.sleep(0.02)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert run_child(python(runner), {}, tmp_path / "log") == -9
    wait_for(lambda: not is_alive(int(pid_file.read_text())))


def test_tail(tmp_path):
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("".join(f"line {number}\n\n" for number in range(100)) + "  0%\r 50%\r100%\nlast\n")
    assert tail(log, 3) == "line 99\n100%\nlast"
    log.write_bytes(b"\xff" * 100_000 + b"\nend")
    assert tail(log).endswith("end")
    assert len(tail(log, max_bytes=1000)) <= 1000


def test_tail_is_without_colours(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\x1b[1;31mError\x1b[0m: no \x1b[2Kmemory\n\x1b[A\n")
    assert tail(log) == "Error: no memory"
