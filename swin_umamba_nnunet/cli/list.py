"""`swin-umamba list`: the catalogue's networks, trainers and length variants as a table."""

import argparse
import dataclasses
import json
import textwrap

from swin_umamba_nnunet._text import table
from swin_umamba_nnunet.catalogue import (
    LENGTHS,
    NETWORKS,
    TRAINERS,
    TrainerRecord,
    get_trainer,
    lengths_of,
    trainer_names,
)

DESCRIPTION = """\
The trainers of this package, as given to nnUNetv2_train -tr: one to start with, then one of each family of networks and
what the others are called.
"""

_WIDTH = 110  # characters per line
_FIRST = "nnUNetTrainerSwinUMambaD"  # to start with: the lighter network
_ENDINGS = {
    "Scratch": "from random weights, needs no file",
    "Small, Base": "a larger encoder",
    "NoScan, NoMamba": "controls without the part that is in question",
    "Paper": "as U-Mamba was in January 2024",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--all", action="store_true", help="every trainer with what it is, and every length")
    form.add_argument("--names", action="store_true", help="print every name and nothing else, one per line")
    form.add_argument("--json", action="store_true", help="print the whole catalogue as JSON, for scripts")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    if args.names:
        print("\n".join(trainer_names()))
    elif args.json:
        print(json.dumps(_as_json(), indent=2))
    elif args.all:
        _print_all()
    else:
        _print_families()


def _print_families() -> None:
    first = get_trainer(_FIRST)
    commands = (
        (f"{first.scratch}_1epoch", "# a trial, from random weights"),
        (first.name, "# the whole training; the ImageNet file is fetched"),
    )
    print("Start here:\n")
    print("\n".join(f"  nnUNetv2_train DATASET 2d 0 -tr {line}" for line in table(commands)))
    print(f"\nThe {len(NETWORKS)} families: a trainer of each, and the endings that make its others of it\n")
    for network in NETWORKS:
        record, *others = (record for record in TRAINERS if record.network == network.name)
        endings = ", ".join(other.name.removeprefix(record.name) for other in others)
        print(f"  {record.name}   ({network.title})")
        _print("      ", network.summary, f"{facts(record)} (+ {endings})")
    print()
    _print("  ", *table(_ENDINGS.items()))
    lengths = ", ".join(length.suffix for length in LENGTHS)
    print()
    _print("", f"At the end of any name, another length: {lengths}")
    print("\n`swin-umamba list --all` says what each is, `swin-umamba describe TRAINER` what its network costs.")


def _print_all() -> None:
    for network in NETWORKS:
        print(f"{network.title} ({network.paper})")
        _print("  ", network.summary)
        for record in TRAINERS:
            if record.network == network.name:
                print(f"\n    {record.name}\n      {facts(record)}")
                _print("      ", record.summary)
        print()
    print("Append one of these to a name for another length of training:\n")
    _print("  ", *table((length.suffix, length.summary.format(whole="all")) for length in LENGTHS))
    example = next(record.name for record in TRAINERS if not record.pretrained) + "_10epochs"
    print(f"\nExample: nnUNetv2_train DATASET 2d 0 -tr {example}")
    print("Parameters are counted at 1 image channel and 14 classes; U-Mamba's at nnU-Net's 2D plans of seven stages.")


def _print(indent: str, *lines: str) -> None:
    for line in lines:
        print(textwrap.fill(line, _WIDTH, initial_indent=indent, subsequent_indent=indent))


def facts(record: TrainerRecord) -> str:
    """Size, weights, dimensions and length of a trainer in one line."""
    weights = f"ImageNet weights {record.weights}" if record.weights else "random weights"
    dims = "/".join(f"{axes}D" for axes in record.dims)
    return f"{record.parameters_million:.2f} M parameters, {weights}, {dims}, {record.epochs} epochs"


def _as_json() -> dict:
    trainers = [
        {**dataclasses.asdict(record), "variants": [record.name + length.suffix for length in lengths_of(record)]}
        for record in TRAINERS
    ]
    return {"networks": [dataclasses.asdict(record) for record in NETWORKS], "trainers": trainers}
