"""`swin-umamba adapt-checkpoint`: a trained model for images with another number of channels, to fine-tune from."""

import argparse
from pathlib import Path

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Write a trained checkpoint for images with another number of channels, which nnU-Net then accepts to fine-tune from:

  swin-umamba adapt-checkpoint OLD/fold_0/checkpoint_final.pth --channels 2 -o start.pth
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerSwinUMambaD -pretrained_weights start.pth

The convolutions that see the image are changed so that an image with the same picture in every channel gives what it
gave before. Another number of classes needs no adapting: nnU-Net starts the heads anew in any case."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint_*.pth of a training with one of our trainers")
    parser.add_argument("--channels", type=int, required=True, metavar="N", help="channels of the new images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write; must not exist")


def run(args: argparse.Namespace) -> int:
    """Adapt, and say what was changed."""
    from swin_umamba_nnunet.benchmark.process import command_line
    from swin_umamba_nnunet.models import adapt_checkpoint
    from swin_umamba_nnunet.models.checkpoints import ModelError

    try:
        done = adapt_checkpoint(args.checkpoint, args.channels, args.output)
    except ModelError as error:
        raise CliError(str(error)) from error
    print(f"{done.output}: {done.trainer}, from {done.channels[0]} to {done.channels[1]} image channels")
    print(f"changed: {', '.join(done.adapted)}")
    train = ["nnUNetv2_train", "DATASET", done.configuration, "FOLD", "-tr", done.trainer]
    print("\n" + command_line([*train, "-pretrained_weights", str(done.output)]))
    return 0
