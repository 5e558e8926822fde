"""`swin-umamba convert`: from what people download to nnUNet_raw/DatasetXXX_NAME, checked before and after."""

import argparse
import errno
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet.cli._convert.options import add_layouts
from swin_umamba_nnunet.cli.errors import CliError

if TYPE_CHECKING:
    from swin_umamba_nnunet.datasets import conversion

_RAW, _PREPROCESSED, _RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"  # nnU-Net's variables

DESCRIPTION = """\
Make an nnU-Net raw dataset of what you have.  Choose the layout of your data:

    swin-umamba convert images ~/mydata -d 1 -n Polyps --dry-run     reads and checks everything, writes nothing
    swin-umamba convert images ~/mydata -d 1 -n Polyps               writes $nnUNet_raw/Dataset001_Polyps

Every file is read and checked before anything is written, and all troubles are reported at once, by name.  The dataset
appears only when it is complete and nnU-Net's own integrity check accepts it; interrupt it when you like and run it
again.  conversion.json in the dataset says where every case came from.

    swin-umamba convert LAYOUT --help     what a layout looks like, and its options
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_layouts(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, read, report, write, have it checked.

    Returns:
        0.

    Raises:
        CliError: the source or a setting is not as expected; nothing was written.
    """
    from swin_umamba_nnunet.datasets.conversion import ConversionError, LabelError

    try:
        return _convert(args)
    except (ConversionError, LabelError, ImportError) as error:
        raise CliError(str(error)) from error
    except MemoryError as error:
        raise CliError("not enough memory; -np 1 works on one case at a time. Nothing was written") from error
    except OSError as error:
        if error.errno is None:  # ours, a sentence: another process is writing the dataset, or has just written it
            raise CliError(str(error)) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = error.filename or args.output or os.environ.get(_RAW)
            raise CliError(
                f"the disk of {place} is full; nothing half-written was left. Make room and run the command again"
            ) from error
        if error.errno == errno.EXDEV:
            raise CliError("--link needs source and dataset on the same disk; leave it out to copy") from error
        if isinstance(error, PermissionError):
            raise CliError(f"{error.filename} may not be read or written ({error.strerror})") from error
        if error.errno == errno.ENAMETOOLONG:
            raise CliError(f"{error.filename} is too long a name for a file or folder; choose a shorter one") from error
        if error.errno == errno.EIO:
            raise CliError(f"{error.filename or 'the disk'} cannot be read or written ({error.strerror})") from error
        raise


def _convert(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.cli._convert.plans import make_plan
    from swin_umamba_nnunet.datasets import conversion

    if args.workers < 1:
        raise CliError(f"--workers {args.workers}: give 1 or more")
    plan = make_plan(args)  # first of all: who named a wrong source has nothing to gain from choosing a destination
    name, folder = _dataset_name(args), _folder(args)
    target = folder / name if folder else None
    install_at = _splits_place(args, name)
    if target is not None:
        conversion.check_target(target, args.source, args.overwrite or args.dry_run)
    print(f"Reading {len(plan.cases)} cases of {plan.source} ...", flush=True)
    inspection = conversion.inspect(plan, args.workers, args.skip_bad)
    print(f"\n{conversion.format_report(inspection)}\n", flush=True)
    if inspection.errors:
        hint = "" if args.skip_bad else " (or leave the cases out with --skip-bad, where a case is named)"
        raise CliError(
            f"{_count(len(inspection.errors), 'error')}, listed above: put them right{hint}. Nothing was written"
        )
    if target is None or args.dry_run:
        if conversion.has_folds(inspection) and install_at is None and hasattr(args, "install_splits"):
            print("With --install-splits its folds also go to where nnU-Net looks for them.")
        where = f"-o FOLDER or nnUNet_raw says where {name} is to go" if target is None else f"{target} was not written"
        print(f"Dry run: {where}.")
        return 0
    if install_at is not None and not conversion.has_folds(inspection):
        raise CliError("--install-splits: there are no folds to install; --group-pattern or --folds makes some")
    print(f"Writing {target} ...", flush=True)
    verdict = conversion.write_dataset(
        inspection, target, overwrite=args.overwrite, threads=args.workers, check=_announced_check
    )
    print(f"nnU-Net's integrity check: {verdict.summary}")
    for warning in verdict.warnings[:5]:
        print(f"  it says: {warning}")
    if install_at is not None:
        conversion.install_splits(target, install_at, args.overwrite)
    _print_next_steps(target, install_at, hasattr(args, "install_splits"), verdict.cuda)
    return 0


def _announced_check(folder: Path, processes: int) -> "conversion.Verdict":
    from swin_umamba_nnunet.datasets import conversion

    print("\nnnU-Net reads the dataset and checks it; its start alone takes some seconds ...", flush=True)
    return conversion.check_integrity(folder, processes)


def _folder(args: argparse.Namespace) -> Path | None:
    """Where the dataset's folder goes; None for a dry run that was not told."""
    output = args.output or (Path(os.environ[_RAW]) if os.environ.get(_RAW) else None)
    if output is None and not args.dry_run:
        raise CliError("where should the dataset go? Set nnUNet_raw (export nnUNet_raw=/folder), or say -o FOLDER")
    return None if output is None else output.expanduser().absolute()


def _dataset_name(args: argparse.Namespace) -> str:
    """DatasetXXX_NAME."""
    identifier, name = args.dataset_id, args.name
    source = args.source.expanduser().absolute()
    if args.layout == "umamba" and (identifier is None or name is None):
        from swin_umamba_nnunet.datasets.conversion import PUBLISHED, identify_published

        published = identify_published(source, args.published)
        identifier = published if identifier is None else identifier
        name = PUBLISHED[published].name.partition("_")[2] if name is None else name
    if not 1 <= identifier <= 999:
        raise CliError(f"-d {identifier}: nnU-Net's dataset numbers go from 1 to 999")
    name = re.sub(
        r"^Dataset\d{3}_", "", name if name is not None else re.sub(r"[^A-Za-z0-9_-]+", "_", source.name).strip("_")
    )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise CliError(f'-n "{name}": a dataset\'s name has letters (a to z), digits, - and _ only; choose one with -n')
    return f"Dataset{identifier:03d}_{name}"


def _splits_place(args: argparse.Namespace, name: str) -> Path | None:
    """Where --install-splits puts the splits, checked before the work."""
    if not getattr(args, "install_splits", False):
        return None
    preprocessed = os.environ.get(_PREPROCESSED)
    if not preprocessed:
        raise CliError("--install-splits needs nnUNet_preprocessed: export nnUNet_preprocessed=/folder")
    place = Path(preprocessed).expanduser().absolute() / name / "splits_final.json"
    if place.exists() and not args.overwrite:
        raise CliError(f"--install-splits: {place} already exists; --overwrite replaces it")
    return place


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _print_next_steps(target: Path, installed: Path | None, installs: bool, cuda: bool | None) -> None:
    """What to type next; every line is a command that works as it is.

    Args:
        target: the new dataset.
        installed: where its splits were put.
        installs: whether the layout has --install-splits.
        cuda: whether torch sees a GPU; None: not known.
    """
    identifier = int(target.name[7:10])
    print(f"\nThe dataset is in {target}")
    print("Next:\n")
    if os.environ.get(_RAW) != str(target.parent):
        print(f"    export nnUNet_raw={shlex.quote(str(target.parent))}")
    for variable in (_PREPROCESSED, _RESULTS):
        if not os.environ.get(variable):
            print(f"    export {variable}={shlex.quote(str(target.parent.parent / variable))}")
    preprocessed = os.environ.get(_PREPROCESSED)
    old = bool(preprocessed) and (Path(preprocessed or "") / target.name / "dataset.json").is_file()
    # nnU-Net keeps an old fingerprint unless it is told otherwise, and would plan the new data by it
    print(f"    nnUNetv2_plan_and_preprocess -d {identifier} -c 2d{' --clean' if old else ''}")
    splits = target / "splits_final.json"
    if installed is not None:
        print(f"\nIts splits are in {installed}, where nnU-Net looks for them.\n")
    elif splits.is_file():
        print(f'    cp {shlex.quote(str(splits))} "$nnUNet_preprocessed/{target.name}/"', end="")
        print("      # what --install-splits does" if installs else "      # nnU-Net looks for its folds there")
    device = " -device cpu      # torch sees no GPU here" if cuda is False else ""
    print(f"    nnUNetv2_train {identifier} 2d 0 -tr nnUNetTrainerSwinUMambaD{device}")
    instances = target / "instancesTs"
    if instances.is_dir():
        print(f"    swin-umamba evaluate -gt {shlex.quote(str(instances))} -pred PREDICTIONS --protocol cells")
    if old:
        print(
            f"\n{preprocessed} has an older preprocessing of {target.name}; --clean has nnU-Net look at the data "
            "again. Splits, plans and trainings made for the old data are still there and do not belong to the new."
        )
