"""`swin-umamba import-checkpoint`: the authors' released models as model folders for stock nnU-Net."""

import argparse
from pathlib import Path

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Make a model folder that stock nnUNetv2_predict_from_modelfolder runs, out of a segmentation model the authors released:
Swin-UMamba, Swin-UMamba-dagger, U-Mamba (their folders, made by copies of nnU-Net 2.1) or VM-UNet (bare weights).
The network is recognised by its tensors; plans of that age are brought to the present format.

  swin-umamba import-checkpoint nnUNetTrainerSwinUMamba__nnUNetPlans__2d -o my_model
  swin-umamba import-checkpoint best-epoch.pth --plans plans.json --dataset-json dataset.json -o my_model

Files are read as weights only; one that holds other Python objects is refused, because it could run code."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("source", type=Path, help="the released model folder, one checkpoint of it, or bare weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to write; must not exist")
    parser.add_argument("--plans", type=Path, help="plans.json to use (default: the one in the released folder)")
    parser.add_argument("--dataset-json", type=Path, help="dataset.json to use (default: the one beside plans.json)")
    parser.add_argument("-c", "--configuration", help="configuration in the plans (default: the checkpoint's, else 2d)")


def run(args: argparse.Namespace) -> int:
    """Import, and say what was found and decided."""
    from swin_umamba_nnunet.benchmark.process import command_line
    from swin_umamba_nnunet.models import import_model
    from swin_umamba_nnunet.models.checkpoints import ModelError

    try:
        report = import_model(
            args.source, args.output, plans=args.plans, dataset_json=args.dataset_json, configuration=args.configuration
        )
    except ModelError as error:
        raise CliError(str(error)) from error
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
    print("\n" + command_line([*predict, "-i", "NEW_SCANS", "-o", "OUT"]))
    return 0
