"""On a real SLURM: a benchmark of two runs, one requeued by hand, one that reaches its time limit; both end complete.

    time tests/slurm/one_node_cluster.sh python tests/slurm/check_resume.py

Not collected by pytest: it wants a cluster and takes minutes.  Last run on 2026-11-21 with SLURM 22.05.8 and
submitit 1.5.4, as one job array: 10 min 4 s on two cores busy with other work (apt-get install took another 20 s).  An
idle machine has not been timed.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmark.bench import VERB, make_bench  # noqa: E402
from tests.jsons import load  # noqa: E402
from tests.workspace import prepare  # noqa: E402

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
SLURM = """
[slurm]
time = 3
signal_delay_s = 45
cpus_per_task = 1

"""


def main():
    """Prepare, submit, disturb, wait, compare."""
    folder = Path(tempfile.mkdtemp(prefix="slurm_check_"))
    try:
        prepare(folder)
        bench = make_bench(folder, TRAINERS)
        print("dataset preprocessed", flush=True)
        config = bench.write_config("bench", "Requeued", "TimedOut", more=SLURM)
        submit = [*VERB, "run", "--config", config, "--launcher", "slurm"]
        print(bench.run(*submit), flush=True)
        submitted = load(folder / "bench/slurm/jobs.json")
        jobs = {name.split("/")[1].split("__")[0]: entry["job"] for name, entry in submitted.items()}
        assert {job.rpartition("_")[2] for job in jobs.values()} == {"0", "1"}, jobs  # one job array

        again = bench.run(*submit)
        assert "0 submitted, 2 queued already" in again, again

        _wait("the first epochs", lambda: bench.cell("bench", "Requeued", "training.json").get("epoch", 0) >= 3, 240)
        _scontrol("requeue", jobs["Requeued"])
        print(f"job {jobs['Requeued']} requeued in its middle", flush=True)

        def both_done():
            _hasten(jobs.values())
            states = [bench.cell("bench", trainer).get("state") for trainer in jobs]
            assert "failed" not in states, states
            return states == ["done"] * 2

        _wait("both runs", both_done, 900)
        print(bench.run(*VERB, "status", "bench"), flush=True)
        for trainer, job in jobs.items():
            _check(bench, trainer, _scontrol("show", "job", job))
        log = "".join(path.read_text() for path in (folder / "bench/slurm").glob(f"{jobs['TimedOut']}*_log.*"))
        assert "this job is timed-out" in log, log
        assert "Requeued job" in log, log
        print("both were interrupted, requeued, resumed and finished", flush=True)
    except BaseException:
        for path in sorted(folder.glob("bench/**/*.log")) + sorted(folder.glob("bench/slurm/*.err")):
            print(f"--- {path}\n" + "\n".join(path.read_text().splitlines()[-30:]))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(bench, trainer, job):
    """Interrupted at least once, and complete nevertheless: every epoch once."""
    record = bench.cell("bench", trainer)
    resumed = record["training"]["resumed_at_epoch"]
    assert record["attempts"] >= 2, record["attempts"]
    assert resumed, record["training"]
    assert 0 < resumed[0] < EPOCHS
    assert len(record["curves"]["train_losses"]) == len(record["curves"]["epoch_end_timestamps"]) == EPOCHS
    assert any("--c" in command for command in record["commands"])
    assert (bench.place("bench", trainer) / "evaluation/metrics.csv").is_file()
    assert "Restarts=0" not in job, job
    print(f"{trainer}: {record['attempts']} attempts, resumed at epochs {resumed}")


def _scontrol(*words):
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True).stdout


def _hasten(jobs):
    """SLURM lets a requeued job wait for two minutes; nothing is learnt from them here."""
    for job in jobs:
        if "JobState=PENDING Reason=BeginTime" in _scontrol("show", "job", job):
            _scontrol("update", f"JobId={job}", "StartTime=now")


def _wait(what, condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
