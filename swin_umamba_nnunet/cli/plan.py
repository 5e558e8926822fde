"""`swin-umamba plan`: a plans file whose patch and batch fit a GPU's memory for one trainer, or with a stated patch."""

import argparse
import re
from typing import TYPE_CHECKING

from swin_umamba_nnunet._text import UserError, by, byte_size
from swin_umamba_nnunet.cli import underway

if TYPE_CHECKING:
    from swin_umamba_nnunet.cost.planning import Fit

DESCRIPTION = """\
nnU-Net plans patch and batch for the memory that its own U-Net needs; other networks may need far more. This writes a
plans file beside the dataset's own, with patch and batch that fit a GPU for one trainer:

    swin-umamba plan -d 702 --gpu-memory 12G --trainer nnUNetTrainerSwinUMambaD
    nnUNetv2_train 702 2d 0 -tr nnUNetTrainerSwinUMambaD -p nnUNetPlans_SwinUMambaD_12G

The patch is kept and the batch reduced, down to 2; then the patch is reduced along its longest axis. The preprocessed
data are shared with the dataset's own plans. Memory is estimated on this machine, without a GPU, in a minute.

Without a GPU, or to compare on one patch size, choose the patch; nnU-Net's planner works its network's stages out anew:

    swin-umamba plan -d 702 --patch-size 64 64 --batch-size 2
    nnUNetv2_train 702 2d 0 -tr nnUNetTrainerSwinUMambaD -p nnUNetPlans_64x64_batch2 -device cpu"""

_UNITS = {"G": 2**30, "M": 2**20}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", dest="dataset", help="number or name of a dataset planned by nnU-Net")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--gpu-memory",
        metavar="SIZE",
        help="memory of the GPU that training may use: 12G (GiB, as GPUs are sold) or 11500M (MiB)",
    )
    what.add_argument(
        "--patch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="the patch in pixels, H W (for 3D configurations in voxels, D H W), for any trainer",
    )
    add("--batch-size", type=int, metavar="B", help="with --patch-size (default: as planned)")
    add("--trainer", "-tr", metavar="TRAINER", help="as given to nnUNetv2_train -tr; --gpu-memory needs it")
    add("-c", default="2d", metavar="CONFIGURATION", dest="configuration", help="nnU-Net configuration (default: 2d)")
    add("-p", default="nnUNetPlans", metavar="PLANS", dest="plans", help="plans to start from (default: nnUNetPlans)")
    add(
        "-o",
        metavar="NAME",
        dest="output",
        help="name of the new plans (default: made of the plans, and of trainer and memory, or the patch)",
    )
    add(
        "--gradient-checkpointing",
        action="store_true",
        help="with --gpu-memory: compute activations again in backward: less memory, the same gradients, more time; "
        "kept in the plans, only for this package's trainers",
    )
    add(
        "--grow",
        action="store_true",
        help="with --gpu-memory: let the batch grow beyond the planned, up to nnU-Net's 5 %% of the dataset's voxels",
    )


def run(args: argparse.Namespace) -> None:
    """Plan, write, and say what was decided."""
    gpu_bytes = None if args.gpu_memory is None else _bytes(args.gpu_memory)
    if gpu_bytes is None and (args.grow or args.gradient_checkpointing):
        raise UserError(
            "--grow and --gradient-checkpointing go with --gpu-memory; to use them on a patch of yours, plan it first "
            "and give the new plans with -p"
        )
    if gpu_bytes is not None and (args.trainer is None or args.batch_size is not None):
        raise UserError(
            "--gpu-memory needs --trainer, whose network has to fit, and no --batch-size: it finds the batch"
        )
    from tqdm import tqdm

    with underway("PyTorch and nnU-Net start"):
        import torch

        from swin_umamba_nnunet.cost import planning
        from swin_umamba_nnunet.cost.tasks import task_of_dataset
        from swin_umamba_nnunet.trainers.finding import find_trainer

    try:
        trainer = args.trainer and find_trainer(args.trainer)
        task = task_of_dataset(args.dataset, args.plans, args.configuration)
        path = planning.check_name(task.folder, args.output or _name(args))
        patch, batch = [int(side) for side in task.settings.patch_size], task.batch_size
        record = {"made_from": args.plans, "planned_patch_size": patch, "planned_batch_size": batch}
        if gpu_bytes is None:
            task = planning.with_patch(task, args.patch_size, batch if args.batch_size is None else args.batch_size)
        else:
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
            task, record = fit.task, record | {"trainer": args.trainer} | fit.record
        planning.write_plans(task, path, record)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"planned        patch {by(patch)}, batch {batch} ({args.plans})")
    if gpu_bytes is None:
        stages = len(task.settings.pool_op_kernel_sizes)
        print(
            f"now            patch {by(args.patch_size)}, batch {task.batch_size}, {stages} stages of nnU-Net's network"
        )
    else:
        _print(fit, args)
    print(f"\nwritten        {path}")
    what = f"{args.configuration} FOLD -tr {args.trainer or 'TRAINER'}"
    device = "" if gpu_bytes or torch.cuda.is_available() else " -device cpu      # torch sees no GPU here"
    print(f"\nnnUNetv2_train {args.dataset} {what} -p {path.stem}{device}")


def _print(fit: "Fit", args: argparse.Namespace) -> None:
    from swin_umamba_nnunet.cost.planning import MARGIN_CONVENTION, needed_bytes
    from swin_umamba_nnunet.cost.step_memory import STEP_CONVENTION

    memory = fit.memory
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
        raise UserError(f"--gpu-memory is {text!r}; expected a size such as 12G (GiB) or 11500M (MiB)")
    return size


def _name(args: argparse.Namespace) -> str:
    if args.gpu_memory is None:
        patch = "x".join(map(str, args.patch_size))
        return f"{args.plans}_{patch}" + ("" if args.batch_size is None else f"_batch{args.batch_size}")
    trainer = args.trainer.removeprefix("nnUNetTrainer") or args.trainer
    size = re.sub(r"\s|i?B$", "", args.gpu_memory.strip(), flags=re.IGNORECASE).upper()
    return "_".join((args.plans, trainer, size, *(["recompute"] if args.gradient_checkpointing else [])))
