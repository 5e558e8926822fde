"""`swin-umamba benchmark WHAT`: the fair comparison of trainers, from a list of them to scores on the same cases."""

import argparse
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from swin_umamba_nnunet._text import UserError, by, byte_size, duration, plural, printable, table
from swin_umamba_nnunet.cli import actions

if TYPE_CHECKING:
    from swin_umamba_nnunet.benchmark import Job, Prepared
    from swin_umamba_nnunet.benchmark.estimates import Estimate

DESCRIPTION = """\
Compare trainers on the same plans, split, cases and evaluation: datasets x trainers x folds x seeds, each run trained
and predicted by nnU-Net's own commands and scored by this package's evaluation.

    swin-umamba benchmark run --config bench.toml --dry-run     what would run, and how long it would take
    swin-umamba benchmark run --config bench.toml               run it; interrupt and repeat as you like
    swin-umamba benchmark status bench --watch 10               how far it is
    swin-umamba benchmark report bench                          what it shows: HTML, CSV, LaTeX
"""
_RUN = """\
Run a benchmark, or what of it is not done yet.  It is described by a TOML file, by flags, or by a file and flags that
override it:

    output = "bench"                    # everything is written in here
    datasets = [1]                      # planned and preprocessed by nnU-Net
    folds = [0]
    seeds = [0, 1, 2]
    baseline = "nnUNetTrainer_10epochs"
    device = "cuda"                     # default: a GPU that PyTorch sees, or on SLURM what [slurm] asks for

    [[trainers]]                        # a row of the table
    name = "nnUNetTrainer_10epochs"

    [[trainers]]
    name = "nnUNetTrainer_10epochs"
    plans = "nnUNetResEncUNetLPlans"
    label = "ResEnc L"
    slurm = {mem = "48GB"}              # resources of this row alone

    [observers]                         # rows of their own: segmentations of the scored cases by humans
    second = "FOLDER"                   # of several datasets: second = {1 = "FOLDER"}

    [slurm]                             # for --launcher slurm: parameters of submitit's SlurmExecutor
    partition = "gpu"
    time = 720                          # minutes; longer runs are requeued and go on

Ctrl-C ends the training that runs; the same command goes on from nnU-Net's last checkpoint.  Finished runs are kept.
If what they depend on has changed, that is reported, and --rerun-changed does them anew.
"""
_STATUS = """\
Show every run of a benchmark: its state, how many epochs it has trained, and how much training is left.  Reads the
benchmark's folder only, so it works while another process, or a cluster, runs it.
"""
_REPORT = """\
Write the report of a benchmark: one HTML file that works from disk and loads nothing, with CSV and LaTeX tables beside
it.  Reads the benchmark's folder only; runs that are missing or have failed are named in it.

    swin-umamba benchmark report bench
    swin-umamba benchmark report bench --baseline nnUNetTrainer_10epochs --published
"""
_SEVERITIES = {"flag": "Affects the comparison", "note": "Good to know", "suggestion": "A reader will ask for"}
_BASES = {
    "measured": "measured: a run of this row is there",
    "timed": "timed: a few iterations on made-up images, without loading data",
    "counted": "counted: memory of weights, optimiser and activations in float32; mixed precision takes less",
    "human": "human: the segmentations of an observer are scored, and nothing is trained",
    "unknown": "unknown",
}
_WITHOUT_STEPS = {
    "done": "already done",
    "busy": "another process is at it",
    "changed": "left as it is, its inputs have changed",
}
_SECONDS_BETWEEN_LOOKS = 2.0
_CLEAR = "\x1b[2J\x1b[H"  # screen, and cursor to its top left


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three actions and their options."""
    action = actions(parser, "WHAT")
    add = action("run", _run, "check a benchmark, then run what of it is not done yet", _RUN)
    add("--config", type=Path, metavar="FILE", help="TOML file; flags override what it says")
    add("--output", metavar="DIR", help="folder for everything")
    add("--datasets", nargs="+", metavar="ID", help="ids or names")
    add("--trainers", nargs="+", metavar="NAME[:PLANS[:CONFIGURATION]]", help="the rows")
    add("--folds", nargs="+", metavar="FOLD", help="default 0")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="default 0")
    add("--configuration", help="of the plans, default 2d")
    add("--baseline", metavar="ROW", help="label or trainer that the report compares to")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), help="default auto: a GPU that PyTorch sees, else the CPU")
    add("--test", action="store_const", const=True, help="score on imagesTs and labelsTs instead of the fold's cases")
    add("--gpus", type=_gpus, default=(), metavar="0,1", help="one run per GPU of this machine; default one at a time")
    add("--launcher", choices=("local", "slurm"), default="local", help="where to run (default: %(default)s)")
    add("--dry-run", action="store_true", help="only show what would run and what it would cost")
    timed = "with --dry-run: time N training iterations of every row for the estimate"
    add("--time-iterations", type=int, default=0, metavar="N", help=timed)
    rerun = "delete the results of runs whose inputs have changed, and do these runs anew"
    add("--rerun-changed", action="store_true", help=rerun)

    add = action("status", _status, "a table of its runs: state, epoch, time left", _STATUS)
    add("output", type=Path, help="the benchmark's folder")
    again = "show it again every so many seconds (default 10) until all is done"
    add("--watch", type=float, nargs="?", const=10.0, metavar="SECONDS", help=again)

    add = action("report", _report, "tables, charts and a checklist of what it has shown", _REPORT)
    add("folder", type=Path, metavar="DIR", help="the benchmark's folder")
    add("-o", "--output", type=Path, metavar="DIR", help="where the report goes (default: report/ in that folder)")
    row = "label or trainer of the row the others are compared with (default: the configuration's, or else nnU-Net)"
    add("--baseline", default="", metavar="ROW", help=row)
    metrics = "as in metrics.csv; the first decides ranks, charts and pictures (default: Dice NSD HD95)"
    add("--metrics", nargs="+", default=[], metavar="NAME", help=metrics)
    published = "also show the papers' tables, marked as published elsewhere under another protocol"
    add("--published", action="store_true", help=published)
    pictures = "show N cases per dataset on which the trainers differ most (default: %(default)s)"
    add("--pictures", type=int, default=3, metavar="N", help=pictures)
    resamples = "of the cases, for the intervals (default: %(default)s)"
    add("--resamples", type=int, default=10_000, metavar="N", help=resamples)
    add("--seed", type=int, default=0, metavar="N", help="of the resamples (default: %(default)s)")


# --------------------------------------------------------------------------------------------------------- run


def _run(args: argparse.Namespace) -> int:
    """Check and run; 0 if every run is done (or was submitted), 1 if not."""
    from swin_umamba_nnunet.benchmark import BenchmarkConfig, prepare, read_file

    settings = read_file(args.config) if args.config else {}
    if args.time_iterations < 0 or (args.time_iterations and not args.dry_run):
        raise UserError(f"--time-iterations {args.time_iterations}: expected 0 or more, and --dry-run with it")
    names = (item.name for item in fields(BenchmarkConfig))
    settings |= {name: given for name in names if (given := getattr(args, name, None)) is not None}
    print("Checking datasets, trainers and weights ...", flush=True)
    prepared = prepare(settings, launcher=args.launcher, gpus=args.gpus, dry=args.dry_run)
    if args.dry_run:
        from swin_umamba_nnunet.benchmark.estimates import estimate

        guesses = estimate(prepared, args.time_iterations, lambda text: print(printable(f"{text} ..."), flush=True))
        print("\n".join(["", *_overview(prepared, guesses), *_findings(prepared)]))
        print("\nNothing was run; the same command without --dry-run runs it.")
        return 0
    print("\n".join(_findings(prepared)))
    changed = {job: found for job in prepared.jobs if (found := job.changes())}
    if changed:
        what = "run anew" if args.rerun_changed else "left as they are; --rerun-changed deletes and runs them anew"
        print(f"\nInputs of {plural(len(changed), 'run')} have changed since ({what}):")
        for job, found in changed.items():
            print("\n      ".join([f"  {job.name}", *found]), flush=True)
    if args.launcher == "slurm":
        return _submit(prepared, [] if args.rerun_changed else list(changed), args.rerun_changed)
    return _run_here(prepared, args)


def _overview(prepared: "Prepared", guesses: Mapping[str, "Estimate"]) -> list[str]:
    """The runs with what they will take."""
    from swin_umamba_nnunet.benchmark.status import HEAD, identity

    lines: list[Sequence[str]] = [(*HEAD, "epochs x iterations", "training", "memory", "by")]
    left = []
    for job in prepared.jobs:
        guess = guesses[job.pair]
        changed, attempts = job.changes(), job.read().get("attempts")
        done = not changed and job.cases and job.is_done()
        state = "changed" if changed else "done" if done else "resume" if attempts else "waiting"
        left += [] if done or job.row.human else [guess.seconds]
        seconds = duration(guess.seconds) if guess.seconds is not None else "unknown"
        memory = byte_size(guess.memory_bytes) if guess.memory_bytes else "" if job.row.human else "unknown"
        iterations = by(job.recipe[name] for name in ("epochs", "iterations_per_epoch") if name in job.recipe)
        lines.append((*identity(job, state), iterations, seconds, memory, guess.basis))
    known = [seconds for seconds in left if seconds is not None]
    how = "try --time-iterations 10, which times ten iterations of every row"
    said = f"about {duration(sum(known))} of training, one after another"
    if not known:
        said = f"how long the training takes is unknown ({how})" if left else "nothing is left to train"
    elif len(known) < len(left):
        said += f", and {plural(len(left) - len(known), 'run')} of unknown time ({how})"
    bases = sorted({_BASES[guess.basis] for guess in guesses.values()})
    errors = sorted({f"not timed: {printable(guess.error)}" for guess in guesses.values() if guess.error})
    runs = plural(len(prepared.jobs), "run")
    return [*table(lines), "", f"{runs} on {prepared.device}: {said}", *(f"  {basis}" for basis in bases), *errors]


def _findings(prepared: "Prepared") -> list[str]:
    """Findings by severity."""
    lines = []
    for severity, title in _SEVERITIES.items():
        texts = [f"  - {printable(item['text'])}" for item in prepared.findings if item["severity"] == severity]
        lines += ["", f"{title}:", *texts] if texts else []
    return lines


def _submit(prepared: "Prepared", left_alone: Sequence["Job"], rerun: bool) -> int:
    from swin_umamba_nnunet.benchmark import slurm

    todo = [job for job in prepared.jobs if job not in left_alone and (job.changes() or not job.is_done())]
    groups = slurm.arrays(todo, prepared.config.slurm)
    prepared.write()
    submitted = slurm.submit(groups, rerun)
    for name, job in submitted.items():
        print(f"job {job}  {name}")
    done = len(prepared.jobs) - len(left_alone) - len(todo)
    print(
        f"{len(submitted)} submitted, on {prepared.device}; {len(todo) - len(submitted)} queued already, {done} done, "
        f"{len(left_alone)} changed and left alone\nLook at them with   {_command('status', prepared, '--watch')}"
    )
    return int(bool(left_alone))


def _run_here(prepared: "Prepared", args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.benchmark import run_here
    from swin_umamba_nnunet.benchmark.process import ended_by_signals

    prepared.write()
    runs, watch = plural(len(prepared.jobs), "run"), _command("status", prepared, "--watch")
    print(f"\n{runs} on {prepared.device}; how far it is, from another terminal:   {watch}")
    progress = Progress(prepared.jobs)
    try:
        with ended_by_signals():
            outcomes = run_here(prepared.jobs, args.gpus, args.rerun_changed, progress.hear, progress.tick)
    except (KeyboardInterrupt, SystemExit) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else int(error.code or 1)
        raise UserError("interrupted; run the same command again to go on where this ended", code) from None
    finally:
        progress.bar.close()
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes.values())
    print("\n" + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    for job in prepared.jobs:
        outcome = outcomes[job.name]
        wrong = job.read().get("error") if outcome == "failed" else None
        if wrong:
            log = printable(wrong["log_tail"], lines=True).replace("\n", "\n    ")
            print(f"\n{job.name}: {wrong['reason']}; the end of {job.log(wrong['step'])}:\n    {log}")
        elif outcome not in ("done", "changed", "busy"):
            print(f"\n{job.name}: {printable(outcome)}")
    if counts["done"]:
        print(f"\nWhat it shows:   {_command('report', prepared)}")
    return int(any(outcome != "done" for outcome in outcomes.values()))


def _command(action: str, prepared: "Prepared", *options: str) -> str:
    """`swin-umamba benchmark ACTION` for this benchmark, as a shell takes it."""
    return shlex.join(["swin-umamba", "benchmark", action, str(prepared.config.output), *options])


def _gpus(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers with commas, as in 0,1") from None


class Progress:
    """Lines about what begins and ends, and in a terminal a bar over all epochs."""

    def __init__(self, jobs: Sequence["Job"]) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}  # of the runs under way
        self._looked = 0.0
        self._total = sum(job.recipe.get("epochs", 0) for job in jobs)
        silent = not sys.stderr.isatty()
        self.bar: tqdm = tqdm(total=self._total, initial=self._trained(), unit="epoch", disable=silent, smoothing=0.05)

    def hear(self, job: "Job", said: str, command: Sequence[str]) -> None:
        """A step of a run begins, or the run ends; called from its thread."""
        with self._lock:
            if command:
                self._began.setdefault(job.name, time.monotonic())
                said += " ..."
            elif job.name in self._began:
                said += f" ({duration(time.monotonic() - self._began.pop(job.name))})"
            else:
                said = _WITHOUT_STEPS.get(said, said)
            number = f"[{self._jobs.index(job) + 1}/{len(self._jobs)}]"
            tqdm.write(printable(f"{number} {job.name}: {said}"), file=sys.stdout)
            sys.stdout.flush()

    def tick(self) -> None:
        """Bring the bar up to date, now and then."""
        if self.bar.disable or time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        self.bar.n = self._trained()
        labels = [f"{job.row.label} {job.read().get('step', '')}" for job in self._jobs if job.name in self._began]
        self.bar.set_postfix_str(printable(", ".join(labels)), refresh=False)
        self.bar.refresh()

    def _trained(self) -> int:
        """Epochs of all runs so far."""
        return min(self._total, sum(job.training().get("epoch", 0) for job in self._jobs))


# ------------------------------------------------------------------------------------------------------ status


def _status(args: argparse.Namespace) -> int:
    """Print the table, once or again and again; 1 if a run has failed."""
    from swin_umamba_nnunet.benchmark.status import read_status, render

    folder = args.output.expanduser().absolute()
    if args.watch is not None and not 0 < args.watch < threading.TIMEOUT_MAX:
        raise UserError(f"--watch {args.watch:g}: expected seconds, more than 0")
    if args.watch and not (folder / "benchmark.json").is_file():
        print(f"{folder} has no benchmark.json yet; waiting until a benchmark begins in there ...", flush=True)
        while not (folder / "benchmark.json").is_file():
            time.sleep(args.watch)
    while True:
        statuses = read_status(folder)
        clear = _CLEAR if args.watch and sys.stdout.isatty() else ""
        print(f"{clear}{render(statuses)}", flush=True)
        if not args.watch or all(status.state in ("done", "failed") for status in statuses):
            return int(any(status.state == "failed" for status in statuses))
        time.sleep(args.watch)


# ------------------------------------------------------------------------------------------------------ report


def _report(args: argparse.Namespace) -> None:
    """Write the report, print where it is and what is missing in it."""
    for name, least in (("pictures", 0), ("resamples", 1), ("seed", 0)):
        if (value := getattr(args, name)) < least:
            raise UserError(f"--{name} {value}: expected {least} or more")

    from swin_umamba_nnunet.benchmark.report import ReportOptions, write_report
    from swin_umamba_nnunet.evaluation.statistics import Bootstrap

    metrics, bootstrap = tuple(dict.fromkeys(args.metrics)), Bootstrap(args.resamples, args.seed)
    options = ReportOptions(metrics, args.baseline, args.published, args.pictures, bootstrap)
    output = args.output or args.folder / "report"
    analysis, files = write_report(args.folder, output, options, lambda text: print(f"{text} ...", flush=True))
    runs, missing = analysis.benchmark.runs, analysis.benchmark.missing
    for run in missing:
        print(printable(f"no scores: {run.title} ({run.problem})"))
    print(f"\n{files[0].absolute()}   ({len(runs) - len(missing)} of {len(runs)} runs)")
    print(f"beside it: {', '.join(file.name for file in files[1:])}")
