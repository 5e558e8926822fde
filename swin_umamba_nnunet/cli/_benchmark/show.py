"""What `swin-umamba benchmark run` prints."""

import shlex
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from swin_umamba_nnunet._text import printable

if TYPE_CHECKING:
    from swin_umamba_nnunet.benchmark.commands import Task
    from swin_umamba_nnunet.benchmark.estimates import Estimate
    from swin_umamba_nnunet.benchmark.plan import Plan

_SEVERITIES = {"flag": "Affects the comparison", "note": "Good to know", "suggestion": "A reader will ask for"}
_BASES = {
    "measured": "measured: a cell of this row has run",
    "timed": "timed: a few iterations on made-up images, without loading data",
    "counted": "counted: memory of weights, optimiser and activations in float32; mixed precision takes less",
    "unknown": "unknown",
}
_SECONDS_BETWEEN_LOOKS = 2.0


def matrix(plan: "Plan", estimates: Mapping[str, "Estimate"]) -> str:
    """The cells of a dry run with what they will take."""
    from swin_umamba_nnunet.benchmark.status import clock

    head = ("dataset", "row", "fold", "seed", "state", "epochs x iterations", "training", "memory", "by")
    lines, left = [head], []
    for task in plan.tasks:
        cell, recipe = task.cell, plan.recipe(task)
        guess = estimates[f"{cell.dataset} {cell.row.key}"]
        state = _state(task)
        if state != "done":
            left.append(guess.seconds)
        lines.append((
            cell.dataset, cell.row.label, str(cell.fold), str(cell.seed), state,
            f"{recipe['epochs']} x {recipe['iterations_per_epoch']}",
            clock(guess.seconds) if guess.seconds is not None else "unknown",
            f"{guess.memory_bytes / 2**30:.1f} GiB" if guess.memory_bytes else "unknown", guess.basis,
        ))  # fmt: skip
    bases = sorted({guess.basis for guess in estimates.values()})
    errors = sorted({f"not timed: {printable(guess.error)}" for guess in estimates.values() if guess.error})
    summary = f"{len(plan.tasks)} cells on {plan.device}: {_training_time(left)}"
    return "\n".join(["", *_table(lines), "", summary, *(f"  {_BASES[basis]}" for basis in bases), *errors])


def _training_time(left: Sequence[float | None]) -> str:
    """How long the cells that are not done will train, given the seconds of each where they are known."""
    from swin_umamba_nnunet.benchmark.status import clock

    if not left:
        return "nothing is left to train"
    known = [seconds for seconds in left if seconds is not None]
    how = "try --time-iterations 10, which times ten iterations of every row"
    if not known:
        return f"how long the training takes is unknown ({how})"
    unknown = len(left) - len(known)
    also = f", and {unknown} cells of unknown time ({how})" if unknown else ""
    return f"about {clock(sum(known))} of training, one after another{also}"


def findings(found: Iterable[Mapping[str, Any]]) -> str:
    """Findings by severity."""
    found = list(found)
    lines = []
    for severity, title in _SEVERITIES.items():
        texts = [item["text"] for item in found if item["severity"] == severity]
        if texts:
            lines += ["", f"{title}:", *(f"  - {printable(text)}" for text in texts)]
    return "\n".join(lines)


def changed(found: Mapping[str, Sequence[str]], rerun: bool) -> str:
    """Cells whose inputs are not what they were."""
    what = "run anew" if rerun else "left as they are; --rerun-changed deletes and runs them anew"
    lines = [f"\nInputs of {len(found)} cells have changed since they ran ({what}):"]
    for name, changes in found.items():
        lines += [f"  {name}", *(f"      {change}" for change in changes)]
    return "\n".join(lines)


def failure(task: "Task", outcome: str) -> str:
    """What went wrong in a cell, with the end of its log."""
    record = task.cell.read()
    error = record.get("error")
    if outcome != "failed" or not error:
        return f"\n{task.cell.name}: {printable(outcome)}"
    log = "\n".join(f"    {line}" for line in printable(error["log_tail"], lines=True).split("\n"))
    return f"\n{task.cell.name}: {error['reason']}; the end of {task.cell.log(error['step'])}:\n{log}"


def command(action: str, plan: "Plan", *options: str) -> str:
    """`swin-umamba benchmark ACTION` for this benchmark, as a shell takes it."""
    return shlex.join(["swin-umamba", "benchmark", action, str(plan.config.output), *options])


class Progress:
    """Lines about starts and ends, and in a terminal a bar over all epochs."""

    def __init__(self, tasks: Sequence["Task"]) -> None:
        self._tasks = list(tasks)
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Task, float]] = {}
        self._numbers = {task.cell.name: f"[{number}/{len(tasks)}]" for number, task in enumerate(tasks, 1)}
        self._done_before = {task.cell.name for task in tasks if _state(task) == "done"}
        self._looked = 0.0
        self._total = sum(task.epochs or 0 for task in self._tasks)
        self._bar: tqdm = tqdm(total=self._total, initial=self._trained(), unit="epoch",
                               disable=not sys.stderr.isatty(), smoothing=0.05)  # fmt: skip

    def hear(self, event: str, task: "Task", outcome: str) -> None:
        """A cell begins or ends; called from its thread."""
        from swin_umamba_nnunet.benchmark.status import clock

        name = task.cell.name
        with self._lock:
            if event == "start":
                self._running[name] = (task, time.monotonic())
                if name not in self._done_before:
                    self._write(f"{self._numbers[name]} {name}: {_next_step(task)} ...")
                return
            _, began = self._running.pop(name)
            said = {
                "busy": "is run by another process", "changed": "left as it is, its inputs have changed",
            }.get(outcome, outcome)  # fmt: skip
            if name in self._done_before and outcome == "done":
                self._write(f"{self._numbers[name]} {name}: already done")
            else:
                self._write(f"{self._numbers[name]} {name}: {printable(said)} ({clock(time.monotonic() - began)})")

    def _write(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def tick(self) -> None:
        """Bring the bar up to date, now and then."""
        if self._bar.disable or time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = time.monotonic()
        with self._lock:
            running = [task for task, _ in self._running.values()]
        self._bar.n = self._trained()
        labels = [f"{task.cell.row.label} {task.cell.read().get('step', '')}" for task in running]
        self._bar.set_postfix_str(printable(", ".join(labels)), refresh=False)
        self._bar.refresh()

    def _trained(self) -> int:
        """Epochs of all cells so far."""
        from swin_umamba_nnunet.benchmark.files import read_json

        return min(self._total, sum((read_json(task.cell.measured) or {}).get("epoch", 0) for task in self._tasks))

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def _next_step(task: "Task") -> str:
    """What running the cell begins with."""
    from swin_umamba_nnunet.benchmark.files import read_json
    from swin_umamba_nnunet.benchmark.runner import changes

    cell = task.cell
    if changes(task):
        return "its inputs have changed"
    if cell.is_predicted(task.cases, task.file_ending):
        return "evaluating"
    if cell.is_trained():
        return "predicting"
    epoch = (read_json(cell.measured) or {}).get("epoch")
    return f"training goes on after epoch {epoch}" if epoch else "training"


def _state(task: "Task") -> str:
    from swin_umamba_nnunet.benchmark.runner import changes, is_done

    if changes(task):
        return "changed"
    return "done" if task.cases and is_done(task) else "resume" if task.cell.read().get("attempts") else "waiting"


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    lines = [tuple(map(printable, line)) for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in lines]
