"""`swin-umamba convert`: from what people download to nnUNet_raw/DatasetXXX_NAME, checked before and after."""

import argparse
import errno
import os
import re
import shlex
from pathlib import Path

from swin_umamba_nnunet.cli._convert.options import add_layouts
from swin_umamba_nnunet.cli.errors import CliError

_RAW, _PREPROCESSED = "nnUNet_raw", "nnUNet_preprocessed"  # nnU-Net's environment variables

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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CliError(
                "the disk is full; nothing half-written was left. Make room and run the command again"
            ) from error
        if error.errno == errno.EXDEV:
            raise CliError("--link needs source and dataset on the same disk; leave it out to copy") from error
        if isinstance(error, PermissionError):
            raise CliError(f"{error.filename} may not be read or written ({error.strerror})") from error
        raise


def _convert(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.cli._convert.plans import make_plan
    from swin_umamba_nnunet.datasets import conversion

    if args.workers < 1:
        raise CliError(f"--workers {args.workers}: give 1 or more")
    plan = make_plan(args)  # first of all: who named a wrong source has nothing to gain from choosing a destination
    target = _target(args)
    install_at = _splits_place(args, target)
    conversion.check_target(target, args.source, args.overwrite or args.dry_run)
    print(f"Reading {len(plan.cases)} cases of {plan.source} ...", flush=True)
    inspection = conversion.inspect(plan, args.workers, args.skip_bad)
    print(f"\n{conversion.format_report(inspection)}\n", flush=True)
    if inspection.errors:
        hint = "" if args.skip_bad else " (or leave the cases out with --skip-bad, where a case is named)"
        raise CliError(
            f"{_count(len(inspection.errors), 'error')}, listed above: put them right{hint}. Nothing was written"
        )
    if args.dry_run:
        print(f"Dry run: {target} was not written.")
        return 0
    if install_at is not None and not conversion.has_folds(inspection):
        raise CliError("--install-splits: there are no folds to install; --group-pattern or --folds makes some")
    print(f"Writing {target} ...", flush=True)
    verdict = conversion.write_dataset(inspection, target, overwrite=args.overwrite, threads=args.workers)
    print(f"\nnnU-Net's integrity check: {verdict.summary}")
    for warning in verdict.warnings[:5]:
        print(f"  it says: {warning}")
    if install_at is not None:
        conversion.install_splits(target, install_at, args.overwrite)
    _print_next_steps(target, install_at)
    return 0


def _target(args: argparse.Namespace) -> Path:
    """nnUNet_raw/DatasetXXX_NAME."""
    output = args.output or (Path(os.environ[_RAW]) if os.environ.get(_RAW) else None)
    if output is None:
        raise CliError("where should the dataset go? Set nnUNet_raw (export nnUNet_raw=/folder), or say -o FOLDER")
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
    return output.expanduser().absolute() / f"Dataset{identifier:03d}_{name}"


def _splits_place(args: argparse.Namespace, target: Path) -> Path | None:
    """Where --install-splits puts the splits, checked before the work."""
    if not getattr(args, "install_splits", False):
        return None
    preprocessed = os.environ.get(_PREPROCESSED)
    if not preprocessed:
        raise CliError("--install-splits needs nnUNet_preprocessed: export nnUNet_preprocessed=/folder")
    place = Path(preprocessed).expanduser().absolute() / target.name / "splits_final.json"
    if place.exists() and not args.overwrite:
        raise CliError(f"--install-splits: {place} already exists; --overwrite replaces it")
    return place


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _print_next_steps(target: Path, installed: Path | None) -> None:
    identifier = int(target.name[7:10])
    print(f"\nThe dataset is in {target}")
    print("Next:\n")
    if os.environ.get(_RAW) != str(target.parent):
        print(f"    export nnUNet_raw={shlex.quote(str(target.parent))}")
    preprocessed = os.environ.get(_PREPROCESSED)
    old = bool(preprocessed) and (Path(preprocessed or "") / target.name / "dataset.json").is_file()
    # nnU-Net keeps an old fingerprint unless it is told otherwise, and would plan the new data by it
    print(f"    nnUNetv2_plan_and_preprocess -d {identifier} -c 2d{' --clean' if old else ''}")
    splits = target / "splits_final.json"
    if installed is not None:
        print(f"\nIts splits are in {installed}, where nnU-Net looks for them.\n")
    elif splits.is_file():
        print(f'    cp "{splits}" "$nnUNet_preprocessed/{target.name}/"      # nnU-Net looks for its folds there')
    print(f"    nnUNetv2_train {identifier} 2d 0 -tr nnUNetTrainerSwinUMambaD")
    instances = target / "instancesTs"
    if instances.is_dir():
        print(f"    swin-umamba evaluate -gt {shlex.quote(str(instances))} -pred PREDICTIONS --protocol cells")
    if old:
        print(
            f"\n{preprocessed} has an older preprocessing of {target.name}; --clean has nnU-Net look at the data "
            "again. Splits, plans and trainings made for the old data are still there and do not belong to the new."
        )
