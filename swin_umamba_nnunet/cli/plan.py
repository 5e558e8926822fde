"""`swin-umamba plan`: a plans file whose patch and batch fit a GPU's memory for one trainer's network."""

import argparse
import re
from typing import TYPE_CHECKING

from swin_umamba_nnunet._text import by, byte_size
from swin_umamba_nnunet.cli.errors import CliError

if TYPE_CHECKING:
    from swin_umamba_nnunet.cost.planning import Fit

DESCRIPTION = """\
nnU-Net plans patch and batch for the memory that its own U-Net needs; other networks may need far more. This writes a
plans file beside the dataset's own, with patch and batch that fit a GPU for one trainer:

    swin-umamba plan -d 702 --gpu-memory 12G --trainer nnUNetTrainerSwinUMambaD
    nnUNetv2_train 702 2d 0 -tr nnUNetTrainerSwinUMambaD -p nnUNetPlans_SwinUMambaD_12G

The patch is kept and the batch reduced, down to 2; then the patch is reduced along its longest axis. The preprocessed
data are shared with the dataset's own plans. Memory is estimated on this machine, without a GPU, in a minute."""

_UNITS = {"G": 2**30, "M": 2**20}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", dest="dataset", help="number or name of a dataset planned by nnU-Net")
    add(
        "--gpu-memory",
        required=True,
        metavar="SIZE",
        help="memory of the GPU that training may use: 12G (GiB, as GPUs are sold) or 11500M (MiB)",
    )
    add("--trainer", "-tr", required=True, metavar="TRAINER", help="as given to nnUNetv2_train -tr")
    add("-c", default="2d", metavar="CONFIGURATION", dest="configuration", help="nnU-Net configuration (default: 2d)")
    add("-p", default="nnUNetPlans", metavar="PLANS", dest="plans", help="plans to start from (default: nnUNetPlans)")
    add(
        "-o",
        metavar="NAME",
        dest="output",
        help="name of the new plans (default: made of the plans, trainer and memory)",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        help="compute activations again in backward: less memory, the same gradients, more time; "
        "kept in the plans, only for this package's trainers",
    )
    add(
        "--grow",
        action="store_true",
        help="let the batch grow beyond the planned one, up to nnU-Net's 5 %% of the dataset's voxels",
    )


def run(args: argparse.Namespace) -> int:
    """Estimate, write, and say what was decided."""
    gpu_bytes = _bytes(args.gpu_memory)
    from tqdm import tqdm

    from swin_umamba_nnunet.cost import planning
    from swin_umamba_nnunet.cost.tasks import task_of_dataset
    from swin_umamba_nnunet.trainers.finding import find_trainer

    try:
        trainer = find_trainer(args.trainer)
        task = task_of_dataset(args.dataset, args.plans, args.configuration)
        path = planning.check_name(task.folder, args.output or _name(args))
        largest = planning.batch_by_share(task) if args.grow else None
        with tqdm(desc="estimates", unit="", leave=False) as bar:
            fit = planning.fit_plans(
                trainer,
                task,
                gpu_bytes,
                largest_batch=largest,
                recompute=args.gradient_checkpointing,
                progress=lambda memory: bar.update(),
            )
        planning.write_plans(fit, path, args.trainer, args.plans)
    except ValueError as error:
        raise CliError(str(error)) from error
    _print(fit, args)
    print(f"\nwritten        {path}")
    print(f"\nnnUNetv2_train {args.dataset} {args.configuration} FOLD -tr {args.trainer} -p {path.stem}")
    return 0


def _print(fit: "Fit", args: argparse.Namespace) -> None:
    from swin_umamba_nnunet.cost.planning import MARGIN_CONVENTION, needed_bytes
    from swin_umamba_nnunet.cost.step_memory import STEP_CONVENTION

    memory = fit.memory
    print(f"planned        patch {by(fit.planned[0])}, batch {fit.planned[1]} ({args.plans})")
    new = f"patch {by(memory.patch_size)}, batch {memory.batch_size}"
    print(f"fits           {new if fit.changed else 'as planned'}")
    if args.gradient_checkpointing:
        print("               with gradient checkpointing, switched on in the plans")
    print(f"needs          {byte_size(needed_bytes(memory))} of {byte_size(fit.gpu_bytes)} (estimated)")
    parts = {
        "parameters": memory.parameter_bytes,
        "gradients": memory.gradient_bytes,
        "optimiser": memory.optimizer_bytes,
        "after forward": memory.forward_bytes,
        "peak of a step": memory.peak_bytes,
    }
    print("               " + ", ".join(f"{name} {byte_size(size)}" for name, size in parts.items()))
    print(f"\n{STEP_CONVENTION} {MARGIN_CONVENTION}")


def _bytes(text: str) -> int:
    """Bytes of "12G" or "11500M"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GM])(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size <= 0:
        raise CliError(f"--gpu-memory is {text!r}; expected a size such as 12G (GiB) or 11500M (MiB)")
    return size


def _name(args: argparse.Namespace) -> str:
    trainer = args.trainer.removeprefix("nnUNetTrainer") or args.trainer
    size = re.sub(r"\s|i?B$", "", args.gpu_memory.strip(), flags=re.IGNORECASE).upper()
    return "_".join((args.plans, trainer, size, *(["recompute"] if args.gradient_checkpointing else [])))
