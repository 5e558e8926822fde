"""What a benchmark says about the machine it ran on."""

import contextlib
import platform
from pathlib import Path


def processor_name() -> str:
    """What this machine computes with if it has no GPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
