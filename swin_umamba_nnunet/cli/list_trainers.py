"""`swin-umamba list`: the catalogue's trainers and their length variants as a table."""

import argparse
import textwrap

from swin_umamba_nnunet.catalogue import LENGTHS, TRAINERS

DESCRIPTION = "The trainers of this package, as given to nnUNetv2_train -tr, and their variants of other lengths."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--names", action="store_true", help="print every name and nothing else, one per line")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    if args.names:
        print("\n".join(record.name + suffix for record in TRAINERS for suffix in _suffixes()))
        return 0
    width = max(len(record.name) for record in TRAINERS)
    for record in TRAINERS:
        start = "ImageNet" if record.pretrained else "random"
        print(f"{record.name:<{width}}  {record.parameters_million:6.1f} M parameters, {start} weights")
        print(f"{'':<{width}}  {record.summary}")
    print("\nAppend one of these for another length of training (the plain name trains 1000 epochs):\n")
    width = max(len(length.suffix) for length in LENGTHS)
    for length in LENGTHS:
        print(f"  {length.suffix:<{width}}  {length.summary}")
    example = TRAINERS[-1].name + LENGTHS[2].suffix
    print("\n" + textwrap.fill(f"Example: nnUNetv2_train DATASET 2d 0 -tr {example}", 110))
    return 0


def _suffixes() -> tuple[str, ...]:
    return ("", *(length.suffix for length in LENGTHS))
