"""The files of a case: label files of two folders paired by name, and the images they belong to.

A case is a label file in the ground-truth folder and its namesake in the prediction folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from swin_umamba_nnunet._text import listed, plural
from swin_umamba_nnunet.evaluation.records import EvaluationError

# What nnU-Net's readers read, longest first so that ".nii.gz" is not taken for ".gz".
FILE_ENDINGS = (".nii.gz", ".tiff", ".nrrd", ".gipl", ".nii", ".mha", ".png", ".bmp", ".tif")
_OTHER_IMAGES = (".jpg", ".jpeg", ".gif", ".webp", ".npy", ".npz", ".dcm", ".h5", ".mhd")
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class CasePair:
    """One case: its name (file name without ending) and its two label files."""

    name: str
    ground_truth: Path
    prediction: Path


class Pairing(NamedTuple):
    """The cases that two folders have in common, and the names only the ground truth or only the predictions have."""

    cases: list[CasePair]
    unpredicted: list[str]
    unlabelled: list[str]


def pair_cases(
    ground_truth: Path | str,
    predictions: Path | str,
    *,
    file_ending: str | None = None,
    ground_truth_suffix: str = "",
    allow_missing: bool = False,
) -> Pairing:
    """Pair the label files of two folders by name.

    The ending is found per folder, so ground truth and predictions may have different ones.

    Args:
        ground_truth: folder with the reference label files.
        predictions: folder with the predicted label files.
        file_ending: only files with this ending, in both folders; needed where a folder mixes endings.
        ground_truth_suffix: cut from the names of ground-truth files that end in it, e.g. "_label".
        allow_missing: evaluate the cases that both folders have; otherwise every name without partner is an error.

    Returns:
        The cases and what is left out, sorted by name.

    Raises:
        EvaluationError: a folder does not exist, has no label files or files of several endings, a name occurs
            twice, or cases have no partner (all of them are counted, the first ten named).
    """
    truth = find_label_files(ground_truth, "ground truth", file_ending, ground_truth_suffix)
    predicted = find_label_files(predictions, "prediction", file_ending)
    missing, extra = sorted(truth.keys() - predicted.keys()), sorted(predicted.keys() - truth.keys())
    common = sorted(truth.keys() & predicted.keys())
    if not common:
        raise EvaluationError(
            f"no case of {ground_truth} has a prediction in {predictions}: files are paired by name without ending, "
            f"and one has {listed(missing, _NAMES_SHOWN)}, the other {listed(extra, _NAMES_SHOWN)}"
        )
    if (missing or extra) and not allow_missing:
        parts = [
            f"{plural(len(names), 'case')} without {what}: {listed(names, _NAMES_SHOWN)}"
            for names, what in ((missing, f"a prediction in {predictions}"), (extra, f"ground truth in {ground_truth}"))
            if names
        ]
        raise EvaluationError(
            "; ".join(parts) + ". Add the files, or evaluate only the cases that both folders have with --allow-missing"
        )
    return Pairing([CasePair(name, truth[name], predicted[name]) for name in common], missing, extra)


def find_label_files(
    folder: Path | str, role: str, file_ending: str | None = None, suffix: str = ""
) -> dict[str, Path]:
    """Case name -> file, for the label files of a folder (subfolders and hidden files are not looked at).

    Args:
        folder: where to look.
        role: what the folder is, for error messages.
        file_ending: only these files; all endings that nnU-Net reads if None.
        suffix: cut from the end of names that have it.

    Raises:
        EvaluationError: see `pair_cases`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EvaluationError(f"the {role} folder {folder} does not exist; expected a folder of label files")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    dot = "." if file_ending and file_ending[0].isalnum() else ""  # png means .png, and _seg.png itself
    wanted = (dot + file_ending,) if file_ending else FILE_ENDINGS
    by_ending = {
        ending: paths
        for ending in wanted
        if (paths := [path for path in files if path.name.lower().endswith(ending.lower())])
    }
    if not by_ending:
        others = sorted({path.suffix.lower() for path in files} & set(_OTHER_IMAGES))
        has = f" (it has {', '.join(others)} files)" if others else " (it is empty)" if not files else ""
        raise EvaluationError(
            f"the {role} folder {folder} has no label files{has}; expected files ending in {', '.join(wanted)}, "
            "which are what nnU-Net reads"
        )
    if len(by_ending) > 1:
        found = ", ".join(f"{len(paths)} {ending}" for ending, paths in by_ending.items())
        raise EvaluationError(f"the {role} folder {folder} mixes files: {found}; say which with --file-ending")
    ((ending, paths),) = by_ending.items()
    named: dict[str, Path] = {}
    for path in paths:
        name = path.name[: -len(ending)]
        name = name.removesuffix(suffix) or name
        if name in named:
            raise EvaluationError(f"{path} and {named[name]} are both case {name}; remove or rename one of them")
        named[name] = path
    return named


def find_images(folder: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The image files of each case: nnU-Net's CASE_0000.ENDING, CASE_0001.ENDING, ..., or else CASE.ENDING.

    Args:
        folder: nnU-Net's imagesTr or imagesTs, or any folder of that kind.
        names: of the cases.

    Raises:
        EvaluationError: the folder does not exist, or has no image of a case.
    """
    if not folder.is_dir():
        raise EvaluationError(f"the image folder {folder} does not exist; expected nnU-Net's imagesTr or imagesTs")
    there = {path.name: path for path in folder.iterdir()}
    found = {name: files for name in names if (files := _files_of(there, name))}
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and of {len(missing) - 1} more cases" if len(missing) > 1 else ""
        raise EvaluationError(
            f"the image folder {folder} has no image of the case {missing[0]}{more}; expected {missing[0]}_0000 with "
            f"one of the endings {', '.join(FILE_ENDINGS)}"
        )
    return found


def _files_of(there: dict[str, Path], name: str) -> list[Path]:
    for ending in FILE_ENDINGS:
        files: list[Path] = []
        while (file := there.get(f"{name}_{len(files):04d}{ending}")) is not None:
            files.append(file)
        if files:
            return files
    return next(([there[name + ending]] for ending in FILE_ENDINGS if name + ending in there), [])
