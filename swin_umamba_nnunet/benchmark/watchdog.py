"""For children: not outliving the runner."""

import os
import signal
import threading
import time

_SECONDS_BETWEEN_LOOKS = 1.0


def end_with_parent() -> None:
    """End this process and its workers when the one that started it is gone, however that ended.

    Else a training whose runner was killed would go on, and the next runner would start a second one beside it.  Does
    nothing on Windows.
    """
    if os.name != "posix":
        return
    # SLURM sends these to every process of a job to say that time is nearly up; the runner acts on them.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if os.getpgid(0) == os.getpid():  # a group of our own, as the runner gives us: augmentation workers too
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
