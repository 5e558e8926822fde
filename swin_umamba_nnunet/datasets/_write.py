"""From an inspected plan to a dataset in its place: cases, dataset.json, splits, and where everything came from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import new_folder, replacing
from swin_umamba_nnunet.datasets._checks import MAX_NAME, Inspection, in_threads
from swin_umamba_nnunet.datasets._integrity import Verdict, check_integrity
from swin_umamba_nnunet.datasets._labels import LabelError
from swin_umamba_nnunet.datasets._model import Case, CaseError, ConversionError
from swin_umamba_nnunet.datasets._splits import Fold, make_folds

RECORD = "conversion.json"
SPLITS = "splits_final.json"


def write_dataset(
    inspection: Inspection,
    target: Path,
    *,
    overwrite: bool = False,
    threads: int = 8,
    progress: bool = True,
    check: Callable[[Path, int], Verdict] = check_integrity,
) -> Verdict:
    """Write an inspected plan as nnU-Net raw dataset `target`, and have nnU-Net check it.

    Args:
        inspection: without errors.
        target: nnUNet_raw/DatasetXXX_NAME.
        overwrite: replace a dataset that is there.
        threads: how many cases to work on at a time, at most.
        progress: show a bar, on a terminal.
        check: nnU-Net's integrity check; (folder, processes) -> Verdict.

    Returns:
        What nnU-Net's integrity check said; the dataset is in place.

    Raises:
        ConversionError: there are errors, the target is there, a source file changed meanwhile, or nnU-Net does not
            accept the result; nothing changed.
        OSError: the folder cannot be written, or the disk is full; nothing changed.
    """
    if inspection.errors or inspection.labels is None:
        raise ConversionError(
            f"{len(inspection.errors)} errors were found in {inspection.plan.source}; nothing was written"
        )
    _check_target(target, overwrite)
    with new_folder(target, overwrite) as unfinished:
        _write(inspection, target.name, unfinished, threads, progress)
        verdict = check(unfinished, threads)
        if not verdict.passed:
            raise ConversionError(f"nnU-Net's integrity check does not accept the result: {verdict.summary}")
    return verdict


def check_target(target: Path, source: Path, overwrite: bool) -> None:
    """See whether a dataset can go to `target`, before the work (and before writing, once more).

    Raises:
        ConversionError: the place is taken, its number is, its name is too long, or the source lies in it.
    """
    if len(os.fsencode(target.name)) > MAX_NAME:
        raise ConversionError(
            f'-n "{target.name[11:51]}...": {target.name[:11]} and a name have {len(os.fsencode(target.name))} bytes '
            f"together; up to {MAX_NAME} fit into the names of folders, so choose a shorter one"
        )
    _check_target(target, overwrite)
    file = next((parent for parent in target.parents if parent.is_file()), None)
    if file is not None:
        raise ConversionError(f"{file} is a file, and the folder for the dataset is expected")
    source = source.expanduser().resolve()
    if source.is_relative_to(target.resolve()):
        raise ConversionError(
            f"{source} is the place of the new dataset itself; move the source elsewhere first, it will only be read"
        )
    folders = {target.parent}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        if os.environ.get(variable):
            folders.add(Path(os.environ[variable]).expanduser().absolute())
    for folder in sorted(folders):
        others = sorted(p.name for p in folder.glob(f"{target.name[:10]}*") if p.name != target.name and p.is_dir())
        if others:
            raise ConversionError(
                f"{folder} already has {others[0]}, and nnU-Net wants every dataset number once; "
                "choose another number with -d, or its name with -n"
            )


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConversionError(f"{target} is a link or a file and not a dataset's folder; choose another place")
    if not target.exists():
        return
    if not overwrite:
        raise ConversionError(f"{target} already exists; --overwrite replaces it, and -d or -n gives another place")
    if any(target.iterdir()) and not (target / "dataset.json").is_file():
        raise ConversionError(f"{target} has no dataset.json, so it is no dataset that --overwrite would replace")


def _write(inspection: Inspection, name: str, folder: Path, threads: int, progress: bool) -> None:
    plan, labels = inspection.plan, inspection.labels
    assert labels is not None
    sides = {
        "Tr": [c for c in inspection.cases if c.part != "test"],
        "Ts": [c for c in inspection.cases if c.part == "test"],
    }
    for side, cases in sides.items():
        if cases:
            (folder / f"images{side}").mkdir(parents=True)
        if any(case.label for case in cases):
            (folder / f"labels{side}").mkdir()

    def write_case(case: Case) -> None:
        side = "Ts" if case.part == "test" else "Tr"
        try:
            plan.handler.write(case, folder / f"images{side}", folder / f"labels{side}", labels, inspection.file_ending)
        except (CaseError, LabelError) as error:
            raise ConversionError(f"{case.name} has changed since it was checked: {error}. Run it again") from error

    in_threads(write_case, inspection.cases, min(threads, plan.handler.threads), "writing", progress)
    _write_json(folder / "dataset.json", _dataset_json(inspection, name))
    folds = make_folds(inspection.cases, plan.folds, plan.seed)
    if folds:
        _write_json(folder / SPLITS, folds)
    _write_json(folder / RECORD, _record(inspection, folds))
    plan.handler.finish(folder)


def _write_json(path: Path, content: object) -> None:
    # escapes instead of UTF-8: nnU-Net reads these files in the encoding of whatever locale it runs in
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")


def _dataset_json(inspection: Inspection, name: str) -> dict[str, object]:
    assert inspection.labels is not None
    return {
        "channel_names": {str(index): channel for index, channel in enumerate(inspection.channel_names)},
        "labels": dict(inspection.labels.names),
        "numTraining": sum(case.part != "test" for case in inspection.cases),
        "file_ending": inspection.file_ending,
        "name": name,
        "description": inspection.plan.description,
        "converted_by": f"swin-umamba convert {inspection.plan.layout} (swin_umamba_nnunet {__version__})",
        **inspection.plan.extra,
    }


def _record(inspection: Inspection, folds: list[Fold]) -> dict[str, object]:
    """Where every case came from, and what was noticed."""
    findings = [f for f in inspection.findings if f.severity != "error"]
    validation = set(folds[0]["val"]) if folds else set()
    return {
        "layout": inspection.plan.layout,
        "source": str(inspection.plan.source),
        "version": __version__,
        "cases": {
            case.name: {
                "part": case.part,
                "images": [str(path) for path in case.images],
                "label": str(case.label) if case.label else None,
                **({"group": case.group} if case.group is not None else {}),
                **({"fold_0": "val" if case.name in validation else "train"} if folds and case.part != "test" else {}),
            }
            for case in inspection.cases
        },
        "findings": [{"severity": f.severity, "case": f.case, "topic": f.topic, "detail": f.detail} for f in findings],
    }


def has_folds(inspection: Inspection) -> bool:
    """Whether a splits_final.json will be written."""
    return bool(make_folds(inspection.cases, inspection.plan.folds, inspection.plan.seed))


def install_splits(dataset: Path, place: Path, overwrite: bool) -> None:
    """Copy the dataset's splits to where nnU-Net looks for them (nnUNet_preprocessed/DatasetXXX_NAME).

    Raises:
        ConversionError: splits are there already.
    """
    if place.exists() and not overwrite:
        raise ConversionError(f"{place} already exists; --overwrite replaces it")
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as unfinished:
        shutil.copyfile(dataset / SPLITS, unfinished)
