"""nnU-Net's own check of a raw dataset, in a process of its own (it prints, and starts worker processes)."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """\
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
if __name__ == "__main__":
    verify_dataset_integrity(sys.argv[1], int(sys.argv[2]))
    import torch
    print("torch sees a GPU:", torch.cuda.is_available())
"""
_GPU = "torch sees a GPU: "
_DONE = "verify_dataset_integrity Done"


@dataclass(frozen=True)
class Verdict:
    """What the check said.

    Attributes:
        passed: it ran to its end without an error.
        summary: one line.
        warnings: what it warned of, line by line.
        output: everything it printed.
        cuda: whether torch saw a GPU, which the check imports anyway; None where that is not known.
    """

    passed: bool
    summary: str
    warnings: tuple[str, ...] = ()
    output: str = ""
    cuda: bool | None = None


def check_integrity(dataset: Path, processes: int = 8) -> Verdict:
    """Run nnU-Net's verify_dataset_integrity on a raw dataset."""
    processes = max(1, min(processes, os.cpu_count() or 1))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(dataset), str(processes)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    return judge(done.returncode, done.stdout, done.stderr)


def judge(code: int, output: str, errors: str) -> Verdict:
    """The check's exit code and what it printed, as a verdict."""
    warnings = tuple(dict.fromkeys(line for line in output.splitlines() if line.lower().startswith("warning")))
    if code == 0 and _DONE in output:
        cuda = (_GPU + "True" in output) if _GPU in output else None
        return Verdict(True, "passed", warnings, output, cuda)
    said = [
        line for line in output.splitlines() if line.startswith(("Error", "Images contain", "Segmentation contains"))
    ]
    said += [line for line in errors.splitlines() if line.strip()][-1:]
    return Verdict(False, " ".join(said[:3])[:600] or f"exit code {code}", warnings, output + errors)
