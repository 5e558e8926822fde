"""`swin-umamba weights`: which ImageNet checkpoints there are, getting them, and what a file really is."""

import argparse
import contextlib
import logging
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from swin_umamba_nnunet import _autoregister
from swin_umamba_nnunet._text import UserError, did_you_mean
from swin_umamba_nnunet.catalogue import TRAINERS, get_trainer, trainer_names
from swin_umamba_nnunet.cli import actions
from swin_umamba_nnunet.pretrained import locate
from swin_umamba_nnunet.pretrained.registry import (
    RECORDS,
    WEIGHTS_OF_NETWORK,
    CheckpointError,
    DownloadError,
    WeightsError,
    WeightsNotFoundError,
    WeightsRecord,
    accepted_records,
    get_record,
)

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
_NOBODY = "no trainer of this package"
_STARTING = {trainer.name: trainer.weights for trainer in TRAINERS if trainer.weights is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The four actions and their options."""
    action = actions(parser, "ACTION")
    action("list", _list, "every checkpoint: file, hash, accuracy, trainers, where it is")
    add = action("fetch", _fetch, "download, resume, check; what is there already is checked only")
    add("names", nargs="*", metavar="NAME", help=_NAME_HELP)
    add("--all", action="store_true", help="every checkpoint in the list")
    mirror = "take the files from here instead of GitHub: a folder, a file, an https:// or file:// address of either"
    add("--from", dest="mirror", metavar="MIRROR", help=mirror)
    add("--to", type=Path, metavar="DIR", help="put them here (default: the user's cache)")
    add = action("verify", _verify, "what a checkpoint file is, and which trainers it fits")
    add("file", type=Path, metavar="FILE")
    add("--for", dest="trainer", metavar="TRAINER", help="the exit code says if it fits this one")
    add = action("path", _path, "print the path of a checkpoint on this machine and nothing else")
    add("name", metavar="NAME", nargs="?", help=f"{_NAME_HELP}; without, the folders that are searched, in order")


# -------------------------------------------------------------------------------------------------------------- names


def _record_called(name: str) -> WeightsRecord:
    """A record by its own name, a network's, or that of a trainer that starts from it."""
    if name.startswith("nnUNetTrainer"):
        return get_record(_weights_of(name))
    try:
        return get_record(name)
    except ValueError as error:
        known = [*(record.name for record in RECORDS), *_STARTING, *WEIGHTS_OF_NETWORK]
        hint = did_you_mean(name, known, before="; ")
        raise UserError(f"{error}, or a trainer's name{hint}") from error


def _weights_of(trainer: str) -> str:
    """The weights that a trainer starts from."""
    try:
        weights = _imagenet_weights(trainer)
    except ValueError as error:
        raise UserError(str(error)) from error
    if weights is None:
        raise UserError(f"{trainer} starts from random weights; it takes no checkpoint")
    return weights


def _imagenet_weights(trainer: str) -> str | None:
    """`imagenet_weights` of a trainer of this package, or of a user's that is built on one.

    Raises:
        ValueError: there is none.
    """
    try:
        return get_trainer(trainer).weights
    except ValueError:
        if not _autoregister.users_folders():
            raise  # the user has none: spare them the import of nnU-Net
    from swin_umamba_nnunet.trainers.base import NetworkTrainer
    from swin_umamba_nnunet.trainers.finding import find_trainer

    found = find_trainer(trainer)
    if not issubclass(found, NetworkTrainer):
        raise ValueError(f"{trainer} is built on {_NOBODY}; `swin-umamba list` shows them")
    return found.imagenet_weights


# --------------------------------------------------------------------------------------------------------------- list


def _list(args: argparse.Namespace) -> None:
    named, folders = locate.named_file(), locate.searched_folders()
    for record in RECORDS:
        others = f" (also {', '.join(record.other_file_names)})" if record.other_file_names else ""
        print(f"{record.name}   {record.title}, {record.parameters_million} M parameters")
        print(f"    accuracy  {record.top1_percent} % ImageNet-1k top-1 of the classifier, as its authors state it")
        print(f"    file      {record.file_name}{others}, {record.size}")
        print(f"    sha256    {_trust(record)}")
        print(_wrapped("fits", _fits(record)))
        print(f"    here      {locate.find_in_folders(record, folders) or 'not on this machine'}")
        print(f"    from      {record.url}  ({record.licence} licence)\n")
    if named is not None:
        print(f"{locate.ENVIRONMENT_VARIABLE} names {named}: every training starts from this file, whatever its name.")
    print("Folders searched, in order: " + ", ".join(map(str, folders)))


def _trust(record: WeightsRecord) -> str:
    """The published hash, and what happens to a file with another one."""
    if record.sha256 is None:
        size = "size and " if record.size_bytes is not None else ""
        return f"unknown; {size}the name and shape of every tensor are checked instead"
    if record.sha256_confirmed:
        return f"{record.sha256} (confirmed: another one is refused)"
    return f"{record.sha256} (second-hand: another one is reported, not refused)"


def _fits(record: WeightsRecord | None) -> str:
    """The trainers a checkpoint fits, in words."""
    starting = ", ".join(name for name, weights in _STARTING.items() if get_record(weights) == record)
    also = ", ".join(name for name, weights in _STARTING.items() if record in accepted_records(weights)[1:])
    named = also and f"{also} where SWIN_UMAMBA_WEIGHTS names the file"
    return "; ".join(filter(None, [starting, named])) or _NOBODY


def _wrapped(name: str, text: str) -> str:
    """A named fact, broken into lines of a terminal's width."""
    head = f"    {name:<10}"
    return textwrap.fill(text, 118, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)


# -------------------------------------------------------------------------------------------------------------- fetch


def _fetch(args: argparse.Namespace) -> int:
    from swin_umamba_nnunet.pretrained.download import SUFFIXES, require_mirror

    if args.all == bool(args.names):
        raise UserError("name what to fetch, or give --all (`swin-umamba weights list` has the names)")
    if args.mirror is not None:
        if args.all and (Path(args.mirror).is_file() or "://" in args.mirror and args.mirror.endswith(SUFFIXES)):
            raise UserError(f"--all needs a folder to take the files from, and {args.mirror} is one file")
        require_mirror(args.mirror)
    records = RECORDS if args.all else tuple(dict.fromkeys(map(_record_called, args.names)))
    missing = 0
    for record in records:
        try:
            _fetch_one(record, args.mirror, args.to)
        except WeightsError as error:
            if len(records) == 1:
                raise
            print(f"{record.name}: {error}")
            missing += 1
    if len(records) > 1:
        print(f"{len(records) - missing} of {len(records)} checkpoints are there.")
    return 1 if missing else 0


def _fetch_one(record: WeightsRecord, mirror: str | None, folder: Path | None) -> None:
    """Have one checkpoint on this machine, checked."""
    from swin_umamba_nnunet.pretrained.checkpoint import read_checkpoint
    from swin_umamba_nnunet.pretrained.download import download_weights, mirror_urls

    target = folder or locate.cache_folder()
    folders = [folder.expanduser().absolute()] if folder else locate.searched_folders()
    if found := locate.find_in_folders(record, folders):
        checkpoint, what = read_checkpoint(found, record), "was there already"
    else:
        print(f"{record.name}: fetching {record.file_name}", flush=True)
        try:
            sources = mirror_urls(record, mirror) if mirror is not None else ()
            with _download_told():
                checkpoint, what = download_weights(record, target, sources=sources), "fetched"
        except DownloadError as error:
            raise DownloadError(
                f"{error}. Without a network: get {record.file_name} elsewhere, then --from FOLDER, or put it into "
                f"{target}"
            ) from error
    print(f"{record.name}: {what}, {checkpoint.path}")
    print(f"    {checkpoint.size_bytes:,} bytes, every tensor as published")
    print(f"    sha256 {checkpoint.sha256}: {record.verdict_on(checkpoint.sha256)}")


@contextlib.contextmanager
def _download_told() -> Iterator[None]:
    """Show what the download has to say: another process is at it, a connection broke off and is resumed."""
    logger, handler = logging.getLogger("swin_umamba_nnunet.pretrained.download"), logging.StreamHandler()
    level = logger.level
    handler.setFormatter(logging.Formatter("    %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# ------------------------------------------------------------------------------------------------------------- verify


def _verify(args: argparse.Namespace) -> int:
    """Say what the file is; 0 if it fits a trainer (the one asked for, if one was), else 1 and what fits instead."""
    try:
        asked = _STARTING if args.trainer is None else {args.trainer: _weights_of(args.trainer)}
    except UserError as error:
        raise UserError(f"--for {args.trainer}: {error}") from error
    if not args.file.expanduser().exists():
        raise CheckpointError(f"{args.file} does not exist")
    from swin_umamba_nnunet.pretrained.checkpoint import examine_checkpoint  # imports torch

    try:
        found = examine_checkpoint(args.file)
    except CheckpointError:
        if (model := _segmentation_model(args.file)) is None:
            raise
        print(f"{args.file}\n    what      {model}")
        return _say_what_fits(asked)
    record = found.record
    print(found.path)
    print(_wrapped("what", f"ImageNet classifier {found.variant}"))
    size, verdict, classifier = "", "", ""
    if record is not None:
        classifier = f", {'norm and head as published' if found.classifier else 'without the published norm and head'}"
        verdict = f" ({record.verdict_on(found.sha256)})"
        if record.size_bytes is not None:
            same = found.size_bytes == record.size_bytes
            size = ", as published" if same else f"; the published file has {record.size_bytes:,}"
    print(f"    tensors   {len(found.state_dict)}{classifier}")
    print(f"    size      {found.size_bytes:,} bytes{size}")
    print(f"    sha256    {found.sha256}{verdict}")
    for fault in found.faults:
        print(_wrapped("fault", f"it {fault}"))
    print(_wrapped("fits", _NOBODY if found.faults else _fits(record)))
    if found.faults or not any(record in accepted_records(weights) for weights in asked.values()):
        return _say_what_fits(asked)
    return 0


def _segmentation_model(path: Path) -> str | None:
    """What a segmentation checkpoint is and is good for; None where the file is none that is known."""
    from swin_umamba_nnunet.models.checkpoints import ModelError, read_segmentation_checkpoint
    from swin_umamba_nnunet.models.importing import recognise

    try:
        content = read_segmentation_checkpoint(path)
        name = content.get("trainer_name")
        name = name if isinstance(name, str) else ""
        with contextlib.suppress(ValueError):
            _imagenet_weights(name)
            whose = "of this package" if name in trainer_names() else "built on one of this package"
            return (
                f"a segmentation model trained with {name} {whose}: predict with nnUNetv2_predict, or fine-tune it "
                "with nnUNetv2_train ... -pretrained_weights FILE"
            )
        with contextlib.suppress(ModelError):
            network, _ = recognise(content["network_weights"], str(path))
            return f"the authors' segmentation model {network}: `swin-umamba model import` makes it usable"
    except ModelError:
        return None
    return f"a segmentation model trained with {name}, {_NOBODY}" if name else None


def _say_what_fits(asked: Mapping[str, str]) -> int:
    """Which file each trainer takes."""
    print("\nWhat fits instead:")
    for record in dict.fromkeys(map(get_record, asked.values())):
        names = ", ".join(trainer for trainer, weights in asked.items() if get_record(weights) == record)
        print(textwrap.fill(f"{names}: {record.file_name}", 118, initial_indent="  ", subsequent_indent="    "))
        print(f"    swin-umamba weights fetch {record.name}")
    return 1


# --------------------------------------------------------------------------------------------------------------- path


def _path(args: argparse.Namespace) -> None:
    folders = locate.searched_folders()
    if args.name is None:
        print(*folders, sep="\n")
        return
    record = _record_called(args.name)
    if (found := locate.find_weights(record)) is None:
        raise WeightsNotFoundError(
            f"{record.file_name} is in none of {', '.join(map(str, folders))}; get it with   "
            f"swin-umamba weights fetch {record.name}"
        )
    print(found)
