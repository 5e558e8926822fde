"""On a real SLURM: a benchmark of two runs, one requeued by hand, one that reaches its time limit; both end complete.

    tests/slurm/one_node_cluster.sh python tests/slurm/check_resume.py

Not collected by pytest: it wants a cluster and takes minutes.  Last run on 2026-11-21 with SLURM 22.05.8 and
submitit 1.5.4, as one job array: 10 min 4 s on two cores busy with other work (apt-get install took another 20 s).  An
idle machine has not been timed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests import synthetic_dataset as dataset  # noqa: E402

EPOCHS = 60
TRAINERS = f'''
import time

from swin_umamba_nnunet.trainers import nnUNetTrainerSwinUMambaDScratch


class Requeued(nnUNetTrainerSwinUMambaDScratch):
    """A small network and epochs that last long enough to be killed in."""

    network_settings = {{"depths": (1, 1, 1, 1), "decoder_depth": 1, "width": 16, "d_state": 2}}
    num_epochs = {EPOCHS}
    num_iterations_per_epoch = 1
    num_val_iterations_per_epoch = 1
    pause_s = 1

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        time.sleep(self.pause_s)


class TimedOut(Requeued):
    """Longer than SLURM will let it run."""

    pause_s = 2
'''
# SLURM looks every half minute which jobs are near their limit: the signal comes 75 to 135 s after the start.
CONFIG = """
output = "bench"
datasets = [901]
device = "cpu"
checkpoint_minutes = 0

[[trainers]]
name = "Requeued"

[[trainers]]
name = "TimedOut"

[slurm]
time = 3
signal_delay_s = 45
cpus_per_task = 1
"""
CLI = [sys.executable, "-m", "swin_umamba_nnunet"]


def main() -> None:
    """Prepare, submit, disturb, wait, compare."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="slurm_check_"))
    try:
        _prepare(folder)
        print(f"[{time.monotonic() - began:4.0f} s] dataset preprocessed", flush=True)
        submit = [*CLI, "benchmark", "run", "--config", "bench.toml", "--launcher", "slurm"]
        print(_run(*submit, folder=folder), flush=True)
        jobs = {
            name.split("/")[1].split("__")[0]: entry["job"]
            for name, entry in json.loads((folder / "bench/slurm/jobs.json").read_text()).items()
        }
        assert {job.rpartition("_")[2] for job in jobs.values()} == {"0", "1"}, jobs  # one job array
        requeued, timed_out = (_Cell(folder, name) for name in ("Requeued", "TimedOut"))

        again = _run(*submit, folder=folder)
        assert "0 submitted, 2 queued already" in again, again

        _wait("the first epochs", lambda: requeued.training.get("epoch", 0) >= 3, 240)
        _run("scontrol", "requeue", jobs["Requeued"], folder=folder)
        print(f"[{time.monotonic() - began:4.0f} s] job {jobs['Requeued']} requeued in its middle", flush=True)

        def both_done() -> bool:
            _hasten(jobs.values(), folder)
            return requeued.is_done and timed_out.is_done

        _wait("both runs", both_done, 900)
        print(_run(*CLI, "benchmark", "status", "bench", folder=folder), flush=True)
        for run in (requeued, timed_out):
            run.check(_run("scontrol", "show", "job", jobs[run.trainer], folder=folder))
        log = "".join(path.read_text() for path in (folder / "bench/slurm").glob(f"{jobs['TimedOut']}*_log.*"))
        assert "this job is timed-out" in log, log
        assert "Requeued job" in log, log
        print(f"[{time.monotonic() - began:4.0f} s] both were interrupted, requeued, resumed and finished", flush=True)
    except BaseException:
        for path in sorted(folder.glob("bench/**/*.log")) + sorted(folder.glob("bench/slurm/*.err")):
            print(f"--- {path}\n" + "\n".join(path.read_text().splitlines()[-30:]))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Cell:
    def __init__(self, folder: Path, trainer: str) -> None:
        self.trainer = trainer
        key = f"{trainer}__nnUNetPlans__2d"
        self.folder = folder / "bench/cells" / dataset.NAME / key / "fold_0/seed_0"

    @property
    def record(self) -> dict[str, Any]:
        return self._read("cell.json")

    @property
    def training(self) -> dict[str, Any]:
        return self._read("training.json")

    @property
    def is_done(self) -> bool:
        assert self.record.get("state") != "failed", self.record
        return self.record.get("state") == "done"

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def check(self, job: str) -> None:
        """Interrupted at least once, and complete nevertheless: every epoch once."""
        record = self.record
        assert record["attempts"] >= 2, record["attempts"]
        assert record["training"]["resumed_at_epoch"], record["training"]
        assert 0 < record["training"]["resumed_at_epoch"][0] < EPOCHS
        assert len(record["curves"]["train_losses"]) == len(record["curves"]["epoch_end_timestamps"]) == EPOCHS
        assert any("--c" in command for command in record["commands"])
        assert (self.folder / "evaluation/metrics.csv").is_file()
        assert "Restarts=0" not in job, job
        resumed = record["training"]["resumed_at_epoch"]
        print(f"{self.trainer}: {record['attempts']} attempts, resumed at epochs {resumed}")


def _prepare(folder: Path) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "own"):
        (folder / name).mkdir()
    os.environ.update(
        {
            "nnUNet_raw": str(folder / "nnUNet_raw"),
            "nnUNet_preprocessed": str(folder / "nnUNet_preprocessed"),
            "nnUNet_extTrainer": str(folder / "own"),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "1",
            "nnUNet_npp": "0",
            "nnUNet_nps": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
    )
    dataset.write_raw_dataset(folder / "nnUNet_raw")
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run"
    arguments = ("-d", "901", "-c", "2d", "-np", "1", "-npfp", "1")
    _run(sys.executable, "-c", f"{entry}; run()", *arguments, folder=folder)
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 (nnU-Net's name)
    dataset.change_plans(folder / "nnUNet_preprocessed")
    (folder / "own" / "slurm_trainers.py").write_text(TRAINERS)
    (folder / "bench.toml").write_text(CONFIG)


def _run(*command: str, folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def _hasten(jobs: Iterable[str], folder: Path) -> None:
    """SLURM lets a requeued job wait for two minutes; nothing is learnt from them here."""
    for job in jobs:
        if "JobState=PENDING Reason=BeginTime" in _run("scontrol", "show", "job", job, folder=folder):
            _run("scontrol", "update", f"JobId={job}", "StartTime=now", folder=folder)


def _wait(what: str, condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
