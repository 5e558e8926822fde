"""Where a comparison is not like with like, or a reader will ask for a row that is missing: one checklist.

Everything it says is a remark, {"severity", "code", "text", "datasets"}.  Severities: "flag" (the comparison is
affected), "note" (true of this benchmark and good to know), "suggestion" (a row to add); in a report also "problem",
"fine" (in order, with what makes it so) and "unknown".  `findings` makes those that are known before anything runs,
which the runner prints and records; `checklist` sorts them, and what only results show, by the pitfalls of nnU-Net
Revisited (arXiv 2404.09556) and some more.

What could be enforced is enforced instead: all rows of a dataset share split, scored cases, checkpoint and test-time
mirroring of `nnUNetv2_predict`.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet._text import plural
from swin_umamba_nnunet.benchmark.config import CHECKPOINTS, BenchmarkConfig, Row
from swin_umamba_nnunet.benchmark.files import Record

if TYPE_CHECKING:
    from swin_umamba_nnunet.benchmark.report.analysis import Result
    from swin_umamba_nnunet.benchmark.report.collect import Benchmark, Scored

Remark = dict[str, Any]

IN_ORDER, CAUTION, PROBLEM, UNKNOWN = "in order", "caution", "problem", "not known"
FEW_DATASETS, FEW_SEEDS = 3, 3
_VERDICTS = {
    "problem": PROBLEM,
    "flag": CAUTION,
    "suggestion": CAUTION,
    "unknown": UNKNOWN,
    "note": IN_ORDER,
    "fine": IN_ORDER,
}
# Recorded remarks that spoil a comparison rather than call for care.
_SPOILING = ("scratch_missing", "iterations_differ", "split_differs", "scored_cases_differ", "selected_on_validation")
_FINAL = "All rows predict with their final checkpoint: none was chosen by a score."
_CHANCE = "chance contributes to a difference is not measured."
# What to look at, the codes of the remarks about it, and what is said where none of them calls for care.  The first
# four are judged anew in a report, from what is recorded about rows and runs.
_QUESTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "Confounding booster: pretraining",
        "pretraining_differs all_pretrained scratch_missing scratch_present",
        "No row starts from pretrained weights.",
    ),
    ("Baselines: nnU-Net and its residual encoder", "baselines nnunet_missing resenc_missing", ""),
    (
        "Controls: the same network without the part that is claimed to matter",
        "control_missing controls controls_unequal",
        "",
    ),
    (
        "Times and memory measured alike",
        "hardware_differs versions_differ hosts_differ",
        "All finished runs were on one machine and device; whether it was shared with other work is not recorded.",
    ),
    (
        "Confounding boosters: plans, patch, batch, iterations, augmentation, split",
        "plans_differ patch_differs batch_differs mirroring_differs own_protocol iterations_differ split_differs "
        "scored_cases_differ no_mirroring not_recorded",
        "Same plans, patch and batch size, number of iterations, split and scored cases for all rows; none replaces "
        "nnU-Net's data loading, augmentation or loss.",
    ),
    ("Length of the trainings", "lengths", ""),
    ("Datasets: can they separate the methods?", "separation", ""),
    ("Datasets: how many?", "datasets", ""),
    ("Repetitions: seeds and folds", "repetitions replays some_folds fold_all", ""),
    ("Consistent reporting: the same cases for every row, nothing left out", "completeness", ""),
    ("Tuning on the cases that are scored", "selected_on_validation by_hand", _FINAL),
    ("Statistics: enough cases, corrected for many tests", "tests", ""),
    ("Interrupted trainings", "resumed", "No finished training drew other numbers because it was interrupted."),
)
_ANEW = " ".join(codes for _, codes, _ in _QUESTIONS[:4]).split()

# what must agree between the rows of a dataset, and how a sentence calls it
_COMPARED = {
    "patch_size": ("patch_differs", "patch size in pixels"),
    "batch_size": ("batch_differs", "batch size"),
    "mirroring_axes": ("mirroring_differs", "test-time mirroring axes, which follow from the trainer"),
}


class Item(NamedTuple):
    """One line of the checklist: what to look at, one of `IN_ORDER`, `CAUTION`, `PROBLEM`, `UNKNOWN`, and why."""

    question: str
    verdict: str
    answer: str


def findings(config: BenchmarkConfig, probed: Record, datasets: Sequence[str]) -> list[Remark]:
    """All remarks about a benchmark that is about to run.

    Args:
        config: the benchmark.
        probed: what `probe` says about its rows.
        datasets: full names.
    """
    found = [*_of_settings(config, probed)]
    for dataset in datasets:
        found += _of_recipes({row.label: probed["pairs"][f"{dataset} {row.key}"] for row in config.trainers}, dataset)
    about_rows = of_rows([replace(row, recorded=facts(row, probed)) for row in config.trainers])
    return [*_once(found), *(item for item in about_rows if _VERDICTS[item["severity"]] == CAUTION)]


def _once(remarks: Iterable[Remark]) -> list[Remark]:
    """The same remark about several datasets as one that names them all."""
    merged: dict[tuple[str, ...], Remark] = {}
    for item in remarks:
        first = merged.setdefault((item["code"], item["severity"], item["text"]), {**item, "datasets": []})
        first["datasets"] = list(dict.fromkeys([*first["datasets"], *item.get("datasets", ())]))
    return [*merged.values()]


def checklist(benchmark: "Benchmark", results: Sequence["Result"]) -> list[Item]:
    """Every question with its verdict, from what the benchmark recorded and what its results show.

    Args:
        benchmark: all of it; observers are left out, nothing of whom was trained.
        results: of it.
    """
    runs = [run for run in benchmark.runs if not run.row.human]
    recorded = benchmark.content.get("findings")
    if recorded is None:
        recorded = [remark("unknown", "not_recorded", "This benchmark recorded no findings about its fairness.")]
    return answered(
        [
            *of_rows([*dict.fromkeys(run.row for run in runs)]),
            *(item for item in recorded if item["code"] not in _ANEW),
            *of_records(run.record for run in runs),
            *_of_results(benchmark, runs, results),
        ]
    )


def answered(remarks: Iterable[Remark]) -> list[Item]:
    """Every question with its verdict."""
    known: dict[str, list[Remark]] = defaultdict(list)
    for item in _once(remarks):
        known[item["code"]].append(item)
    items = []
    for question, codes, otherwise in _QUESTIONS:
        found = [item for code in codes.split() for item in known[code]]
        if all(item["severity"] == "note" and item["code"] not in _SPOILING for item in found):
            found = [remark("fine", "", otherwise), *found]
        spoiling = any(
            item["code"] in _SPOILING
            and item["severity"] != "note"
            and (item["code"] != "scratch_missing" or known["pretraining_differs"])
            for item in found
        )
        verdicts = [PROBLEM] if spoiling else [_VERDICTS[item["severity"]] for item in found]
        worst = next(verdict for verdict in (PROBLEM, CAUTION, UNKNOWN, IN_ORDER) if verdict in verdicts)
        items.append(Item(question, worst, " ".join(map(said, found))))
    return items


def said(item: Remark) -> str:
    """A remark's sentence, with the datasets it is about."""
    return item["text"] + (f" ({', '.join(item['datasets'])})" if item.get("datasets") else "")


def remark(severity: str, code: str, text: str, *datasets: str) -> Remark:
    """One remark."""
    return {"severity": severity, "code": code, "text": text, "datasets": [*datasets]}


def of_records(records: Iterable[Record]) -> Iterator[Remark]:
    """Remarks about runs that have run: whether they ran under the same conditions.

    Args:
        records: contents of cell.json files.
    """
    done = [record for record in records if record.get("state") == "done"]
    training, inputs = ([record.get(part) or {} for record in done] for part in ("training", "inputs"))
    hosts = {str(record.get("host")) for record in done}
    devices = {str(one.get("device_name") or other.get("device")) for one, other in zip(training, inputs)}
    where, which = (", ".join(sorted(names)) for names in (hosts, devices))
    versions = defaultdict(set)
    for package, version in (pair for item in inputs for pair in (item.get("versions") or {}).items()):
        versions[package].add(version)
    for package, several in versions.items():
        if len(several) > 1:
            text = f"Runs were made with different versions of {package}: {', '.join(sorted(several))}."
            yield remark("flag", "versions_differ", text)
    if len(devices) > 1:
        text = f"Runs were made on different hardware ({which}; on {where}): their times and memory do not compare."
        yield remark("flag", "hardware_differs", text)
    elif len(hosts) > 1:
        text = f"Runs were made on several machines of the same kind ({where}): small differences in time mean nothing."
        yield remark("fine", "hosts_differ", text)


# ---------------------------------------------------------------------------------------- what a row is


@dataclass(frozen=True)
class Identity:
    """What a row is, by the ancestors of its class and the network of its plans: names are its users' business.

    Attributes:
        trainer: what it is called.
        stock: whether the network is one of nnU-Net's own.
        residual: whether it has nnU-Net's residual encoder.
        record: of the nearest ancestor (itself first) that is a trainer of this package, None if none is.
        suffix: of that ancestor's length variant.
    """

    trainer: str
    stock: bool
    residual: bool
    record: catalogue.TrainerRecord | None
    suffix: str

    @property
    def name(self) -> str:
        """Of the nearest ancestor in the catalogue, else its own."""
        return self.trainer if self.record is None else self.record.name + self.suffix

    @property
    def derived(self) -> bool:
        """Whether it is a subclass of what the catalogue has."""
        return self.name != self.trainer

    @property
    def controls(self) -> list[str]:
        """Names of this package's trainers that are the same but for one part."""
        if self.record is None:
            return []
        return [item.name + self.suffix for item in catalogue.TRAINERS if item.control_of == self.record.name]


def facts(row: Row, probed: Record) -> Record:
    """What benchmark.json records about a row.

    Args:
        row: of the configuration.
        probed: what `probe` says.
    """
    trainer = probed["trainers"][row.name]
    networks = {pair.get("network_class") for name, pair in probed["pairs"].items() if name.endswith(f" {row.key}")}
    return {
        **row.to_dict(),
        **{name: trainer[name] for name in ("weights", "ancestors", "stock_network")},
        "network_classes": sorted(filter(None, networks)),
    }


def identify(recorded: Record) -> Identity:
    """What a row is.

    Args:
        recorded: see `facts`.
    """
    record, suffix = None, ""
    for ancestor in reversed(recorded["ancestors"]):  # so that the nearest stays
        module, _, name = ancestor.rpartition(".")
        with contextlib.suppress(ValueError):
            if module.startswith("swin_umamba_nnunet."):
                record = catalogue.get_trainer(name)
                suffix = name.removeprefix(record.name)
    networks = recorded["network_classes"]
    stock = recorded["stock_network"] and all(name.startswith("dynamic_network_architectures.") for name in networks)
    return Identity(recorded["name"], stock, any("ResidualEncoder" in name for name in networks), record, suffix)


def identities(rows: Iterable[Row]) -> dict[str, Identity]:
    """Label -> what the row is, of those whose facts say it (an older version did not record their ancestors)."""
    return {row.label: identify(row.recorded) for row in rows if row.recorded.get("ancestors")}


# ------------------------------------------------------------------------------------------- before anything runs


def of_rows(given: Sequence[Row]) -> Iterator[Remark]:
    """Remarks about which rows there are, from what is recorded about them: pretrained ones, baselines, controls."""
    pretrained = [row.label for row in given if row.recorded.get("weights")]
    scratch = [row.label for row in given if row.label not in pretrained]
    if pretrained and scratch:
        text = (
            "Some rows start from ImageNet weights and some from random ones: a difference between them is not one "
            f"between architectures. From ImageNet: {', '.join(pretrained)}; from scratch: {', '.join(scratch)}."
        )
        yield remark("flag", "pretraining_differs", text)
    elif pretrained:
        text = f"All rows start from ImageNet weights ({', '.join(pretrained)}); none shows what they add."
        yield remark("flag", "all_pretrained", text)
    rows = identities(given)
    if len(rows) < len(given):
        text = (
            "This benchmark was run by a version that did not record what its trainers derive from; run it once more "
            "(finished runs are kept) to have it recorded."
        )
        yield from (remark("unknown", code, text) for code in ("baselines", "controls"))
        return
    by_name = {row.name: label for label, row in reversed(rows.items()) if label not in pretrained}
    controls = False
    for label, row in rows.items():
        how = f" (changed as {row.trainer} is)" if row.derived else ""
        if label in pretrained:
            wanted = row.record and row.record.scratch + row.suffix
            text = f"{label} starts from ImageNet weights"
            if wanted in by_name:
                text = f"{by_name[wanted]} is {label} from random weights: compare architectures by that."
                yield remark("fine", "scratch_present", text)
            elif wanted:
                yield remark("suggestion", "scratch_missing", f"{text}; add {wanted}{how} to see what they contribute.")
            else:
                text += ", and no row is known to be it from random ones."
                yield remark("suggestion", "scratch_missing", text)
        for control in row.controls:
            controls = True
            there = sorted((rows[name].derived != row.derived, name) for name in rows if rows[name].name == control)
            if not there:
                text = f"Add {control}{how}, the control of {label}: the same but for one part."
                yield remark("suggestion", "control_missing", text)
            elif there[0][0]:  # none of the same making
                text = f"{there[0][1]} is the control of {label}, but only one of the two is a trainer of the user's: "
                yield remark("flag", "controls_unequal", f"{text}they may differ in more.")
            else:
                yield remark("fine", "controls", f"{there[0][1]} is the control of {label}.")
    if not controls:
        yield remark("unknown", "controls", "No row has a control that this package knows of.")
    stock = {label: row.residual for label, row in rows.items() if row.stock}
    if False not in stock.values():
        text = "Add nnU-Net itself (nnUNetTrainer, in the same number of epochs) as the baseline everybody knows."
        yield remark("suggestion", "nnunet_missing", text)
    if True not in stock.values():
        text = (
            "Add nnU-Net's residual encoder (nnUNetTrainer with plans nnUNetResEncUNetLPlans), "
            "the stronger baseline of nnU-Net Revisited (arXiv 2404.09556)."
        )
        yield remark("suggestion", "resenc_missing", text)
    text = f"Baselines among the rows: {', '.join(sorted(stock, key=lambda label: stock[label])) or 'none'}."
    yield remark("fine" if stock else "problem", "baselines", text)


def _of_settings(config: BenchmarkConfig, probed: Record) -> Iterator[Remark]:
    """Remarks about plans, trainers, checkpoints, mirroring, seeds and folds."""
    by_plans = defaultdict(list)
    for row in config.trainers:
        by_plans[row.plans, row.configuration].append(row.label)
        own = [what for what in probed["trainers"][row.name].get("own_protocol", []) if what != "the split"]
        if own:
            text = f"{row.label} does not follow nnU-Net's trainer in: {', '.join(own)}."
            yield remark("flag", "own_protocol", text)
    if len(by_plans) > 1:
        how = "; ".join(f"{' '.join(plans)}: {', '.join(labels)}" for plans, labels in by_plans.items())
        text = f"Rows were planned differently, so they differ in more than the network ({how})."
        yield remark("flag", "plans_differ", text)
    if config.checkpoint != CHECKPOINTS[0]:
        held_out = config.test or config.folds == ("all",)
        which = "." if held_out else ", which are the ones scored here: scores are optimistic."
        text = f"All rows predict with {config.checkpoint}, chosen on the validation cases of the fold{which}"
        yield remark("note" if held_out else "flag", "selected_on_validation", text)
    if not config.mirroring:
        yield remark("note", "no_mirroring", "No row mirrors at test time, other than nnU-Net's default.")
    if len(config.seeds) == 1:
        yield remark("flag", "one_seed", f"One seed ({config.seeds[0]}): how much {_CHANCE}")
    numbered = [fold for fold in config.folds if fold != "all"]
    if "all" in config.folds:
        text = 'Fold "all" trains on every training case, so its scores come from the test set.'
        yield remark("note", "fold_all", text)
        if numbered and not config.test:
            text = 'Fold "all" is scored on the test set, other folds on their validation cases; do not average them.'
            yield remark("flag", "scored_cases_differ", text)
    if 1 < len(numbered) < 5 and not config.test:
        text = f"Folds {', '.join(map(str, numbered))}: cases of other folds, where the split has any, are not scored."
        yield remark("note", "some_folds", text)


def _of_recipes(recipes: Mapping[str, Record], dataset: str) -> Iterator[Remark]:
    """Remarks about what the rows (by label) do with one dataset."""
    lengths = {label: recipe["epochs"] * recipe["iterations_per_epoch"] for label, recipe in recipes.items()}
    if len(set(lengths.values())) > 1:
        how = "; ".join(
            f"{label}: {recipe['epochs']} x {recipe['iterations_per_epoch']} = {lengths[label]:,}"
            for label, recipe in recipes.items()
        )
        text = f"Rows train for different numbers of iterations (epochs x iterations per epoch: {how})."
        yield remark("flag", "iterations_differ", text, dataset)
    for key, (code, what) in _COMPARED.items():
        values = {label: str(recipe[key]) for label, recipe in recipes.items()}
        if len(set(values.values())) > 1:
            how = "; ".join(map(": ".join, values.items()))
            yield remark("flag", code, f"Rows differ in {what} ({how}).", dataset)
    for label, recipe in recipes.items():
        if recipe.get("split"):
            text = f"{label} has its own idea of folds {recipe['split']}: it may train on cases it is scored on."
            yield remark("flag", "split_differs", text, dataset)


# ---------------------------------------------------------------------------------------------- what results show


def _of_results(benchmark: "Benchmark", runs: Sequence["Scored"], results: Sequence["Result"]) -> Iterator[Remark]:
    """Remarks about the results of a benchmark, and of its `runs` that were trained."""
    from swin_umamba_nnunet.benchmark.report.words import suitability  # brings pandas

    done = [(run.row.label, run.title, run.part("training")) for run in runs if run.done]
    totals = {(item.get("epochs") or 0) * (item.get("iterations_per_epoch") or 0) for *_, item in done} - {0}
    usual, longest = catalogue.FULL_LENGTH * 250, max(totals, default=0)
    if not totals:
        yield remark("unknown", "lengths", "The number of iterations is not recorded.")
    else:
        text = f"{' or '.join(f'{total:,}' for total in sorted(totals))} iterations per training, "
        text += f"nnU-Net's own length is {usual:,}"
        short = longest < usual
        share = f" (at most {100 * longest / usual:.2g} %): short trainings need not rank as long ones do."
        yield remark("flag" if short else "fine", "lengths", text + (share if short else "."))
    for result in results:
        severity, text = suitability(result.suitability)
        yield remark(severity, "separation", text, result.title)
    count = len({result.dataset for result in results})
    few = "; nothing is known about others" if count < FEW_DATASETS else ""
    yield remark("flag" if few else "fine", "datasets", f"{plural(count, 'dataset')}{few}.")
    seeds, folds = (sorted({getattr(run, name) for run in runs if run.done}, key=str) for name in ("seed", "fold"))
    severity, text = "fine", ""
    if len(seeds) < 2:
        severity, text = "problem", f" How much {_CHANCE}"
    elif len(seeds) < FEW_SEEDS:
        severity, text = "flag", " A standard deviation over so few seeds is a rough guess."
    how_many = f"{plural(len(seeds), 'seed')}, {plural(len(folds), 'fold')} ({', '.join(map(str, folds))})."
    yield remark(severity, "repetitions", how_many + text)
    summaries = [item for result in results for found in result.summaries.values() for item in found]
    undefined, infinite = (sum(getattr(item, name) for item in summaries) for name in ("n_undefined", "n_infinite"))
    text = "All runs are done."
    if missing := len(benchmark.missing):
        text = f"{missing} of {plural(len(benchmark.runs), 'run')} have no scores (listed under Runs)."
    text += f" {undefined} undefined and {infinite} infinite values are left out of means and counted."
    yield remark("problem" if missing else "fine", "completeness", text)
    text = "Whether settings were chosen by hand while looking at these scores, no report can see."
    yield remark("note", "by_hand", text)
    comparisons = [item for result in results for found in result.comparisons.values() for item in found]
    hopeless = sum(item.hopeless for item in comparisons)
    text = " p values are corrected over the planned trainers of a table (Holm), not over datasets and metrics."
    if hopeless:
        text = f"In {hopeless} of {len(comparisons)} comparisons there are too few cases to show anything.{text}"
    text = text.strip() if comparisons else "No row could be compared with the baseline."
    text += " Cases count as independent; if several come from one patient, intervals are too narrow and p too small."
    yield remark("problem" if hopeless else "fine" if comparisons else "unknown", "tests", text)
    others = list(dict.fromkeys(label for label, _, one in done if not one.get("replays")))
    if own := list(dict.fromkeys(label for label, *_ in done if label not in others)):
        text = f"A training of {', '.join(own)} follows from its seed, bit by bit, on the same machine with the same "
        yield remark("note", "replays", f"{text}data, versions and number of threads.")
    if others:
        text = f"Of {', '.join(others)} a seed fixes the initial weights; batches that background workers make "
        yield remark("note", "replays", f"{text}(nnU-Net's default) come from seeds of their own.")
    if resumed := [title for _, title, one in done if one.get("resumed_at_epoch") and not one.get("replays")]:
        text = "Went on from a checkpoint and so drew other random numbers than a training in one go: "
        yield remark("flag", "resumed", f"{text}{'; '.join(resumed)}.")
