"""Where a comparison is not like with like, or a reader will ask for a row that is missing: as data for the report.

A finding is {"severity", "code", "text", "rows", "datasets"}.  Severities: "flag" (the comparison is affected; the
report states it beside the numbers), "note" (true of this benchmark and good to know), "suggestion" (a row to add).
What could be enforced is enforced instead: all rows of a dataset share split, scored cases, checkpoint and test-time
mirroring of `nnUNetv2_predict`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swin_umamba_nnunet import catalogue
from swin_umamba_nnunet.benchmark.config import CHECKPOINTS, MatrixConfig, Row

Finding = dict[str, Any]

# what must agree between the rows of a dataset, and how a sentence calls it
_COMPARED = {
    "patch_size": ("patch_differs", "patch size in pixels"),
    "batch_size": ("batch_differs", "batch size"),
    "mirroring_axes": ("mirroring_differs", "test-time mirroring axes, which follow from the trainer"),
}


def findings(config: MatrixConfig, probed: Mapping[str, Any], datasets: Sequence[str]) -> list[Finding]:
    """All findings about a benchmark that is about to run.

    Args:
        config: the benchmark.
        probed: what `probe` says about its rows.
        datasets: full names.
    """
    found = [*_plans(config), *_pretrained(config, probed), *_protocol(config, probed), *_repetitions(config)]
    for dataset in datasets:
        recipes = {row.label: probed["pairs"][f"{dataset} {row.key}"] for row in config.trainers}
        found += [*_lengths(recipes, dataset), *_recipes(recipes, dataset)]
    return [*_merged(found), *_suggestions(config, probed)]


def finding(severity: str, code: str, text: str, rows: Iterable[str] = (), datasets: Iterable[str] = ()) -> Finding:
    """One finding."""
    return {"severity": severity, "code": code, "text": text, "rows": list(rows), "datasets": list(datasets)}


def of_records(records: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Findings about cells that have run: whether they ran under the same conditions.

    Args:
        records: contents of cell.json files.
    """
    hosts, devices, versions = set(), set(), defaultdict(set)
    for record in records:
        if record.get("state") != "done":
            continue
        hosts.add(record.get("host"))
        devices.add((record.get("training") or {}).get("device_name") or record["inputs"]["device"])
        for package, version in record["inputs"]["versions"].items():
            versions[package].add(version)
    found = []
    for package, several in versions.items():
        if len(several) > 1:
            text = f"Cells ran with different versions of {package}: {', '.join(sorted(several))}."
            found.append(finding("flag", "versions_differ", text))
    where = ", ".join(sorted(map(str, hosts)))
    if len(devices) > 1:
        which = ", ".join(sorted(map(str, devices)))
        text = f"Cells ran on different hardware ({which}; on {where}): their times and memory do not compare."
        found.append(finding("flag", "hardware_differs", text))
    elif len(hosts) > 1:
        text = f"Cells ran on several machines of the same kind ({where}): small differences in time mean nothing."
        found.append(finding("note", "hosts_differ", text))
    return found


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


def facts(row: Row, probed: Mapping[str, Any]) -> dict[str, Any]:
    """What benchmark.json records about a row.

    Args:
        row: of the configuration.
        probed: what `probe` says.
    """
    trainer = probed["trainers"][row.name]
    networks = {pair.get("network_class") for name, pair in probed["pairs"].items() if name.endswith(f" {row.key}")}
    return {
        **row.to_dict(), "weights": trainer["weights"], "pretrained": trainer["weights"] is not None,
        "ancestors": trainer["ancestors"], "stock_network": trainer["stock_network"],
        "network_classes": sorted(filter(None, networks)),
    }  # fmt: skip


def identify(recorded: Mapping[str, Any]) -> Identity:
    """What a row is.

    Args:
        recorded: see `facts`.
    """
    known = (_catalogued(name) for name in recorded["ancestors"])
    record, suffix = next((found for found in known if found[0] is not None), (None, ""))
    networks = recorded["network_classes"]
    stock = recorded["stock_network"] and all(name.startswith("dynamic_network_architectures.") for name in networks)
    return Identity(recorded["name"], stock, any("ResidualEncoder" in name for name in networks), record, suffix)


def _catalogued(ancestor: str) -> tuple[catalogue.TrainerRecord | None, str]:
    """The catalogue's record of a class given with its module, and the suffix of its length; else (None, "")."""
    module, _, name = ancestor.rpartition(".")
    try:
        record = catalogue.get_trainer(name)
    except ValueError:
        return None, ""
    return (record, name.removeprefix(record.name)) if module.startswith("swin_umamba_nnunet.") else (None, "")


# ----------------------------------------------------------------------------------------------- findings


def _plans(config: MatrixConfig) -> Iterator[Finding]:
    by_plans = defaultdict(list)
    for row in config.trainers:
        by_plans[row.plans, row.configuration].append(row.label)
    if len(by_plans) > 1:
        said = "; ".join(f"{plans} {name}: {', '.join(labels)}" for (plans, name), labels in by_plans.items())
        text = f"Rows were planned differently, so they differ in more than the network ({said})."
        yield finding("flag", "plans_differ", text, [row.label for row in config.trainers])


def _pretrained(config: MatrixConfig, probed: Mapping[str, Any]) -> Iterator[Finding]:
    pretrained = [row.label for row in config.trainers if probed["trainers"][row.name]["weights"]]
    scratch = [row.label for row in config.trainers if row.label not in pretrained]
    if pretrained and scratch:
        text = (
            "Some rows start from ImageNet weights and some from random ones: a difference between them is not one "
            f"between architectures. From ImageNet: {', '.join(pretrained)}; from scratch: {', '.join(scratch)}."
        )
        yield finding("flag", "pretraining_differs", text, pretrained)


def _protocol(config: MatrixConfig, probed: Mapping[str, Any]) -> Iterator[Finding]:
    for row in config.trainers:
        own = [what for what in probed["trainers"][row.name].get("own_protocol", []) if what != "the split"]
        if own:
            text = f"{row.label} does not follow nnU-Net's trainer in: {', '.join(own)}."
            yield finding("flag", "own_protocol", text, [row.label])
    if config.checkpoint != CHECKPOINTS[0]:
        held_out = config.test or config.folds == ("all",)
        which = "." if held_out else ", which are the ones scored here: scores are optimistic."
        text = f"All rows predict with {config.checkpoint}, chosen on the validation cases of the fold{which}"
        yield finding("note" if held_out else "flag", "selected_on_validation", text)
    if not config.mirroring:
        yield finding("note", "no_mirroring", "No row mirrors at test time, other than nnU-Net's default.")


def _repetitions(config: MatrixConfig) -> Iterator[Finding]:
    if len(config.seeds) == 1:
        text = f"One seed ({config.seeds[0]}): how much chance contributes to a difference is not measured."
        yield finding("flag", "one_seed", text)
    if "all" in config.folds:
        text = 'Fold "all" trains on every training case, so its scores come from the test set.'
        yield finding("note", "fold_all", text)
    if "all" in config.folds and len(config.folds) > 1 and not config.test:
        text = 'Fold "all" is scored on the test set, other folds on their validation cases; do not average them.'
        yield finding("flag", "scored_cases_differ", text)
    if 1 < len({fold for fold in config.folds if fold != "all"}) < 5:
        text = f"Folds {', '.join(map(str, config.folds))} of nnU-Net's five: not every training case is scored."
        yield finding("note", "some_folds", text)


def _lengths(recipes: Mapping[str, Mapping[str, Any]], dataset: str) -> Iterator[Finding]:
    """Rows that see different numbers of training iterations."""
    lengths = {label: recipe["epochs"] * recipe["iterations_per_epoch"] for label, recipe in recipes.items()}
    if len(set(lengths.values())) > 1:
        said = "; ".join(
            f"{label}: {recipe['epochs']} x {recipe['iterations_per_epoch']} = {lengths[label]:,}"
            for label, recipe in recipes.items()
        )
        text = f"Rows train for different numbers of iterations (epochs x iterations per epoch: {said})."
        yield finding("flag", "iterations_differ", text, recipes, [dataset])


def _recipes(recipes: Mapping[str, Mapping[str, Any]], dataset: str) -> Iterator[Finding]:
    for key, (code, what) in _COMPARED.items():
        values = {label: recipe[key] for label, recipe in recipes.items()}
        if len({str(value) for value in values.values()}) > 1:
            said = "; ".join(f"{label}: {value}" for label, value in values.items())
            yield finding("flag", code, f"Rows differ in {what} ({said}).", recipes, [dataset])
    for label, recipe in recipes.items():
        if recipe.get("split"):
            text = f"{label} has its own idea of folds {recipe['split']}: it may train on cases it is scored on."
            yield finding("flag", "split_differs", text, [label], [dataset])


def _suggestions(config: MatrixConfig, probed: Mapping[str, Any]) -> Iterator[Finding]:
    rows = {row.label: identify(facts(row, probed)) for row in config.trainers}
    there = {row.name for row in rows.values()}
    for label, row in rows.items():
        if row.record is None:
            continue
        how = f" (changed as {row.trainer} is)" if row.derived else ""
        if row.record.pretrained and (scratch := row.record.scratch + row.suffix) not in there:
            text = f"{label} starts from ImageNet weights; add {scratch}{how} to see what they contribute."
            yield finding("suggestion", "scratch_missing", text, [label])
        for control in row.controls:
            if control not in there:
                text = f"Add {control}{how}, the control of {label}: the same but for one part."
                yield finding("suggestion", "control_missing", text, [label])
    stock = [row for row in rows.values() if row.stock]
    if all(row.residual for row in stock):
        text = "Add nnU-Net itself (nnUNetTrainer, in the same number of epochs) as the baseline everybody knows."
        yield finding("suggestion", "nnunet_missing", text)
    if not any(row.residual for row in stock):
        text = (
            "Add nnU-Net's residual encoder (nnUNetTrainer with plans nnUNetResEncUNetLPlans), "
            "the stronger baseline of nnU-Net Revisited (arXiv 2404.09556)."
        )
        yield finding("suggestion", "resenc_missing", text)


def _merged(found: Iterable[Finding]) -> list[Finding]:
    """The same of several datasets is said once."""
    merged: dict[tuple[str, str], Finding] = {}
    for item in found:
        key = (item["code"], item["text"])
        if key in merged:
            merged[key]["datasets"] += item["datasets"]
        else:
            merged[key] = item
    return list(merged.values())
