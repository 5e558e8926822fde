"""`swin-umamba model`: a trained model after its training: imported, adapted to other images, exported."""

import argparse
from collections.abc import Callable
from typing import Any

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
What can be done with a trained model besides predicting with it.

  swin-umamba model import nnUNetTrainerSwinUMamba__nnUNetPlans__2d -o my_model
  swin-umamba model adapt OLD/fold_0/checkpoint_final.pth --channels 2 -o start.pth
  swin-umamba model export -m nnUNet_results/Dataset001_X/nnUNetTrainerSwinUMambaD__nnUNetPlans__2d -o exported

Files are read as weights only; one that holds other Python objects is refused, because it could run code.
Details on an action:   swin-umamba model ACTION --help"""

IMPORT = """\
Make a model folder that stock nnUNetv2_predict_from_modelfolder runs, out of a segmentation model the authors released:
Swin-UMamba, Swin-UMamba-dagger, U-Mamba (their folders, made by copies of nnU-Net 2.1) or VM-UNet (bare weights).
The network is recognised by its tensors; plans of that age are brought to the present format.

  swin-umamba model import nnUNetTrainerSwinUMamba__nnUNetPlans__2d -o my_model
  swin-umamba model import best-epoch.pth --plans plans.json --dataset-json dataset.json -o my_model"""

ADAPT = """\
Write a trained checkpoint for images with another number of channels, which nnU-Net then accepts to fine-tune from:

  swin-umamba model adapt OLD/fold_0/checkpoint_final.pth --channels 2 -o start.pth
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerSwinUMambaD -pretrained_weights start.pth

The convolutions that see the image are changed so that an image with the same picture in every channel gives what it
gave before. Another number of classes needs no adapting: nnU-Net starts the heads anew in any case."""

EXPORT = """\
Write the network of a trained model as a torch.export archive and, if asked for, as ONNX, with a small JSON that says
how images are prepared for it and what its output means. The file maps one preprocessed patch to logits:

  swin-umamba model export -m nnUNet_results/Dataset001_X/nnUNetTrainerSwinUMambaD__nnUNetPlans__2d -o exported --onnx

What is written is run on a random patch and compared before it is kept. For prediction with everything around the
network use nnU-Net's own commands; to move a model to another machine, nnUNetv2_export_model_to_zip."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, description: str, perform: Callable) -> Callable:
        parser = actions.add_parser(
            name, help=summary, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.set_defaults(perform=perform)
        parser.add_argument("-o", "--output", required=True, help="what to write; must not exist")
        return parser.add_argument

    add = action("import", "the authors' released models for stock nnU-Net", IMPORT, _import)
    add("source", help="the released model folder, one checkpoint of it, or bare weights")
    add("--plans", help="plans.json to use (default: the one in the released folder)")
    add("--dataset-json", help="dataset.json to use (default: the one beside plans.json)")
    add("-c", "--configuration", help="configuration in the plans (default: the checkpoint's, else 2d)")
    add = action("adapt", "a trained model for another number of image channels", ADAPT, _adapt)
    add("checkpoint", help="checkpoint_*.pth of a training with one of our trainers")
    add("--channels", type=int, required=True, metavar="N", help="channels of the new images")
    add = action("export", "a trained network as a torch.export archive or ONNX file", EXPORT, _export)
    add("-m", "--model", required=True, help="folder with plans.json, dataset.json, fold_*/")
    add("-f", "--fold", default="0", help="whose network: 0 to 4, or all (default: 0)")
    add("-chk", "--checkpoint", default="checkpoint_final.pth", help="default: checkpoint_final.pth")
    add(
        "--onnx",
        dest="formats",
        action="store_const",
        const=("torch", "onnx"),
        default=("torch",),
        help="write network.onnx too",
    )


def run(args: argparse.Namespace) -> int:
    """Do what was asked for, say what was found and decided, and print the command that goes on from there."""
    from swin_umamba_nnunet import models
    from swin_umamba_nnunet.benchmark.process import command_line

    try:
        command = args.perform(models, args)
    except models.ModelError as error:
        raise CliError(str(error)) from error
    if command:
        print("\n" + command_line(command))
    return 0


def _import(models: Any, args: argparse.Namespace) -> list[str]:
    report = models.import_model(
        args.source, args.output, plans=args.plans, dataset_json=args.dataset_json, configuration=args.configuration
    )
    theirs = f", their trainer {report.their_trainer}" if report.their_trainer else ""
    print(f"recognised     {report.network} by its tensors{theirs}")
    print(f"trainer        {report.trainer}, configuration {report.configuration}")
    for source, target in report.folds:
        print(f"{target.parent.name:<14} {source} -> {target}")
    print(f"tensors        {report.tensors} taken over, {report.dropped} left out (second names, counters)")
    for remark in report.remarks:
        print(f"note           {remark}")
    folds = [target.parent.name.removeprefix("fold_") for _, target in report.folds]
    predict = ["nnUNetv2_predict_from_modelfolder", "-m", str(report.output), "-f", *folds]
    return [*predict, "-i", "NEW_SCANS", "-o", "OUT"]


def _adapt(models: Any, args: argparse.Namespace) -> list[str]:
    done = models.adapt_checkpoint(args.checkpoint, args.channels, args.output)
    print(f"{done.output}: {done.trainer}, from {done.channels[0]} to {done.channels[1]} image channels")
    print(f"changed: {', '.join(done.adapted)}")
    train = ["nnUNetv2_train", "DATASET", done.configuration, "FOLD", "-tr", done.trainer]
    return [*train, "-pretrained_weights", str(done.output)]


def _export(models: Any, args: argparse.Namespace) -> None:
    done = models.export_model(
        args.model, args.output, fold=args.fold, checkpoint=args.checkpoint, formats=args.formats
    )
    shape = " x ".join(map(str, done.input_shape))
    print(f"input: {shape} float32 (batch, channels, pixels), prepared as network.json says")
    for name, path in done.files.items():
        difference, size = done.largest_difference[name], path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, largest difference to the original {difference:.1e} of the largest logit")
