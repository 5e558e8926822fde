"""`swin-umamba describe TRAINER`: what its network is and what it costs, for a dataset or for a size of patches."""

import argparse
import json
import math
import textwrap
from typing import TYPE_CHECKING, Any

from swin_umamba_nnunet._text import UserError, by, byte_size, table
from swin_umamba_nnunet.catalogue import NETWORKS, NetworkRecord, get_trainer, trainer_names
from swin_umamba_nnunet.cli import underway

if TYPE_CHECKING:
    from swin_umamba_nnunet.cost.network import Cost, PartCost

DESCRIPTION = """\
What the network of a trainer is and what it costs: shape, parameters, FLOPs with the selective scans counted, memory
of its activations, heads of deep supervision, differences from its paper.  Nothing is trained and nothing computed: it
takes seconds, no GPU and hardly any memory.

    swin-umamba describe nnUNetTrainerSwinUMamba                      # at 1x320x320 and 14 classes
    swin-umamba describe nnUNetTrainerSwinUMamba --shape 3 512 512 --classes 2
    swin-umamba describe nnUNetTrainerUMambaEnc -d 702
    swin-umamba describe nnUNetTrainer -d 702 -p nnUNetResEncUNetLPlans    # nnU-Net's own networks, to compare
"""

_WIDTH = 110  # characters per line
_PLANNED = object()  # --batch without a number
_ABDOMEN = (1, 320, 320), 14  # shape and classes where none are said: the catalogue counts parameters there

# nnU-Net's own networks, which no trainer of the catalogue has
_OF_NNUNET = (
    NetworkRecord(
        *("PlainConvUNet", "PlainConvUNet", "nnU-Net, Nature Methods 18, 203-211 (2021)"),
        "nnU-Net's U-Net of plain convolutions, built from the plans.",
    ),
    NetworkRecord(
        *("ResidualEncoderUNet", "ResidualEncoderUNet", "nnU-Net Revisited, arXiv:2404.09556"),
        "nnU-Net's U-Net with a residual encoder, built from the plans.",
    ),
)
# what is said about a trainer -> field of its record
_OF_TRAINER = {
    "summary": "summary",
    "imagenet_weights": "weights",
    "control_of": "control_of",
    "trained_with_deep_supervision": "deep_supervision",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add(
        "trainer",
        metavar="TRAINER",
        help="as given to nnUNetv2_train -tr: one of `swin-umamba list`, nnUNetTrainer, or your own",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-d", metavar="DATASET", dest="dataset", help="number or name of a dataset planned by nnU-Net")
    what.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="C H W or C D H W, channels and size of patches; plans as nnU-Net's (default: 1 320 320, 14 classes)",
    )
    add("--classes", type=int, metavar="N", help="with --shape: classes, background included")
    add(
        "-c",
        metavar="CONFIGURATION",
        dest="configuration",
        help="with -d: nnU-Net configuration (default: 2d)",
    )
    add(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        dest="plans",
        help="nnU-Net plans (default: nnUNetPlans); nnUNetResEncUNetLPlans for the residual encoder",
    )
    add(
        "--batch",
        type=int,
        nargs="?",
        const=_PLANNED,
        default=1,
        metavar="N",
        help="activation memory at this batch size (default: 1; without a number that of the plans)",
    )
    add("--json", action="store_true", help="print JSON, numbers in full")


def run(args: argparse.Namespace) -> None:
    """Print the description."""
    if args.shape and args.classes is None:
        raise UserError("--shape needs --classes N too, the number of classes with the background")
    if args.classes is not None and not args.shape:
        raise UserError("--classes goes with --shape; with -d the dataset says how many classes there are")
    if args.batch is _PLANNED and not args.dataset:
        raise UserError("--batch needs a number, with --shape too; only the plans of a dataset (-d) have a batch size")
    if args.configuration and not args.dataset:
        raise UserError("-c goes with -d; without a dataset a 3D network takes --shape C D H W, and --classes N")
    with underway("PyTorch and nnU-Net start, the network is built and counted"):
        from swin_umamba_nnunet.cost.tasks import describe_trainer, task_of_dataset, task_of_shape
        from swin_umamba_nnunet.trainers.finding import find_trainer

        try:
            trainer = find_trainer(args.trainer)
            if args.dataset:
                task = task_of_dataset(args.dataset, args.plans, args.configuration or "2d")
            else:
                shape, classes = (args.shape, args.classes) if args.shape else _ABDOMEN
                task = task_of_shape(shape, classes, args.plans)
            cost = describe_trainer(trainer, task, task.batch_size if args.batch is _PLANNED else args.batch)
        except ValueError as error:
            raise UserError(str(error)) from error
    assumed = (
        None
        if args.dataset or args.shape
        else "this size, Swin-UMamba's on AbdomenMR, as neither -d nor --shape is given"
    )
    about = {**_about(trainer, cost.network), "assumed": assumed}
    if args.json:
        print(json.dumps({**about, "plans": args.plans, **cost.to_dict()}, indent=2))
    else:
        _print(about, cost)


def _about(trainer: type, network: str) -> dict[str, Any]:
    """What is known about a trainer and its network apart from numbers; None for what is not known."""
    name = trainer.__name__
    record = get_trainer(name) if name in trainer_names() else None
    wanted = record.network if record else network
    unknown = NetworkRecord(network, network, "", "A network this package knows nothing about.")
    known = next((each for each in (*NETWORKS, *_OF_NNUNET) if each.name == wanted), unknown)
    return {
        "trainer": name,
        "variant": (trainer.__doc__ or "").strip() if record and record.name != name else None,
        **{said: getattr(record, field, None) for said, field in _OF_TRAINER.items()},
        "title": known.title,
        "paper": known.paper or None,
        "what": known.summary,
        "deviations": known.deviations,
    }


def _print(about: dict[str, Any], cost: "Cost") -> None:
    from swin_umamba_nnunet.cost.count import CONVENTION
    from swin_umamba_nnunet.cost.network import MEMORY_CONVENTION

    print(about["trainer"])
    origin = f" ({about['paper']})" if about["paper"] else ""
    weights, control_of = about["imagenet_weights"], about["control_of"]
    for line in filter(
        None,
        (
            about["summary"],
            about["variant"],
            f"Network: {about['title']}{origin}. {about['what']}",
            weights and f"Its encoder starts from the ImageNet weights {weights}.",
            control_of and f"It is a control of {control_of}.",
        ),
    ):
        print(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    "))
    print(f"\nPatches of {by(cost.input_shape)} (channels first), {cost.classes} classes, background included")
    print(f"Assumed: {about['assumed']}\n" if about["assumed"] else "")
    print("\n".join((*_diagram(cost), "", *_table(cost))))
    scales = ", ".join(_scale(each) for each in cost.deep_supervision_scales)
    untrained = about["trained_with_deep_supervision"] is False and len(cost.head_sizes) > 1
    print(f"\nHeads          at {scales} of the patch" + ("; only the first is trained" if untrained else ""))
    print(f"Parameters     {cost.parameters / 1e6:.3f} M, {byte_size(cost.parameter_bytes)}")
    scan = f"{cost.dense_flops / 1e9:.2f} + {cost.scan_flops / 1e9:.2f} G scan" if cost.scan_flops else "no scan"
    print(f"FLOPs          {cost.flops / 1e9:.2f} G ({scan})")
    if cost.uncounted:
        print(f"NOT counted    {', '.join(cost.uncounted)}: no formula, so the FLOPs above are too low")
    print(f"Activations    {byte_size(cost.activation_bytes)} at batch {cost.batch_size} in float32")
    for title, lines in (
        ("Differences from the paper and its published code", about["deviations"]),
        ("What is counted", (CONVENTION, MEMORY_CONVENTION)),
    ):
        if lines:
            print(f"\n{title}")
        for line in lines:
            print(textwrap.fill(line, _WIDTH, initial_indent="  - ", subsequent_indent="    "))


def _diagram(cost: "Cost") -> list[str]:
    """The parts by the size of their maps, one line per size: the encoder on the left, the decoder on the right."""
    sides: dict[tuple[int, ...], tuple[list[str], list[str]]] = {
        cost.input_shape[1:]: ([f"image ({cost.input_shape[0]})"], [])
    }
    for part in cost.parts:
        if part.size:
            left, right = sides.setdefault(part.size, ([], []))
            side = right if part.name.startswith("decoder") else left
            side.append(f"{part.name.removeprefix('encoder ').removeprefix('decoder ')} ({part.channels})")
    for size in cost.head_sizes:
        sides.setdefault(size, ([], []))[1].append(f"head ({cost.classes})")
    rows = [("map", "encoder, downwards (channels)", "decoder, upwards (channels)")]
    rows += [
        (by(size), ", ".join(sides[size][0]), ", ".join(sides[size][1]))
        for size in sorted(sides, key=math.prod, reverse=True)
    ]
    return table(rows, "><")


def _table(cost: "Cost") -> list[str]:
    """One line per part, the total below."""
    rows = [("part", "parameters", "dense", "scan", "FLOPs", "activations")]
    counts: list[tuple[str, PartCost | Cost]] = [*((part.name, part) for part in cost.parts), ("total", cost)]
    for name, counted in counts:
        dense, scan = counted.dense_flops / 1e9, counted.scan_flops / 1e9
        rows.append(
            (
                name,
                f"{counted.parameters / 1e6:.3f} M",
                f"{dense:.2f} G",
                f"{scan:.2f} G" if scan else "-",
                f"{dense + scan:.2f} G",
                byte_size(counted.activation_bytes),
            )
        )
    return table(rows, "<>", "    ")


def _scale(per_axis: tuple[float, ...]) -> str:
    """1/4, or 1/1 x 1/4 where the axes differ; a decimal where a size is not divisible."""
    words = ["1" if s == 1 else f"1/{1 / s:.0f}" if (1 / s).is_integer() else f"{s:.4f}" for s in per_axis]
    return words[0] if len(set(words)) == 1 else by(words)
