"""`swin-umamba bench networks`: options of `benchmark.speed.bench`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.speed.bench import NetworkOptions

DESCRIPTION = """\
Whole networks at the same plans (one image channel, 14 classes): time of a training step and of inference, peak memory,
how much longer the scan takes in the authors' form, and what autograd keeps between forward and backward.

    swin-umamba bench networks                                 (a GPU: its real sizes; a CPU: small images, minutes)
    swin-umamba bench networks --networks SwinUMambaD PlainConvUNet --batch 12 --size 320 --json mine.json

On a GPU times come from its own events; on a CPU only ratios within the run are shown.  One figure that fails (out of
memory, say) does not stop the others, and Ctrl-C keeps what has been measured.

Words: fused = this package's scan, read in place; own = every direction written out in memory as the authors do, on
this package's scan; mamba_ssm = the same on mamba_ssm's compiled extension, where it is installed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is a GPU, else cpu")
    add("--networks", nargs="+", metavar="NAME", default=(),
        help="of SwinUMambaD (dagger), SwinUMamba, VMUNet, UMambaBot, UMambaEnc, PlainConvUNet (nnU-Net's own); "
             "default: all")  # fmt: skip
    add("--batch", type=int, nargs="+", metavar="N", default=(),
        help="images per call (default: 12 and 30 on a GPU, where one image is measured too; 1 on a CPU)")  # fmt: skip
    add("--size", type=int, nargs="+", metavar="PIXELS", default=(),
        help="side of the square images (default: 320 and 256 on a GPU, 64 on a CPU)")  # fmt: skip
    add(
        "--dtype",
        nargs="+",
        metavar="TYPE",
        default=(),
        help="float16 or bfloat16 for autocast, float32 for none (default: the first two on a GPU, float32 on a CPU)",
    )
    add("--passes", nargs="+", metavar="P", default=(), help="step (training) and inference; default: both")
    add("--pipelines", nargs="+", metavar="P", default=(), help="fused, own, mamba_ssm; default: those that run here")
    add("--modes", nargs="+", metavar="M", default=(),
        help="eager, compiled (torch.compile, a minute or more each), graph (CUDA graph, one image); default: all on "
             "a GPU, eager on a CPU")  # fmt: skip
    add("--seconds", type=float, default=0.3, metavar="S",
        help="for each figure, beyond two calls to warm up and five to measure (default: 0.3)")  # fmt: skip
    add("--budget", type=float, metavar="S", help="begin no measurement after so many seconds (default: no end)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    add("--json", type=Path, metavar="FILE", help="write the figures there, after each one")


def options(args: argparse.Namespace) -> "NetworkOptions":
    """What was asked for."""
    from tests.speed.bench import NetworkOptions

    return NetworkOptions(
        args.device, tuple(args.networks), tuple(args.batch), tuple(args.size), tuple(args.dtype), tuple(args.passes),
        tuple(args.pipelines), tuple(args.modes), args.seconds, args.budget, args.threads,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from tests.speed import bench

    return bench.run(options(args), args.json)
