"""`swin-umamba benchmark run`: check, say what will run, run it here or hand it to SLURM, say what came of it."""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet._text import printable
from swin_umamba_nnunet.cli._benchmark import show
from swin_umamba_nnunet.cli._signals import ended_by_signals
from swin_umamba_nnunet.cli.errors import CliError

if TYPE_CHECKING:
    from swin_umamba_nnunet.benchmark.plan import Plan

DESCRIPTION = """\
Run a benchmark, or what of it is not done yet.  It is described by a TOML file, by flags, or by a file and flags that
override it:

    output = "bench"                    # everything is written in here
    datasets = [901]                    # planned and preprocessed by nnU-Net
    folds = [0]
    seeds = [0, 1, 2]
    baseline = "nnUNetTrainer_10epochs"

    [[trainers]]                        # a row of the table
    name = "nnUNetTrainer_10epochs"

    [[trainers]]
    name = "nnUNetTrainer_10epochs"
    plans = "nnUNetResEncUNetLPlans"
    label = "ResEnc L"
    slurm = {mem = "48GB"}              # resources of this row alone

    [slurm]                             # for --launcher slurm: parameters of submitit's SlurmExecutor
    partition = "gpu"
    time = 720                          # minutes; longer cells are requeued and go on

Ctrl-C ends the cell that runs; the same command goes on from nnU-Net's last checkpoint.  Finished cells are kept.  If
what they depend on has changed, that is reported, and --rerun-changed runs them anew.
"""
# flags that are settings of the same name
SETTINGS = ("output", "datasets", "trainers", "folds", "seeds", "configuration", "baseline", "device", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the action."""
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML file; flags override what it says")
    add("--output", metavar="DIR", help="folder for everything")
    add("--datasets", nargs="+", metavar="ID", type=_number_or_name, help="ids or names")
    add("--trainers", nargs="+", metavar="NAME[:PLANS[:CONFIGURATION]]", help="the rows")
    add("--folds", nargs="+", metavar="FOLD", type=_number_or_name, help="default 0")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="default 0")
    add("--configuration", help="of the plans, default 2d")
    add("--baseline", metavar="ROW", help="label or trainer that the report compares to")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), help="default auto: a GPU that PyTorch sees, else the CPU")
    add("--test", action="store_const", const=True, help="score on imagesTs and labelsTs instead of the fold's cases")
    add("--gpus", type=_gpus, default=(), metavar="0,1", help="one cell per GPU of this machine; default one at a time")
    add("--launcher", choices=("local", "slurm"), default="local", help="where to run (default: %(default)s)")
    add("--dry-run", action="store_true", help="only show what would run and what it would cost")
    add("--time-iterations", type=int, default=0, metavar="N",
        help="with --dry-run: time N training iterations of every row for the estimate")  # fmt: skip
    add("--rerun-changed", action="store_true",
        help="delete the results of cells whose inputs have changed, and run these cells anew")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check and run.

    Returns:
        0 if every cell is done (or was submitted), 1 if not.

    Raises:
        MatrixError: the configuration is wrong in whatever way.
    """
    from swin_umamba_nnunet.benchmark import plan_from, read_file, write_plan

    settings = read_file(args.config) if args.config else {}
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    print("Checking datasets, trainers and weights ...", flush=True)
    plan = plan_from({**settings, **given}, launcher=args.launcher, gpus=args.gpus, dry=args.dry_run)
    if args.dry_run:
        from swin_umamba_nnunet.benchmark.estimates import estimate

        estimates = estimate(plan, args.time_iterations, lambda text: print(printable(f"{text} ..."), flush=True))
        print(show.matrix(plan, estimates))
        print(show.findings(plan.findings))
        print("\nNothing was run; the same command without --dry-run runs it.")
        return 0
    print(show.findings(plan.findings))
    _report_changed(plan, args.rerun_changed)
    if args.launcher == "slurm":
        return _submit(plan, args.rerun_changed)
    write_plan(plan)
    return _run_here(plan, args)


def _report_changed(plan: "Plan", rerun: bool) -> None:
    from swin_umamba_nnunet.benchmark.runner import changes

    changed = {task.cell.name: found for task in plan.tasks if (found := changes(task))}
    if changed:
        print(show.changed(changed, rerun), flush=True)


def _submit(plan: "Plan", rerun: bool) -> int:
    from swin_umamba_nnunet.benchmark import slurm, write_plan
    from swin_umamba_nnunet.benchmark.runner import changes, is_done

    output = plan.config.output
    changed = [task for task in plan.tasks if changes(task) and not rerun]
    todo = [task for task in plan.tasks if task not in changed and (changes(task) or not is_done(task))]
    if todo:
        slurm.check(todo, plan.config.slurm, output / "slurm")
    write_plan(plan)
    submitted = slurm.submit(todo, plan.config.slurm, rerun) if todo else {}
    for name, job in submitted.items():
        print(f"job {job}  {name}")
    waiting = len(todo) - len(submitted)
    done = len(plan.tasks) - len(changed) - len(todo)
    print(f"{len(submitted)} submitted, {waiting} queued already, {done} done, {len(changed)} changed and left alone")
    print(f"Look at them with   {show.command('status', plan, '--watch')}")
    return int(bool(changed))


def _run_here(plan: "Plan", args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.benchmark.local import LocalRun
    from swin_umamba_nnunet.benchmark.plan import write_outcome

    watch = show.command("status", plan, "--watch")
    print(f"\n{len(plan.tasks)} cells on {plan.device}; how far it is, from another terminal:   {watch}")
    progress = show.Progress(plan.tasks)
    local = LocalRun(plan.tasks, args.gpus, args.rerun_changed, progress.hear, progress.tick)
    try:
        with ended_by_signals():
            outcomes = local.run()
    except (KeyboardInterrupt, SystemExit) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else int(error.code or 1)
        raise CliError("interrupted; run the same command again to go on where this ended", code) from None
    finally:
        progress.close()
        write_outcome(plan)
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    for task in plan.tasks:
        outcome = outcomes[task.cell.name]
        if outcome not in ("done", "changed", "busy"):
            print(show.failure(task, outcome))
    if counts["done"]:
        print(f"\nWhat it shows:   {show.command('report', plan)}")
    return int(any(outcome != "done" for outcome in outcomes.values()))


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _gpus(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers with commas, as in 0,1") from None
