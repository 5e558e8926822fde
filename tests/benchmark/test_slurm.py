"""SLURM through submitit, with commands on the PATH that answer as SLURM's do.  tests/slurm has the real one."""

import pickle
import stat

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
    for name, text in (
        ("sbatch", SBATCH.format(folder=folder)),
        ("srun", "#!/bin/sh\n"),
        ("squeue", f"#!/bin/sh\ncat {folder}/queue\n"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_resources():
    row = Row("A", num_gpus=2, slurm={"time": 60})
    wanted = {"time": 60, "cpus_per_task": 8, "job_name": "swin-umamba-benchmark", "partition": "p"}
    assert slurm.resources({"time": 30, "partition": "p"}, row, "cpu") == wanted
    assert slurm.resources({}, row, "cuda")["gpus_per_node"] == 2
    assert "gpus_per_node" not in slurm.resources({"gres": "gpu:a100:2"}, row, "cuda")


def test_one_array_per_set_of_resources(make_job, cluster):
    jobs = [make_job(trainer, seed) for seed in range(2) for trainer in ("One", "Two")]
    submitted = slurm.submit(
        slurm.arrays([*jobs, make_job("Three", slurm={"mem": "9GB"})], {"time": 33, "signal_delay_s": 44})
    )
    scripts = [path.read_text() for path in sorted(cluster.glob("submitted_*.sh"))]
    assert len(scripts) == 2
    options = ("--array=0-3%4", "--time=33", "--signal=USR2@44", "--requeue")
    assert_names(scripts[0], *(f"#SBATCH {option}" for option in options))
    assert "--mem" not in scripts[0]
    assert "#SBATCH --mem=9GB" in scripts[1]
    assert len(set(submitted.values())) == 5
    # what is in the queue already is not submitted again
    queued = submitted[jobs[1].name]
    (cluster / "queue").write_text(f"{queued} PENDING\n999 RUNNING\n")
    assert slurm.queued_runs(jobs[0].output) == {jobs[1].name: (queued, "PENDING")}
    again = slurm.submit(slurm.arrays(jobs, {}))
    assert set(again) == {job.name for job in jobs} - {jobs[1].name}


def test_a_job_runs_its_cell_and_says_how_it_goes_on(make_job, fake_steps):
    job = pickle.loads(pickle.dumps(slurm.Resumable(make_job(), rerun=True)))
    delayed = job.checkpoint()
    assert isinstance(delayed, submitit.helpers.DelayedSubmission)
    assert delayed.function == job
    assert delayed.function() == "done"
    assert fake_steps.names == ["train", "predict", "evaluate"]


def test_unknown_resources_are_found_before_anything_is_submitted(make_job, cluster, tmp_path):
    with pytest.raises(ConfigError, match="tme"):
        slurm.arrays([make_job()], {"tme": 3})
    assert not list(cluster.glob("submitted_*"))


def test_without_slurm(make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchmarkError, match="sbatch and srun"):
        slurm.arrays([make_job()], {})
    assert slurm.queued_runs(tmp_path) == {}
