"""The fair benchmark: datasets x trainers x folds x seeds, all trained, predicted and scored by the same commands.

    plan = plan_from(read_file("bench.toml"))   # checked: datasets, trainers, weights, GPU; or a ConfigError with all
    write_plan(plan)
    LocalRun(plan.tasks).run()                  # or slurm.submit(plan.tasks, plan.config.slurm)

Nothing in here trains: a cell is `nnUNetv2_train`, `nnUNetv2_predict` and this package's evaluation, run as child
processes.  This process imports no torch, so that it can wait for weeks without holding memory or a GPU.
"""

from swin_umamba_nnunet.benchmark.config import MatrixConfig, Row, build_config, read_file
from swin_umamba_nnunet.benchmark.files import ConfigError, MatrixError
from swin_umamba_nnunet.benchmark.plan import Plan, plan_from, prepare, write_plan

__all__ = [
    "ConfigError",
    "MatrixConfig",
    "MatrixError",
    "Plan",
    "Row",
    "build_config",
    "plan_from",
    "prepare",
    "read_file",
    "write_plan",
]
