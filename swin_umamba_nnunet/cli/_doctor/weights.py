"""The ImageNet weights on this machine, each read and compared with what is published."""

from pathlib import Path

from swin_umamba_nnunet.catalogue import TRAINERS
from swin_umamba_nnunet.cli._doctor.section import Section, can_be_written
from swin_umamba_nnunet.pretrained.locate import (
    ENVIRONMENT_VARIABLE,
    cache_folder,
    default_folders,
    find_in_folders,
    named_path,
)
from swin_umamba_nnunet.pretrained.registry import RECORDS, WeightsError


def weights() -> Section:
    """Which checkpoints are here and sound.  Missing ones are no problem: a training fetches what it needs."""
    section = Section("weights", {"files": {}})
    try:
        named, folders, cache = named_path(), default_folders(), cache_folder()
    except WeightsError as error:
        section.problems.append(str(error))
        return section
    if named is not None and not named.is_dir():
        _look(section, ENVIRONMENT_VARIABLE, named)
    elif named is not None:
        folders = [named, *folders]
    absent = []
    for record in RECORDS:
        if (path := find_in_folders(record, folders)) is None:
            section.data["files"][record.name] = None
            absent.append(record.name)
        else:
            _look(section, record.name, path)
    section.data["folders"] = list(map(str, folders))
    if absent:
        section.lines.append(f"  not here: {', '.join(absent)}; a training fetches what it needs")
    wanted = {record.weights for record in TRAINERS if record.weights}
    needed = sorted(wanted & set(absent))
    if len(needed) == len(wanted) and (named is None or named.is_dir()):
        section.missing.append(
            f"{', '.join(needed)} are not here: the trainers that start from them "
            "fetch what they need, which takes a network; to have it before, `swin-umamba weights fetch TRAINER`. "
            "Trainers whose names end in Scratch need none"
        )
    section.lines.append(f"  folders searched: {', '.join(map(str, folders))}")
    if absent and not can_be_written(cache):
        section.lines.append(f"  downloads would go to {cache}")
        section.problems.append(
            f"{cache} cannot be written, so no training can fetch weights; set XDG_CACHE_HOME to a folder that can, or "
            f"{ENVIRONMENT_VARIABLE} to the file"
        )
    return section


def _look(section: Section, name: str, path: Path) -> None:
    from swin_umamba_nnunet.pretrained.checkpoint import examine_checkpoint

    try:
        finding = examine_checkpoint(path)
    except WeightsError as error:
        section.data["files"][name] = {"path": str(path), "ok": False, "message": str(error)}
        section.lines.append(f"  {name}: {path} cannot be used")
        section.problems.append(str(error))
        return
    record = finding.record
    faults = list(finding.faults) if record is not None else [f"it is {finding.variant}"]
    if record is not None and name not in (record.name, ENVIRONMENT_VARIABLE):
        faults.append(f"it is {record.title}, not what its name says")
    verdict = record.verdict_on(finding.sha256) if record is not None else "nothing to compare with"
    section.data["files"][name] = {
        "path": str(path), "ok": not faults, "sha256": finding.sha256, "hash": verdict, "faults": faults,
        "is": record.name if record is not None else None,
    }  # fmt: skip
    section.lines.append(f"  {name}: {path}, {'sound' if not faults else 'FAULTY'}")
    section.lines.append(f"    sha256 {finding.sha256}: {verdict}")
    section.problems += [f"{path}: {fault}; `swin-umamba weights verify {path}` says more" for fault in faults]
