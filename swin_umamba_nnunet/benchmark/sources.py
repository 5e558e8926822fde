"""nnU-Net datasets on this machine: found, checked to be preprocessed, and which cases a fold is scored on.

Reads the same files as nnU-Net without importing it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba_nnunet._text import listed, plural
from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.files import BenchmarkError, Record, read_json
from swin_umamba_nnunet.catalogue import how_to_plan

DEFAULT_FOLDS = 5  # of the split that nnU-Net makes where there is none


@dataclass(frozen=True)
class Case:
    """One case: its images, a file per channel, and its ground truth."""

    images: tuple[Path, ...]
    reference: Path


@dataclass(frozen=True)
class Dataset:
    """An nnU-Net dataset.

    Attributes:
        name: "Dataset901_Synthetic".
        raw: its folder in nnUNet_raw.
        preprocessed: its folder in nnUNet_preprocessed.
    """

    name: str
    raw: Path
    preprocessed: Path

    @property
    def number(self) -> str:
        """As nnU-Net's commands take it."""
        return self.name[7:10]

    @property
    def description(self) -> Record:
        """dataset.json, the preprocessed copy of which nnU-Net reads too."""
        return read_json(self.preprocessed / "dataset.json") or {}

    @property
    def file_ending(self) -> str:
        return self.description.get("file_ending", "")

    @property
    def splits_file(self) -> Path:
        return self.preprocessed / "splits_final.json"

    def plans_file(self, plans: str) -> Path:
        return self.preprocessed / f"{plans}.json"

    def folds(self) -> list[dict[str, list[str]]]:
        """What splits_final.json says; empty if it does not exist yet."""
        return read_json(self.splits_file) or []

    def knows(self, fold: int | str, test: bool) -> bool:
        """Whether it is settled which cases are scored; of a fold, once there is a split."""
        return bool(self.folds()) or fold == "all" or test

    def scored_cases(self, fold: int | str, test: bool) -> dict[str, Case]:
        """The cases that a training on `fold` is scored on.

        Raises:
            BenchmarkError: there are none, or files of them are missing.
        """
        if test or fold == "all":
            cases = self._labelled("Ts")
            if not cases:
                why = "`test = true`" if test else 'fold "all"'
                raise BenchmarkError(
                    f"{self.name}: {why} scores on the test set, but {self.raw / 'imagesTs'} and "
                    f"{self.raw / 'labelsTs'} hold no labelled case; name folds of the split instead"
                )
            return cases
        named = self.description.get("dataset")
        cases = {name: self._listed(named[name]) for name in named} if named else self._labelled("Tr")
        names = self.folds()[int(fold)]["val"]
        missing = [name for name in names if name not in cases]
        if missing:
            raise BenchmarkError(
                f"{self.name}: fold {fold} is scored on {missing[0]} ({len(missing)} such), but {self.raw} has no "
                f"such image with its label; put the raw dataset back, or correct {self.splits_file}"
            )
        return {name: cases[name] for name in names}

    def _listed(self, entry: Record) -> Case:
        image, *further, label = (self.raw / os.path.expandvars(path) for path in [*entry["images"], entry["label"]])
        return Case((image, *further), label)

    def _labelled(self, part: str) -> dict[str, Case]:
        """Cases with a label; image files are called CASE_0000ENDING, CASE_0001ENDING, ..."""
        ending, channels = self.file_ending, dict[str, list[Path]]()
        for path in sorted((self.raw / f"images{part}").glob(f"*_????{ending}")):
            stem = path.name.removesuffix(ending)
            if stem[-4:].isdecimal():
                channels.setdefault(stem[:-5], []).append(path)
        labels = {name: self.raw / f"labels{part}" / f"{name}{ending}" for name in channels}
        return {name: Case(tuple(channels[name]), label) for name, label in labels.items() if label.is_file()}


def observer_folders(name: str, given: Any, datasets: Sequence[Dataset]) -> dict[Dataset, Path]:
    """Of each dataset that an observer has segmented, where.

    Args:
        name: of the observer.
        given: a folder, or dataset (id or name) -> folder.
        datasets: all of the benchmark.

    Raises:
        BenchmarkError: there is no such folder or dataset, or it is not said of which dataset a folder is.
    """
    if not isinstance(given, Mapping):
        if len(datasets) > 1:
            raise BenchmarkError(
                f"`observers`: {name} has one folder, but there are {len(datasets)} datasets; say of which it is, as "
                f'in {name} = {{{datasets[0].number} = "{given}"}}'
            )
        given = {dataset.name: given for dataset in datasets}
    known = {key: item for item in datasets for key in (item.name, item.number, item.number.lstrip("0"))}
    folders = {}
    for dataset, folder in given.items():
        if dataset not in known:
            there = ", ".join(item.name for item in datasets)
            raise BenchmarkError(f"`observers`: {name} has a folder of the dataset {dataset}; there are: {there}")
        folders[known[dataset]] = path = Path(folder).expanduser().absolute()
        if not path.is_dir():
            raise BenchmarkError(f"`observers`: {path}, with the segmentations of {name}, is not a folder")
    return folders


def observed(name: str, folder: Path, dataset: Dataset, cases: Mapping[str, Case]) -> dict[str, Path]:
    """What an observer's folder of predictions holds: names of files -> files.

    Raises:
        BenchmarkError: a scored case has no segmentation, or the reference is taken for one.
    """
    by_case = {case: folder / f"{case}{dataset.file_ending}" for case in cases}
    if missing := [path.name for path in by_case.values() if not path.is_file()]:
        raise BenchmarkError(
            f"`observers`: {folder}, with the segmentations of {name}, has no {listed(missing)}: {len(missing)} of the "
            f"{plural(len(by_case), 'case')} of {dataset.name} that are scored; files are called as the cases are"
        )
    if same := [case for case, path in by_case.items() if path.resolve() == cases[case].reference.resolve()]:
        raise BenchmarkError(
            f"`observers`: the segmentation of {same[0]} by {name} is the reference itself, {cases[same[0]].reference}"
        )
    files = {path.name: path for path in by_case.values()}
    spacings = {f"{case}.json": folder / f"{case}.json" for case in cases}  # see `runner`
    found = {file: path for file, path in spacings.items() if path.is_file()}
    return {**files, **found, "dataset.json": dataset.preprocessed / "dataset.json"}


def nnunet_folder(variable: str) -> Path:
    """The folder that one of nnU-Net's environment variables names.

    Raises:
        BenchmarkError: it names none.
    """
    value = os.environ.get(variable)
    if not value:
        raise BenchmarkError(f"the environment variable {variable} is not set; set it as for nnU-Net's own commands")
    if not Path(value).is_dir():
        raise BenchmarkError(f"{variable} is {value}, which is not a folder")
    return Path(value).absolute()


def find_dataset(wanted: int | str, raw: Path, preprocessed: Path) -> Dataset:
    """The dataset with this id or name, in these folders of nnU-Net.

    Raises:
        BenchmarkError: it is not there, or not complete.
    """
    name = str(wanted)
    if isinstance(wanted, int):
        pattern = f"Dataset{wanted:03d}_*"
        names = sorted({path.name for folder in (raw, preprocessed) for path in folder.glob(pattern) if path.is_dir()})
        if len(names) != 1:
            found = f"several: {', '.join(names)}; give the name" if names else f"none in {raw} and {preprocessed}"
            raise BenchmarkError(f"dataset {wanted}: exactly one folder called {pattern} was expected, found {found}")
        name = names[0]
    dataset = Dataset(name, raw / name, preprocessed / name)
    if not dataset.preprocessed.is_dir() and not dataset.raw.is_dir():
        raise BenchmarkError(f"dataset {wanted!r} is neither in {raw} nor in {preprocessed}")
    if not dataset.file_ending:
        raise BenchmarkError(
            f"{name} is not preprocessed ({dataset.preprocessed / 'dataset.json'} is missing or incomplete); run   "
            f"nnUNetv2_plan_and_preprocess -d {dataset.number} --verify_dataset_integrity"
        )
    if not (dataset.raw / "dataset.json").is_file():
        raise BenchmarkError(
            f"{name}: {dataset.raw} has no dataset.json; the raw images are needed to predict and to score"
        )
    return dataset


def check_plans(dataset: Dataset, row: Row) -> None:
    """See that plans, configuration and preprocessed data of a row are there.

    Raises:
        BenchmarkError: they are not.
    """
    file = dataset.plans_file(row.plans)
    plans = read_json(file)
    if plans is None:
        present = sorted(path.stem for path in dataset.preprocessed.glob("*Plans*.json"))
        raise BenchmarkError(
            f"{dataset.name} has no plans {row.plans} ({file} is missing; there are: {', '.join(present) or 'none'}); "
            + how_to_plan(dataset.number, row.plans, row.configuration)
        )
    configurations = plans.get("configurations", {})
    if row.configuration not in configurations:
        raise BenchmarkError(
            f"{dataset.name}: {row.plans} has no configuration {row.configuration}; it has "
            + (", ".join(configurations) or "none")
        )
    if _inherited(configurations, row.configuration, "previous_stage"):
        raise BenchmarkError(
            f"{dataset.name}: {row.configuration} is the second stage of a cascade, which needs the predictions of the "
            "first; compare configurations that stand alone"
        )
    folder = dataset.preprocessed / _inherited(configurations, row.configuration, "data_identifier")
    if not folder.is_dir() or not any(folder.iterdir()):
        raise BenchmarkError(
            f"{dataset.name} is planned but not preprocessed for {row.plans} {row.configuration} ({folder} is missing "
            f"or empty); run   nnUNetv2_preprocess -d {dataset.number} -plans_name {row.plans} -c {row.configuration}"
        )


def check_fold(dataset: Dataset, fold: int | str, test: bool) -> None:
    """See that a fold exists and its cases can be scored.

    Raises:
        BenchmarkError: it does not, or they cannot.
    """
    splits = dataset.folds()
    count = len(splits) or DEFAULT_FOLDS
    if fold != "all" and int(fold) >= count:
        raise BenchmarkError(
            f"{dataset.name}: fold {fold} does not exist; its split has {count} folds, 0 to {count - 1} (nnU-Net would "
            "silently make a random split instead)"
        )
    if dataset.knows(fold, test):
        dataset.scored_cases(fold, test)


def _inherited(configurations: Record, name: str, key: str) -> str:
    """A configuration's value, from the one it inherits from where it has none itself."""
    seen = set()
    while name in configurations and name not in seen:
        seen.add(name)
        if key in configurations[name]:
            return configurations[name][key]
        name = configurations[name].get("inherits_from", "")
    return ""
