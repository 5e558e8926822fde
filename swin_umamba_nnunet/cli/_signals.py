"""What verbs that wait for child processes do about signals."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A closed terminal or `kill` ends this process as Ctrl-C does, children included: by SystemExit(128 + signal)."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has one
    # nohup ignores SIGHUP, and that is to stay so; None is a handler that Python cannot bring back
    numbers = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    try:
        former = {number: signal.signal(number, leave) for number in numbers}
    except ValueError:  # not in the main thread: signals are someone else's business
        former = {}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
