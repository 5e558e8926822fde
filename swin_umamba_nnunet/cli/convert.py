"""`swin-umamba convert`: from what people download to nnUNet_raw/DatasetXXX_NAME, checked before and after."""

import argparse
import errno
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet import settings
from swin_umamba_nnunet._text import UserError, plural
from swin_umamba_nnunet.datasets import LAYOUTS
from swin_umamba_nnunet.datasets._model import DEFAULT_FOLDS

if TYPE_CHECKING:
    from swin_umamba_nnunet.datasets._write import Verdict

_RAW, _PREPROCESSED, _RESULTS = settings.FOLDERS  # names of nnU-Net's variables

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
    """A sub-command for each layout, with the layout's own options and those of the dataset to write."""
    layouts = parser.add_subparsers(dest="layout", metavar="LAYOUT", required=True, title="layouts")
    for layout in LAYOUTS:
        own = layouts.add_parser(layout.name, help=layout.summary, description=layout.text)
        own.set_defaults(layout=layout)
        own.add_argument(
            "source", type=Path, metavar="SOURCE", help="the folder (or file) with the data; it is only read"
        )
        layout.add_options(own)
        add = own.add_argument_group("the dataset").add_argument
        add(
            "-d",
            "--dataset-id",
            type=int,
            metavar="ID",
            required=not layout.numbered,
            help="nnU-Net's number of the dataset, 1 to 999" + " (default: the published one)" * layout.numbered,
        )
        add("-n", "--name", help="its name, letters, digits, - and _ (default: made of SOURCE's)")
        add(
            "-o", "--output", type=Path, metavar="FOLDER", help="where the dataset's folder goes (default: $nnUNet_raw)"
        )
        add(
            "--overwrite",
            action="store_true",
            help="replace the dataset if it is there; the old one stays until the new one is complete and checked",
        )
        add("--dry-run", action="store_true", help="read and check everything, report, write nothing")
        add("--skip-bad", action="store_true", help="leave out cases that cannot be used, and list them")
        add(
            "-np",
            "--workers",
            type=int,
            default=8,
            metavar="N",
            help="at most so many cases at a time (default: %(default)s, and never more than CPU cores)",
        )


def run(args: argparse.Namespace) -> None:
    """List the cases, read, report, write, have it checked.

    Raises:
        ConversionError, UserError: the source or a setting is not as expected; nothing was written.
    """
    try:
        _convert(args)
    except ImportError as error:
        raise UserError(str(error)) from error
    except MemoryError as error:
        raise UserError("not enough memory; -np 1 works on one case at a time. Nothing was written") from error
    except OSError as error:
        where = error.filename or args.output or settings.read(_RAW)
        full = f"the disk of {where} is full; nothing half-written was left. Make room and run it again"
        said = {
            None: str(error),  # ours, a sentence: another process is writing the dataset, or has just written it
            errno.ENOSPC: full,
            errno.EDQUOT: full,
            errno.EXDEV: "--link needs source and dataset on the same disk; leave it out to copy",
            errno.ENAMETOOLONG: f"{where} is too long a name for a file or folder; choose a shorter one",
        }
        if error.errno not in said:
            raise  # of the machine, or a bug
        raise UserError(said[error.errno]) from error


def _convert(args: argparse.Namespace) -> None:
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give 1 or more")
    # first of all: who named a wrong source has nothing to gain from choosing a destination
    conversion = args.layout.from_options(args).conversion(args.source)
    from swin_umamba_nnunet.datasets._checks import inspect
    from swin_umamba_nnunet.datasets._report import format_report
    from swin_umamba_nnunet.datasets._write import check_place, check_target, write_dataset

    name = _dataset_name(args, conversion.dataset)
    output = args.output or settings.read(_RAW)
    if output is None and not args.dry_run:
        raise UserError("where should the dataset go? Set nnUNet_raw (export nnUNet_raw=/folder), or say -o FOLDER")
    target = Path(output).expanduser().absolute() / name if output else None
    if target is not None:
        check_target(target, args.source, args.overwrite or args.dry_run)
        if not args.dry_run:
            check_place(target)
    print(f"Reading {len(conversion.cases)} cases of {conversion.source} ...", flush=True)
    inspection = inspect(conversion, args.workers, args.skip_bad)
    print(f"\n{format_report(inspection)}\n", flush=True)
    if inspection.errors:
        hint = "" if args.skip_bad else " (or leave the cases out with --skip-bad, where a case is named)"
        count = plural(len(inspection.errors), "error")
        raise UserError(f"{count}, listed above: put them right{hint}. Nothing was written")
    if target is None or args.dry_run:
        where = f"-o FOLDER or nnUNet_raw says where {name} is to go" if target is None else f"{target} was not written"
        print(f"Dry run: {where}.")
        return
    print(f"Writing {target} ...", flush=True)
    verdict = write_dataset(inspection, target, overwrite=args.overwrite, threads=args.workers, check=_announced_check)
    print(f"nnU-Net's integrity check: {verdict.summary}")
    for warning in verdict.warnings[:5]:
        print(f"  it says: {warning}")
    _print_next_steps(target, verdict.cuda)


def _announced_check(folder: Path, processes: int) -> "Verdict":
    from swin_umamba_nnunet.datasets import _write

    print("\nnnU-Net reads the dataset and checks it; its start alone takes some seconds ...", flush=True)
    return _write.check_integrity(folder, processes)


def _dataset_name(args: argparse.Namespace, published: str) -> str:
    """DatasetXXX_NAME."""
    number = int(published[7:10]) if args.dataset_id is None else args.dataset_id
    if not 1 <= number <= 999:
        raise UserError(f"-d {number}: nnU-Net's dataset numbers go from 1 to 999")
    source = re.sub(r"[^A-Za-z0-9_-]+", "_", published or args.source.expanduser().absolute().name).strip("_")
    name = re.sub(r"^Dataset\d{3}_", "", source if args.name is None else args.name)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(
            f'-n "{name}": a dataset\'s name has letters (a to z), digits, - and _ only; choose one with -n'
        )
    return f"Dataset{number:03d}_{name}"


def _print_next_steps(target: Path, cuda: bool | None) -> None:
    """What to type next; every line is a command that works as it is.

    Args:
        target: the new dataset.
        cuda: whether torch sees a GPU; None: not known.
    """
    identifier = int(target.name[7:10])
    print(f"\nThe dataset is in {target}")
    print("Next:\n")
    if settings.read(_RAW) != str(target.parent):
        print(f"    export nnUNet_raw={shlex.quote(str(target.parent))}")
    for variable in (_PREPROCESSED, _RESULTS):
        if not settings.read(variable):
            print(f"    export {variable}={shlex.quote(str(target.parent.parent / variable))}")
    preprocessed = settings.read(_PREPROCESSED)
    before, splits = Path(preprocessed or "", target.name), target / "splits_final.json"
    old = bool(preprocessed) and (before / "dataset.json").is_file()
    stale = before / splits.name
    if old and splits.is_file() and stale.is_file() and stale.read_bytes() != splits.read_bytes():
        print(f"    rm {shlex.quote(str(stale))}      # of the data before: nnU-Net stops where new folds differ")
    # nnU-Net keeps an old fingerprint unless it is told otherwise, and would plan the new data by it
    folds = "      # takes its folds too, splits_final.json" if splits.is_file() else ""
    print(f"    nnUNetv2_plan_and_preprocess -d {identifier} -c 2d{' --clean' if old else ''}{folds}")
    # a full training takes weeks on a CPU
    how = "Scratch_1epoch -device cpu      # a trial: torch sees no GPU here" if cuda is False else ""
    cases = len(list((target / "labelsTr").iterdir()))
    fold = "0" if cases >= DEFAULT_FOLDS or splits.is_file() else "all"  # nnU-Net's own folds need as many cases
    print(f"    nnUNetv2_train {identifier} 2d {fold} -tr nnUNetTrainerSwinUMambaD{how}")
    instances = target / "instancesTs"
    if instances.is_dir():
        print(f"    swin-umamba evaluate -gt {shlex.quote(str(instances))} -pred PREDICTIONS --protocol cells")
    if old:
        print(
            f"\n{preprocessed} has an older preprocessing of {target.name}; --clean has nnU-Net look at the data "
            "again. Splits, plans and trainings made for the old data are still there and do not belong to the new."
        )
