"""`swin-umamba weights`: which ImageNet checkpoints there are, getting them, and what a file really is."""

import argparse
import logging
from pathlib import Path

from swin_umamba_nnunet.cli._weights.names import fits, record_called, trust, wrapped
from swin_umamba_nnunet.cli._weights.verify import verify
from swin_umamba_nnunet.cli.errors import CliError
from swin_umamba_nnunet.pretrained.errors import DownloadError, WeightsError, WeightsNotFoundError
from swin_umamba_nnunet.pretrained.registry import RECORDS, WeightsRecord

DESCRIPTION = """\
The ImageNet checkpoints that pretrained trainers start from.  A training fetches what it needs by itself; this is for
looking, for machines without a network, and for files of unknown origin.

  swin-umamba weights list                              all of them, and what is on this machine
  swin-umamba weights fetch nnUNetTrainerSwinUMamba     what this trainer needs, into the user's cache
  swin-umamba weights fetch --all --to DIR              everything, to carry to a machine without a network ...
  swin-umamba weights fetch --all --from DIR            ... and from there into its cache
  swin-umamba weights verify FILE                       which network a file is of, and which trainers it fits
  swin-umamba weights path nnUNetTrainerSwinUMamba      the file that this trainer would start from
"""

_NAME_HELP = "a checkpoint (see `swin-umamba weights list`) or a trainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The four actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every checkpoint: file, hash, accuracy, trainers, where it is")
    listing.set_defaults(perform=_list)
    fetching = actions.add_parser("fetch", help="download, resume, check; what is there already is checked only")
    fetching.add_argument("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    fetching.add_argument("--all", action="store_true", help="every checkpoint in the list")
    fetching.add_argument("--from", dest="mirror", metavar="MIRROR",
                          help="take the files from here instead of GitHub: a folder, a file, or an https:// or "
                               "file:// address of either")  # fmt: skip
    fetching.add_argument("--to", type=Path, metavar="DIR", help="put them here (default: the user's cache)")
    fetching.set_defaults(perform=_fetch)
    verifying = actions.add_parser("verify", help="what a checkpoint file is, and which trainers it fits")
    verifying.add_argument("file", type=Path, metavar="FILE")
    verifying.add_argument("--for", dest="trainer", metavar="TRAINER", help="the exit code says if it fits this one")
    verifying.set_defaults(perform=verify)
    pathing = actions.add_parser("path", help="print the path of a checkpoint on this machine and nothing else")
    pathing.add_argument("name", metavar="NAME", nargs="?",
                         help=_NAME_HELP + "; without, the folders that are searched, in order")  # fmt: skip
    pathing.set_defaults(perform=_path)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for.

    Returns:
        0, or 1 where a file was not found, could not be fetched, or does not fit.

    Raises:
        CliError: a name nobody knows, or a setting that names nothing.
    """
    try:
        code: int = args.perform(args)
    except WeightsError as error:
        raise CliError(str(error), exit_code=1) from error
    return code


# -------------------------------------------------------------------------------------------------------------- list


def _list(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.pretrained.locate import ENVIRONMENT_VARIABLE, find_in_folders, named_path

    named = named_path()
    folders = _folders()
    for record in RECORDS:
        size = f"{record.size_bytes:,} bytes" if record.size_bytes is not None else "size unknown"
        others = f" (also {', '.join(record.other_file_names)})" if record.other_file_names else ""
        found = find_in_folders(record, folders)
        print(f"{record.name}   {record.title}, {record.parameters_million} M parameters")
        print(f"    accuracy  {record.top1_percent} % ImageNet-1k top-1 of the classifier, as its authors state it")
        print(f"    file      {record.file_name}{others}, {size}")
        print(f"    sha256    {trust(record)}")
        print(wrapped("fits", fits(record)))
        print(f"    here      {found or 'not on this machine'}")
        print(f"    from      {record.url}  ({record.licence} licence)\n")
    if named is not None and not named.is_dir():
        print(f"{ENVIRONMENT_VARIABLE} names {named}: every training starts from this file, whatever its name.")
    print("Folders searched, in order: " + ", ".join(map(str, folders)))
    return 0


def _folders() -> list[Path]:
    """Every folder that is searched, in order."""
    from swin_umamba_nnunet.pretrained.locate import default_folders, named_path

    named = named_path()
    return [*([named] if named is not None and named.is_dir() else []), *default_folders()]


# ------------------------------------------------------------------------------------------------------------- fetch


def _fetch(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.pretrained.addresses import require_mirror

    if args.all == bool(args.names):
        raise CliError("name what to fetch, or give --all (`swin-umamba weights list` has the names)")
    if args.mirror is not None and args.all and _is_one_file(args.mirror):
        raise CliError(f"--all needs a folder to take the files from, and {args.mirror} is one file")
    if args.mirror is not None:
        require_mirror(args.mirror)
    records = RECORDS if args.all else tuple(dict.fromkeys(map(record_called, args.names)))
    failed = [record for record in records if not _fetched(record, args.mirror, args.to, alone=len(records) == 1)]
    if len(records) > 1:
        print(f"{len(records) - len(failed)} of {len(records)} checkpoints are there.")
    return 1 if failed else 0


def _fetched(record: WeightsRecord, mirror: str | None, folder: Path | None, alone: bool) -> bool:
    """Have one checkpoint on this machine, checked; if it is not the only one wanted, a failure is told and counted."""
    from swin_umamba_nnunet.pretrained.addresses import mirror_urls
    from swin_umamba_nnunet.pretrained.download import hash_verdict
    from swin_umamba_nnunet.pretrained.ensure import fetch_weights, read_published
    from swin_umamba_nnunet.pretrained.locate import cache_folder, find_in_folders

    try:
        found = find_in_folders(record, _folders() if folder is None else [folder.expanduser().absolute()])
        if found is not None:
            checkpoint, what = read_published(record, found), "was there already"
        else:
            print(f"{record.name}: fetching {record.file_name}", flush=True)
            sources = mirror_urls(record, mirror) if mirror is not None else ()
            with _DownloadTold():
                checkpoint, what = fetch_weights(record, folder, sources), "fetched"
    except WeightsError as error:
        hint = ""
        if isinstance(error, DownloadError):
            place = folder or cache_folder()
            hint = f". Without a network: get {record.file_name} elsewhere, then --from FOLDER, or put it into {place}"
        if alone:
            raise CliError(f"{error}{hint}", exit_code=1) from error
        print(f"{record.name}: {error}")
        return False
    print(f"{record.name}: {what}, {checkpoint.path}")
    print(f"    {checkpoint.path.stat().st_size:,} bytes, every tensor as published")
    print(f"    sha256 {checkpoint.sha256}: {hash_verdict(record, checkpoint.sha256)}")
    return True


def _is_one_file(mirror: str) -> bool:
    return Path(mirror).is_file() or ("://" in mirror and mirror.endswith((".pth", ".pt", ".ckpt")))


class _DownloadTold:
    """Shows what the download has to say: another process is at it, a connection broke off and is resumed."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("swin_umamba_nnunet.pretrained.download")
        self._handler, self._level = logging.StreamHandler(), self._logger.level
        self._handler.setFormatter(logging.Formatter("    %(message)s"))
        self._logger.addHandler(self._handler)
        self._logger.setLevel(logging.INFO)

    def __exit__(self, *error: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)


# -------------------------------------------------------------------------------------------------------------- path


def _path(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.pretrained.locate import find_weights

    if args.name is None:
        print("\n".join(map(str, _folders())))
        return 0
    record = record_called(args.name)
    found = find_weights(record)
    if found is None:
        raise WeightsNotFoundError(
            f"{record.file_name} is in none of {', '.join(map(str, _folders()))}; get it with   "
            f"swin-umamba weights fetch {record.name}"
        )
    print(found)
    return 0
