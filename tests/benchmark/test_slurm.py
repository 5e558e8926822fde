"""SLURM through submitit, with commands on the PATH that answer as SLURM's do.  tests/slurm has the real one."""

import pickle

import pytest
import submitit

from swin_umamba_nnunet.benchmark import BenchmarkError, ConfigError, Row, slurm
from tests.messages import assert_names

SBATCH = """#!/bin/sh
cp "$1" {folder}/submitted_$(ls {folder} | grep -c submitted_).sh
echo "Submitted batch job $((100 + $(ls {folder} | grep -c submitted_)))"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Folder with fake commands; sbatch leaves a copy of every script there, squeue says what `queue` holds."""
    folder = tmp_path / "commands"
    folder.mkdir()
    commands = {
        "sbatch": SBATCH.format(folder=folder),
        "srun": "#!/bin/sh\n",
        "squeue": f"#!/bin/sh\ncat {folder}/queue",
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o700)
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_resources():
    row = Row("A", num_gpus=2, slurm={"time": 60})
    wanted = {"time": 60, "cpus_per_task": 8, "job_name": "swin-umamba-benchmark", "partition": "p"}
    assert slurm.resources({"time": 30, "partition": "p"}, row, "cpu") == wanted
    assert [slurm.resources(asked, row, "cuda")["gpus_per_node"] for asked in ({}, {"gpus_per_node": 0})] == [2, 0]
    other = {"additional_parameters": {"gres": "gpu:a100:2"}}
    assert "gpus_per_node" not in slurm.resources(other, row, "cuda")


def test_one_array_per_set_of_resources(plan, cluster):
    *jobs, large = plan(trainers=["One", "Two", "Three", "Four", {"name": "Large", "slurm": {"mem": "9GB"}}]).jobs
    submitted = slurm.submit(slurm.arrays([*jobs, large], {"time": 33, "signal_delay_s": 44}))
    first, second = (path.read_text() for path in sorted(cluster.glob("submitted_*.sh")))
    options = ("--array=0-3%4", "--time=33", "--signal=USR2@44", "--requeue")
    assert_names(first, *(f"#SBATCH {option}" for option in options))
    assert "--mem" not in first
    assert "#SBATCH --mem=9GB" in second
    assert len(set(submitted.values())) == 5
    # what is in the queue already is not submitted again
    queued = submitted[jobs[1].name]
    (cluster / "queue").write_text(f"{queued} PENDING\n999 RUNNING\n")
    assert slurm.queued_runs(large.output) == {jobs[1].name: (queued, "PENDING")}
    assert {*slurm.submit(slurm.arrays(jobs, {}))} == {job.name for job in jobs} - {jobs[1].name}


def test_a_job_does_its_run_and_says_how_it_goes_on(plan, fake_steps):
    job = pickle.loads(pickle.dumps(slurm.Resumable(plan().jobs[0], rerun=True)))
    delayed = job.checkpoint()
    assert isinstance(delayed, submitit.helpers.DelayedSubmission)
    assert delayed.function == job
    assert delayed.function() == "done"
    assert fake_steps.names == ["train", "predict", "evaluate"]


def test_what_keeps_jobs_from_being_submitted(plan, cluster, tmp_path, monkeypatch):
    """A resource that nobody knows; no SLURM."""
    jobs = plan().jobs
    with pytest.raises(ConfigError, match="tme"):
        slurm.arrays(jobs, {"tme": 3})
    assert not list(cluster.glob("submitted_*"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="sbatch and srun"):
        slurm.arrays(jobs, {})
    assert slurm.queued_runs(tmp_path) == {}
