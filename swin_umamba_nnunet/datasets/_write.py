"""From an inspected source to a dataset in its place, checked by nnU-Net: cases, dataset.json, splits, a record."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swin_umamba_nnunet import __version__, settings
from swin_umamba_nnunet._atomic import new_folder, write_json
from swin_umamba_nnunet.datasets._checks import MAX_NAME, Inspection, in_threads
from swin_umamba_nnunet.datasets._labels import LabelMap
from swin_umamba_nnunet.datasets._model import (
    INSTANCE_SUFFIX,
    INSTANCES,
    VOLUME_ENDING,
    CaseError,
    ConversionError,
    Findings,
    LabelError,
    SourceCase,
    write_dataset_json,
)
from swin_umamba_nnunet.datasets._pictures import write_picture
from swin_umamba_nnunet.datasets._volumes import write_volume

RECORD = "conversion.json"
SPLITS = "splits_final.json"
# nnU-Net's check runs in a process of its own: it prints, and starts worker processes
_PROGRAM = """\
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
if __name__ == "__main__":
    verify_dataset_integrity(sys.argv[1], int(sys.argv[2]))
    import torch
    print("torch sees a GPU:", torch.cuda.is_available())
"""
_GPU = "torch sees a GPU: "
_DONE = "verify_dataset_integrity Done"


@dataclass(frozen=True)
class Verdict:
    """What the check said.

    Attributes:
        passed: it ran to its end without an error.
        summary: one line.
        warnings: what it warned of, line by line.
        cuda: whether torch saw a GPU, which the check imports anyway; None where that is not known.
    """

    passed: bool
    summary: str
    warnings: tuple[str, ...] = ()
    cuda: bool | None = None


def check_integrity(dataset: Path, processes: int = 8) -> Verdict:
    """Run nnU-Net's verify_dataset_integrity on a raw dataset."""
    processes = max(1, min(processes, os.cpu_count() or 1))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(dataset), str(processes)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    return judge(done.returncode, done.stdout, done.stderr)


def judge(code: int, output: str, errors: str) -> Verdict:
    """The check's exit code and what it printed, as a verdict."""
    warnings = tuple(dict.fromkeys(line for line in output.splitlines() if line.lower().startswith("warning")))
    if code == 0 and _DONE in output:
        cuda = (_GPU + "True" in output) if _GPU in output else None
        return Verdict(True, "passed", warnings, cuda)
    said = [
        line for line in output.splitlines() if line.startswith(("Error", "Images contain", "Segmentation contains"))
    ]
    said += [line for line in errors.splitlines() if line.strip()][-1:]
    return Verdict(False, " ".join(said[:3])[:600] or f"exit code {code}", warnings)


def write_dataset(
    inspection: Inspection,
    target: Path,
    *,
    overwrite: bool = False,
    threads: int = 8,
    check: Callable[[Path, int], Verdict] = check_integrity,
) -> Verdict:
    """Write an inspected source as nnU-Net raw dataset `target`, and have nnU-Net check it.

    Args:
        inspection: without errors.
        target: nnUNet_raw/DatasetXXX_NAME.
        overwrite: replace a dataset that is there.
        threads: how many cases to work on at a time, at most.
        check: nnU-Net's integrity check; (folder, processes) -> Verdict.

    Returns:
        What nnU-Net's integrity check said; the dataset is in place.

    Raises:
        ConversionError: there are errors, the target is there, a source file changed meanwhile, or nnU-Net does not
            accept the result; nothing changed.
        OSError: the folder cannot be written, or the disk is full; nothing changed.
    """
    conversion, labels = inspection.conversion, inspection.labels
    if inspection.errors or labels is None:
        errors = len(inspection.errors)
        raise ConversionError(f"{errors} errors were found in {conversion.source}; nothing was written")
    check_target(target, conversion.source, overwrite)
    check_place(target)
    with new_folder(target, overwrite) as unfinished:
        _write(inspection, labels, unfinished, threads)
        write_dataset_json(
            unfinished,
            conversion.channels,
            labels.names,
            conversion.ending,
            target.name,
            conversion.description,
            converted_by=f"swin-umamba convert {conversion.layout} (swin_umamba_nnunet {__version__})",
            **conversion.extra,
        )
        if inspection.folds:
            write_json(unfinished / SPLITS, inspection.folds)
        write_json(unfinished / RECORD, _record(inspection))
        verdict = check(unfinished, threads)
        if not verdict.passed:
            raise ConversionError(f"nnU-Net's integrity check does not accept the result: {verdict.summary}")
        check_target(target, conversion.source, overwrite)  # another may have taken the number meanwhile
    return verdict


def check_place(path: Path) -> None:
    """Raise ConversionError if nothing may be written to an absolute path, whose folders are made where need be."""
    place = next(parent for parent in path.parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise ConversionError(f"{path} cannot be written: {place} is no folder that may be; choose another place")


def check_target(target: Path, source: Path, overwrite: bool) -> None:
    """See whether a dataset can go to `target`, before the work (and again before and after writing).

    Raises:
        ConversionError: the place is taken, its number is, its name is too long, or the source lies in it.
    """
    if len(os.fsencode(target.name)) > MAX_NAME:
        raise ConversionError(
            f'-n "{target.name[11:51]}...": {target.name[:11]} and a name have {len(os.fsencode(target.name))} bytes '
            f"together; up to {MAX_NAME} fit into the names of folders, so choose a shorter one"
        )
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ConversionError(f"{target} is a link or a file and not a dataset's folder; choose another place")
    if target.exists() and not overwrite:
        raise ConversionError(f"{target} already exists; --overwrite replaces it, and -d or -n gives another place")
    if target.exists() and any(target.iterdir()) and not (target / "dataset.json").is_file():
        raise ConversionError(f"{target} has no dataset.json, so it is no dataset that --overwrite would replace")
    source = source.expanduser().resolve()
    if source.is_relative_to(target.resolve()):
        raise ConversionError(
            f"{source} is the place of the new dataset itself; move the source elsewhere first, it will only be read"
        )
    folders = {target.parent}
    folders |= {Path(named).expanduser().absolute() for named in map(settings.read, settings.FOLDERS) if named}
    for folder in sorted(folders):
        others = sorted(p.name for p in folder.glob(f"{target.name[:10]}*") if p.name != target.name and p.is_dir())
        if others:
            raise ConversionError(
                f"{folder} already has {others[0]}, and nnU-Net wants every dataset number once; "
                "choose another number with -d, or its name with -n"
            )


def _write(inspection: Inspection, labels: LabelMap, folder: Path, threads: int) -> None:
    conversion = inspection.conversion

    def copy(source: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        if conversion.copied == "link":
            os.link(source.resolve(), target)
        else:
            shutil.copyfile(source, target)

    def write(case: SourceCase) -> None:
        images: Any = case.images
        label: Any = case.label
        ids: Any = None
        put: Callable[[Any, Path], None] = copy
        if not conversion.copied:
            try:
                content = conversion.read(case, Findings())
                ids, images, label = content.instances, content.volumes or content.images, content.mask
                if label is not None:
                    coloured = content.colours if labels.colour else None
                    label = labels.encode(label if coloured is None else coloured)
            except (CaseError, LabelError) as error:
                raise ConversionError(f"{case.name} has changed since it was checked: {error}. Run it again") from error
            volumes = conversion.ending == VOLUME_ENDING
            put = partial(write_volume, place=content.volumes) if volumes else write_picture
        side = "Ts" if case.part == "test" else "Tr"
        ending = conversion.ending
        files = {f"images{side}/{case.name}_{channel:04d}{ending}": image for channel, image in enumerate(images)}
        if label is not None:
            files[f"labels{side}/{case.name}{ending}"] = label
        if ids is not None:
            files[f"{INSTANCES}{side}/{case.name}{INSTANCE_SUFFIX}.tiff"] = ids.astype(np.min_scalar_type(ids.max()))
        for name, what in files.items():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            put(what, target)

    in_threads(write, inspection.cases, min(threads, conversion.threads), "writing")
    for place, path in conversion.added.items():
        copy(path, folder / place)


def _record(inspection: Inspection) -> dict[str, object]:
    """Where every case came from, and what was noticed."""
    validation = inspection.folds[0]["val"] if inspection.folds else None
    cases = {}
    for case in inspection.cases:
        label = str(case.label) if case.label else None
        entry = cases[case.name] = {"part": case.part, "images": list(map(str, case.images)), "label": label}
        if case.group is not None:
            entry["group"] = case.group
        if validation is not None and case.part != "test":
            entry["fold_0"] = "val" if case.name in validation else "train"
    return {
        "layout": inspection.conversion.layout,
        "source": str(inspection.conversion.source),
        "version": __version__,
        "cases": cases,
        "findings": [vars(finding) for finding in inspection.findings if finding.severity != "error"],
    }
