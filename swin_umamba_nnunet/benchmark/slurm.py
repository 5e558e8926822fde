"""Doing the runs on a SLURM cluster, through submitit: job arrays that requeue themselves when their time is up.

A job that is about to reach its time limit, or is preempted, gets SIGUSR2 from SLURM `signal_delay_s` seconds before;
submitit then has it requeued, and the run goes on from nnU-Net's last checkpoint (at most `checkpoint_minutes` old).
A job that is requeued from outside (`scontrol requeue`, a node that failed) does the same.
"""

import getpass
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.files import BenchmarkError, ConfigError, Record, now, read_json, write_json
from swin_umamba_nnunet.benchmark.jobs import Job, asks_for_gpu
from swin_umamba_nnunet.benchmark.runner import run_job

INSTALL_LINE = install_line("slurm")
DEFAULTS = {"time": 24 * 60, "cpus_per_task": 8, "job_name": "swin-umamba-benchmark"}  # time in minutes
MAX_REQUEUES = 100  # after time limits; submitit's own 3 would end a training of many days
_SECONDS_FOR_SQUEUE = 60


@dataclass(frozen=True)
class Resumable:
    """What a job of SLURM does: picklable, and able to say how it is continued."""

    job: Job
    rerun: bool = False

    def __call__(self) -> str:
        """Do the run; the outcome goes into submitit's result and the job's log."""
        return run_job(self.job, rerun=self.rerun)

    def checkpoint(self) -> Any:
        """Called by submitit when time is up: the same once more, which goes on where this ends."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def resources(common: Record, row: Row, device: str) -> dict[str, Any]:
    """Parameters of submitit's SlurmExecutor for the jobs of a row: the defaults, the benchmark's, the row's."""
    wanted = {**DEFAULTS, **common, **row.slurm}
    if device == "cuda" and not asks_for_gpu(wanted):
        wanted.setdefault("gpus_per_node", row.num_gpus)  # 0, where SLURM counts no GPUs, stays
    return wanted


def arrays(jobs: Sequence[Job], common: Record) -> list[tuple[Any, list[Job]]]:
    """Executors that can submit, each with its runs: one per set of resources; what is in the queue is left out.

    Args:
        jobs: the runs.
        common: resources of every job.

    Raises:
        BenchmarkError: no submitit, or no SLURM.
        ConfigError: a resource that submitit does not know.
    """
    found: dict[str, tuple[Any, list[Job]]] = {}
    problems = []
    queued = queued_runs(jobs[0].output) if jobs else {}
    for job in jobs:
        wanted = resources(common, job.row, job.inputs["device"])
        same = json.dumps(wanted, sort_keys=True)
        try:
            if same not in found:
                found[same] = _executor(job.output / "slurm", wanted), []
            found[same][1].append(job)
        except (TypeError, ValueError) as error:
            problems.append(f"[slurm] of row {job.row.label}: {' '.join(str(error).split())}")
    if problems:
        raise ConfigError(problems)
    todo = ((executor, [job for job in group if job.name not in queued]) for executor, group in found.values())
    return [(executor, group) for executor, group in todo if group]


def submit(groups: Sequence[tuple[Any, list[Job]]], rerun: bool = False) -> dict[str, str]:
    """Submit one job array for each of the `arrays`; returns name of run -> id of its job.

    Args:
        groups: see `arrays`.
        rerun: start runs anew whose inputs have changed.
    """
    submitted: dict[str, str] = {}
    for executor, group in groups:
        with executor.batch():  # becomes one job array
            jobs = [executor.submit(Resumable(job, rerun)) for job in group]
        submitted |= {run.name: job.job_id for run, job in zip(group, jobs)}
        file = _jobs_file(group[0].output)
        new = {name: {"job": job, "submitted": now()} for name, job in submitted.items()}
        write_json(file, {**(read_json(file) or {}), **new})
    return submitted


def queued_runs(output: Path) -> dict[str, tuple[str, str]]:
    """Runs with a job that SLURM still knows: name -> (job, its state); empty where there is no SLURM."""
    if shutil.which("squeue") is None or not (jobs := read_json(_jobs_file(output))):
        return {}
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_FOR_SQUEUE, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    states = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line.strip())
    return {name: (entry["job"], states[entry["job"]]) for name, entry in jobs.items() if entry["job"] in states}


def _jobs_file(output: Path) -> Path:
    return output / "slurm" / "jobs.json"


def _executor(folder: Path, wanted: Record) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise BenchmarkError(f"--launcher slurm needs submitit; get it with   {INSTALL_LINE}") from error
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise BenchmarkError(
            "--launcher slurm needs SLURM's sbatch and srun, which are not on the PATH of this machine"
        )
    wanted = dict(wanted)
    executor = submitit.SlurmExecutor(folder, max_num_timeout=wanted.pop("max_num_timeout", MAX_REQUEUES))
    extra = {"requeue": True, **wanted.pop("additional_parameters", {})}
    executor.update_parameters(**wanted, additional_parameters=extra)
    return executor
