"""`swin-umamba export`: a trained network as a file that needs neither this package nor nnU-Net."""

import argparse
from pathlib import Path

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Write the network of a trained model as a torch.export archive and, if asked for, as ONNX, with a small JSON that says
how images are prepared for it and what its output means. The file maps one preprocessed patch to logits:

  swin-umamba export -m nnUNet_results/Dataset001_NAME/nnUNetTrainerSwinUMambaD__nnUNetPlans__2d -o exported --onnx

What is written is run on a random patch and compared before it is kept. For prediction with everything around the
network use nnU-Net's own commands; to move a model to another machine, nnUNetv2_export_model_to_zip."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="folder with plans.json, dataset.json, fold_*/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("-f", "--fold", default="0", help="whose network: 0 to 4, or all (default: 0)")
    parser.add_argument("-chk", "--checkpoint", default="checkpoint_final.pth", help="default: checkpoint_final.pth")
    parser.add_argument("--onnx", action="store_true", help="write network.onnx too")


def run(args: argparse.Namespace) -> int:
    """Export, and say what was compared."""
    from swin_umamba_nnunet.models import export_model
    from swin_umamba_nnunet.models.checkpoints import ModelError

    formats = ("torch", "onnx") if args.onnx else ("torch",)
    try:
        done = export_model(
            args.model, args.output, fold=args.fold, checkpoint=args.checkpoint, formats=formats
        )
    except ModelError as error:
        raise CliError(str(error)) from error
    shape = " x ".join(map(str, done.input_shape))
    print(f"input: {shape} float32 (batch, channels, pixels), prepared as network.json says")
    for name, path in done.files.items():
        difference = done.largest_difference[name]
        size = path.stat().st_size / 1e6
        print(f"{path}: {size:.1f} MB, largest difference to the original {difference:.1e} of the largest logit")
    return 0
