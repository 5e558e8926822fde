"""`swin-umamba model`: a trained model after its training: imported, adapted to other images, exported."""

import argparse

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet.cli import actions

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
    action = actions(parser, "ACTION")
    output = {"required": True, "help": "what to write; must not exist"}
    add = action("import", _import, "the authors' released models for stock nnU-Net", IMPORT)
    add("-o", "--output", **output)
    add("source", help="the released model folder, one checkpoint of it, or bare weights")
    add("--plans", help="plans.json to use (default: the one in the released folder)")
    add("--dataset-json", help="dataset.json to use (default: the one beside plans.json)")
    add("-c", "--configuration", help="configuration in the plans (default: the checkpoint's, else 2d)")
    add = action("adapt", _adapt, "a trained model for another number of image channels", ADAPT)
    add("-o", "--output", **output)
    add("checkpoint", help="checkpoint_*.pth of a training with one of our trainers")
    add("--channels", type=int, required=True, metavar="N", help="channels of the new images")
    add = action("export", _export, "a trained network as a torch.export archive or ONNX file", EXPORT)
    add("-o", "--output", **output)
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


def _import(args: argparse.Namespace) -> None:
    from swin_umamba_nnunet.models import import_model

    report = import_model(
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
    _print_next("nnUNetv2_predict_from_modelfolder", "-m", report.output, "-f", *folds, "-i", "NEW_SCANS", "-o", "OUT")


def _adapt(args: argparse.Namespace) -> None:
    from swin_umamba_nnunet.models import adapt_checkpoint

    done = adapt_checkpoint(args.checkpoint, args.channels, args.output)
    print(f"{done.output}: {done.trainer}, from {done.channels[0]} to {done.channels[1]} image channels")
    print(f"changed: {', '.join(done.adapted)}")
    fine_tune = ("-tr", done.trainer, "-pretrained_weights", done.output)
    _print_next("nnUNetv2_train", "DATASET", done.configuration, "FOLD", *fine_tune)


def _export(args: argparse.Namespace) -> None:
    from swin_umamba_nnunet.models import export_model

    done = export_model(args.model, args.output, fold=args.fold, checkpoint=args.checkpoint, formats=args.formats)
    print(f"input: {by(done.input_shape)} float32 (batch, channels, pixels), prepared as network.json says")
    for name, path in done.files.items():
        difference, size = done.largest_difference[name], path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, largest difference to the original {difference:.1e} of the largest logit")


def _print_next(*command: object) -> None:
    """The command that goes on from there."""
    from swin_umamba_nnunet.benchmark.process import command_line

    print("\n" + command_line(list(map(str, command))))
