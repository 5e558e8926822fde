"""The fair benchmark: datasets x trainers x folds x seeds, all trained, predicted and scored by the same commands.

    prepared = prepare(read_file("bench.toml"))   # checked: datasets, trainers, weights, GPU; or a ConfigError with all
    prepared.write()
    run_here(prepared.jobs)                       # or slurm.submit(prepared.jobs, prepared.config.slurm)

Nothing in here trains: a run is `nnUNetv2_train`, `nnUNetv2_predict` and `swin-umamba evaluate`, run as child
processes.  This process imports no torch, so that it can wait for weeks without holding memory or a GPU.
"""

from swin_umamba_nnunet.benchmark.config import BenchmarkConfig, Row, build_config, read_file
from swin_umamba_nnunet.benchmark.files import BenchmarkError, ConfigError
from swin_umamba_nnunet.benchmark.jobs import Job, Prepared, prepare
from swin_umamba_nnunet.benchmark.runner import run_here, run_job
from swin_umamba_nnunet.benchmark.runs import Run, read_benchmark

__all__ = [
    "ConfigError",
    "Job",
    "BenchmarkConfig",
    "BenchmarkError",
    "Prepared",
    "Row",
    "Run",
    "build_config",
    "prepare",
    "read_benchmark",
    "read_file",
    "run_here",
    "run_job",
]
