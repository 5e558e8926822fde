"""The command `swin-umamba VERB`: parse, call a room, print.

Each verb is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(args) -> exit code`.  Only the module of the
verb that was asked for is imported, and it imports torch, nnU-Net and the like only inside `run`, so `--help` answers
at once.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet.cli.errors import CliError

# verb -> (module, one line for `swin-umamba --help`)
VERBS = {
    "demo": ("swin_umamba_nnunet.cli.demo", "train, predict and evaluate on a small brain MRI dataset, step by step"),
    "convert": ("swin_umamba_nnunet.cli.convert", "make an nnU-Net dataset of images, volumes, ISIC, Synapse, ..."),
    "list": ("swin_umamba_nnunet.cli.list_trainers", "the trainers that nnUNetv2_train -tr understands"),
    "describe": ("swin_umamba_nnunet.cli.describe", "what a trainer's network is and what it costs"),
    "plan": ("swin_umamba_nnunet.cli.plan", "nnU-Net plans whose patch and batch fit a GPU for a trainer"),
    "doctor": ("swin_umamba_nnunet.cli.doctor", "check this installation and say what to do about what is wrong"),
    "import-checkpoint": ("swin_umamba_nnunet.cli.import_checkpoint", "the authors' released models for stock nnU-Net"),
    "adapt-checkpoint": ("swin_umamba_nnunet.cli.adapt_checkpoint", "a trained model for other image channels"),
    "export": ("swin_umamba_nnunet.cli.export", "a trained network as a torch.export archive or ONNX file"),
    "bench": ("swin_umamba_nnunet.cli.bench", "measure how fast this machine runs the parts of the networks"),
    "evaluate": ("swin_umamba_nnunet.cli.evaluate", "Dice, IoU, NSD, HD95 and F1 of a prediction folder"),
    "weights": ("swin_umamba_nnunet.cli.weights", "list, fetch and verify the ImageNet weights trainers start from"),
    "overlay": ("swin_umamba_nnunet.cli.overlay", "pictures of images with ground truth and prediction, with scores"),
    "benchmark": ("swin_umamba_nnunet.cli.benchmark", "compare trainers fairly: same plans, split, cases and scores"),
}

_EPILOG = """\
New here? Run   swin-umamba demo   and watch nnU-Net's own commands at work.
Details on a verb:   swin-umamba VERB --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `swin-umamba` with `argv` (the process's arguments by default) and return the exit code.

    A `CliError` becomes one sentence on stderr; any other exception is a bug of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # nnU-Net's progress bars on a terminal that is not UTF-8
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser, modules = _parser_for(arguments)
    _refuse_unknown_verb(parser, arguments)
    args = parser.parse_args(arguments)
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        return modules[args.verb].run(args)
    except CliError as error:
        print(f"swin-umamba {args.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nswin-umamba {args.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `swin-umamba list | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _refuse_unknown_verb(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """End with a suggestion where argparse would only list what there is."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in VERBS:
        return
    close = difflib.get_close_matches(arguments[0].lower(), VERBS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the verbs are {', '.join(VERBS)}"
    parser.exit(2, f"swin-umamba: there is no verb {arguments[0]}; {hint} (swin-umamba --help says what they do)\n")


def _parser_for(arguments: list[str]):
    """The parser, complete for the verb in `arguments` and a bare list of the others; and the imported modules."""
    parser = argparse.ArgumentParser(
        prog="swin-umamba",
        description="Swin-UMamba for nnU-Net: Mamba segmentation networks that train with nnU-Net's own commands.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"swin_umamba_nnunet {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    modules = {}
    for verb, (module_name, summary) in VERBS.items():
        if verb != asked:
            verbs.add_parser(verb, help=summary)
            continue
        modules[verb] = importlib.import_module(module_name)
        formatter = argparse.RawDescriptionHelpFormatter
        own = verbs.add_parser(verb, help=summary, description=modules[verb].DESCRIPTION, formatter_class=formatter)
        modules[verb].add_arguments(own)
    return parser, modules
