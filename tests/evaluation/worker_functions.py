"""What the worker processes of the tests do; a module of its own, so that they import nothing else."""

import os
import signal
import time
from pathlib import Path


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep_then_touch(path):
    time.sleep(20)
    Path(path).touch()


def sleep_or_fail(path):
    """Fail at "", else be busy for long."""
    if not path:
        raise ZeroDivisionError
    sleep_then_touch(path)
