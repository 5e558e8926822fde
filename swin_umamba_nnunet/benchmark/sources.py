"""nnU-Net datasets on this machine: found, checked to be preprocessed, and which cases a fold is scored on.

Reads the same files as nnU-Net without importing it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.config import Row
from swin_umamba_nnunet.benchmark.files import MatrixError, read_json

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
    def description(self) -> dict[str, Any]:
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

    def training_cases(self) -> dict[str, Case]:
        """Every labelled case of the training set."""
        if "dataset" in self.description:
            return {name: self._listed(entry) for name, entry in self.description["dataset"].items()}
        return _pair(self.raw / "imagesTr", self.raw / "labelsTr", self.file_ending)

    def test_cases(self) -> dict[str, Case]:
        """Every labelled case of the test set; empty if it has no labels."""
        return _pair(self.raw / "imagesTs", self.raw / "labelsTs", self.file_ending)

    def scored_cases(self, fold: int | str, test: bool) -> dict[str, Case]:
        """The cases that a training on `fold` is scored on.

        Raises:
            MatrixError: there are none, or files of them are missing.
        """
        if test or fold == "all":
            cases = self.test_cases()
            if not cases:
                why = "`test = true`" if test else 'fold "all"'
                raise MatrixError(
                    f"{self.name}: {why} scores on the test set, but {self.raw / 'imagesTs'} and "
                    f"{self.raw / 'labelsTs'} hold no labelled case; name folds of the split instead"
                )
            return cases
        names, cases = self.folds()[int(fold)]["val"], self.training_cases()
        missing = [name for name in names if name not in cases]
        if missing:
            raise MatrixError(
                f"{self.name}: fold {fold} is scored on {missing[0]} ({len(missing)} such), but {self.raw} has no "
                "such image with its label; put the raw dataset back, or correct " + str(self.splits_file)
            )
        return {name: cases[name] for name in names}

    def folds(self) -> list[dict[str, list[str]]]:
        """What splits_final.json says; empty if it does not exist yet."""
        return read_json(self.splits_file) or []

    def _listed(self, entry: Mapping[str, Any]) -> Case:
        def absolute(path: str) -> Path:
            return self.raw / os.path.expandvars(path)

        return Case(tuple(absolute(path) for path in entry["images"]), absolute(entry["label"]))


def _pair(images: Path, labels: Path, file_ending: str) -> dict[str, Case]:
    """Cases with a label; image files are called CASE_0000ENDING, CASE_0001ENDING, ..."""
    channels: dict[str, list[Path]] = {}
    for path in sorted(images.glob(f"*{file_ending}")) if file_ending else ():
        stem = path.name.removesuffix(file_ending)
        if stem[-5:-4] == "_" and stem[-4:].isdecimal():
            channels.setdefault(stem[:-5], []).append(path)
    references = {name: labels / f"{name}{file_ending}" for name in channels}
    return {name: Case(tuple(channels[name]), path) for name, path in references.items() if path.is_file()}


def find_dataset(wanted: int | str, problems: list[str]) -> Dataset | None:
    """The dataset with this id or name; else None, and what is wrong is added to `problems`."""
    folders = {}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        if not (value := os.environ.get(variable)):
            problems.append(f"the environment variable {variable} is not set; set it as for nnU-Net's own commands")
        elif not Path(value).is_dir():
            problems.append(f"{variable} is {value}, which is not a folder")
        else:
            folders[variable] = Path(value).absolute()
    if len(folders) < 2:
        return None
    raw, preprocessed = folders["nnUNet_raw"], folders["nnUNet_preprocessed"]
    name = str(wanted)
    if isinstance(wanted, int):
        pattern = f"Dataset{wanted:03d}_*"
        names = sorted({path.name for folder in (raw, preprocessed) for path in folder.glob(pattern) if path.is_dir()})
        if len(names) != 1:
            found = f"several: {', '.join(names)}; give the name" if names else f"none in {raw} and {preprocessed}"
            problems.append(f"dataset {wanted}: exactly one folder called {pattern} was expected, found {found}")
            return None
        name = names[0]
    if not (preprocessed / name).is_dir():
        if (raw / name).is_dir():
            number = name[7:10]
            problems.append(
                f"{name} is not preprocessed; run   nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"
            )
        else:
            problems.append(f"dataset {wanted!r} is neither in {raw} nor in {preprocessed}")
        return None
    if not (raw / name / "dataset.json").is_file():
        problems.append(f"{name}: {raw / name} has no dataset.json; the raw images are needed to predict and to score")
        return None
    dataset = Dataset(name, raw / name, preprocessed / name)
    if not dataset.file_ending:
        problems.append(f"{name} is not preprocessed: {dataset.preprocessed / 'dataset.json'} is missing or incomplete")
        return None
    return dataset


def check_plans(dataset: Dataset, row: Row, problems: list[str]) -> bool:
    """Whether plans, configuration and preprocessed data of a row are there; what is not is added to `problems`."""
    number = dataset.name[7:10]
    file = dataset.plans_file(row.plans)
    plans = read_json(file)
    if plans is None:
        present = sorted(path.stem for path in dataset.preprocessed.glob("*Plans*.json"))
        problems.append(
            f"{dataset.name} has no plans {row.plans} ({file} is missing; there are: {', '.join(present) or 'none'}); "
            f"plan it with   nnUNetv2_plan_and_preprocess -d {number}   and -pl PLANNER for other plans"
        )
        return False
    configurations = plans.get("configurations", {})
    if row.configuration not in configurations:
        problems.append(
            f"{dataset.name}: {row.plans} has no configuration {row.configuration}; it has "
            + (", ".join(configurations) or "none")
        )
        return False
    if _inherited(configurations, row.configuration, "previous_stage"):
        problems.append(
            f"{dataset.name}: {row.configuration} is the second stage of a cascade, which needs the predictions of the "
            "first; compare configurations that stand alone"
        )
        return False
    folder = dataset.preprocessed / _inherited(configurations, row.configuration, "data_identifier")
    if not folder.is_dir() or not any(folder.iterdir()):
        problems.append(
            f"{dataset.name} is planned but not preprocessed for {row.plans} {row.configuration} ({folder} is missing "
            f"or empty); run   nnUNetv2_preprocess -d {number} -plans_name {row.plans} -c {row.configuration}"
        )
        return False
    return True


def check_folds(dataset: Dataset, folds: Sequence[int | str], test: bool, problems: list[str]) -> None:
    """Whether the folds exist and their cases can be scored."""
    splits = dataset.folds()
    for fold in folds:
        if fold != "all" and int(fold) >= (len(splits) or DEFAULT_FOLDS):
            there = len(splits) or DEFAULT_FOLDS
            problems.append(
                f"{dataset.name}: fold {fold} does not exist; its split has {there} folds, 0 to {there - 1} (nnU-Net "
                "would silently make a random split instead)"
            )
        elif splits or fold == "all" or test:
            try:
                dataset.scored_cases(fold, test)
            except MatrixError as error:
                problems.append(str(error))


def _inherited(configurations: Mapping[str, Any], name: str, key: str) -> str:
    """A configuration's value, from the one it inherits from where it has none itself."""
    seen = set()
    while name in configurations and name not in seen:
        seen.add(name)
        if key in configurations[name]:
            return configurations[name][key]
        name = configurations[name].get("inherits_from", "")
    return ""
