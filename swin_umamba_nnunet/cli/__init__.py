"""The command `swin-umamba VERB`: parse, call a room, print.

Each verb is a module with `DESCRIPTION`, `add_arguments(parser)` and `run(args) -> exit code` (None: 0), or in place of
`run` the `actions` it has.  Only the module of the verb that was asked for is imported, and it imports torch, nnU-Net
and the like only inside `run`, so `--help` answers at once.
"""

import argparse
import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._text import UserError, did_you_mean
from swin_umamba_nnunet.catalogue import trainer_names

# verb, a module of this folder -> one line for `swin-umamba --help`
VERBS = {
    "demo": "train, predict and evaluate on a small brain MRI dataset, step by step",
    "convert": "make an nnU-Net dataset of images, volumes, MedSegBench, ISIC, ...",
    "list": "the trainers that nnUNetv2_train -tr understands",
    "describe": "what a trainer's network is and what it costs",
    "plan": "nnU-Net plans that fit a GPU for a trainer, or with a stated patch",
    "doctor": "check this installation and say what to do about what is wrong",
    "model": "a trained model: import, adapt to other image channels, export",
    "predict": "a trained model on new images, as they are: photographs, volumes, DICOM",
    "evaluate": "Dice, IoU, NSD, HD95 and F1 of a prediction folder",
    "weights": "list, fetch and verify the ImageNet weights trainers start from",
    "overlay": "pictures of images with ground truth and prediction, with scores",
    "benchmark": "compare trainers fairly: same plans, split, cases and scores",
}
# verb of earlier releases -> what does its work today
FORMER_VERBS = {
    "import-checkpoint": "swin-umamba model import",
    "adapt-checkpoint": "swin-umamba model adapt",
    "export": "swin-umamba model export",
    "bench": "swin-umamba doctor   (a figure for each backend), or   make bench   in a clone of the repository",
}

_EPILOG = """\
New here? Run   swin-umamba demo   and watch nnU-Net's own commands at work.
Details on a verb:   swin-umamba VERB --help
Completion with Tab in bash and zsh:   pip install argcomplete; eval "$(register-python-argcomplete swin-umamba)"
"""


# What the machine refuses and no code of ours can help: said in a sentence, whatever verb it happens in.
_OF_THE_MACHINE = {
    getattr(errno, name, None)  # Windows lacks some
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENAMETOOLONG", "ENOTDIR", "EISDIR"),
        *("ELOOP", "EMFILE", "ENFILE", "ENOMEM"),
    )
} - {None}


class Parser(argparse.ArgumentParser):
    """Shows descriptions as they are written; so do the parsers of its verbs and of their actions."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `swin-umamba` with `argv` (the process's arguments by default) and return the exit code.

    What the user or the machine can put right becomes one sentence on stderr: a `UserError`, a full disk, a folder that
    cannot be written, too little memory, Ctrl-C (130), output that nobody takes.  Any other exception is a bug of ours
    and keeps its traceback.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # nnU-Net's progress bars on a terminal that is not UTF-8
    arguments = [*(sys.argv[1:] if argv is None else argv)]  # `list` is a verb, a module of this package
    name = " ".join(["swin-umamba", *(argument for argument in arguments[:1] if argument in VERBS)])
    said = unwritten = stopped = None
    try:
        code = _perform(arguments)
    except SystemExit as end:  # argparse, or a signal
        stopped, code = end, end.code if isinstance(end.code, int) else 1
    except UserError as error:
        code, said = error.exit_code, str(error)
    except KeyboardInterrupt:
        code, said = 130, "interrupted"
        _say("")
    except MemoryError as error:
        code, said = 1, f"there is too little memory: {str(error) or 'Python could not get more'}"
    except SyntaxError as error:  # our own files have none
        code = 1
        said = f"{error.filename}, line {error.lineno}: {error.msg}; mend it, or take it out of nnUNet_extTrainer"
    except OSError as error:
        code, unwritten = 1, _unwritten(sys.stdout, "\n")
        if unwritten is None:
            if error.errno not in _OF_THE_MACHINE:
                raise
            said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if said:
        _say(f"{name}: {said}")
    if unwritten := unwritten or _unwritten(sys.stdout):
        code = code or 1
        # else `swin-umamba list | head`: nobody reads on, which needs no words
        if not isinstance(unwritten, BrokenPipeError):
            _say(f"{name}: its output could not be written: {unwritten.strerror}")
    _unwritten(sys.stderr)
    if stopped and not unwritten:
        raise stopped
    return code


def _perform(arguments: Sequence[str]) -> int:
    """Do what was asked for; an old verb is answered with its new name, an unknown one with a suggestion."""
    if "_ARGCOMPLETE" in os.environ:
        return _complete(os.environ.get("COMP_LINE", ""))
    parser, verb = _parser_for(arguments), "".join(arguments[:1])
    if verb in FORMER_VERBS:
        parser.exit(2, f"swin-umamba: {verb} is now   {FORMER_VERBS[verb]}\n")
    if verb and not verb.startswith("-") and verb not in VERBS:
        hint = did_you_mean(verb, VERBS) or f"the verbs are {', '.join(VERBS)}"
        parser.exit(2, f"swin-umamba: there is no verb {verb}; {hint} (swin-umamba --help says what they do)\n")
    args = parser.parse_args(arguments)
    return args.run(args) or 0


def _complete(line: str) -> int:
    """Answer the shell, which asks what could come next in `line` (see argcomplete, which is optional)."""
    try:
        import argcomplete
    except ImportError:
        return 1
    files = argcomplete.FilesCompleter()

    def values(prefix: str, action: argparse.Action, **asked: object) -> Iterable[str]:
        return trainer_names() if action.metavar == "TRAINER" else files(prefix, **asked)

    parser = _parser_for([word for word in line.split() if word in VERBS][:1])
    argcomplete.autocomplete(parser, default_completer=values)  # ends the process
    return 0


def _open_closed_streams() -> None:
    """Let streams that the shell has closed (`2>&-`) lead nowhere.

    Python has None in their place, to which nobody can write, and `print(file=None)` writes to stdout; and the next
    files opened get their numbers, into which whatever a library prints then goes.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  (until the process ends)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _unwritten(stream: TextIO, probe: str = "") -> OSError | None:
    """Why what was printed to `stream`, and `probe`, cannot be written; None if it was.

    Such a stream leads nowhere afterwards, or Python would fail with a message of its own when it flushes at the end.
    """
    try:
        stream.write(probe)
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
    except ValueError:  # somebody has closed it
        pass
    return None


def _say(sentence: str) -> None:
    """Print to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr)


def _parser_for(arguments: Sequence[str]) -> Parser:
    """The parser, complete for the verb in `arguments`, whose module is imported, and a bare list of the others."""
    parser = Parser(
        prog="swin-umamba",
        description="Swin-UMamba for nnU-Net: Mamba segmentation networks that train with nnU-Net's own commands.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"swin_umamba_nnunet {__version__}")
    parser.set_defaults(run=lambda args: parser.print_help())
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for verb, summary in VERBS.items():
        own = verbs.add_parser(verb, help=summary)
        if verb == asked:
            module = importlib.import_module(f"{__name__}.{verb}")
            own.description = module.DESCRIPTION
            own.set_defaults(run=getattr(module, "run", None))
            module.add_arguments(own)
    return parser


@contextlib.contextmanager
def underway(what: str) -> Iterator[None]:
    """A line on the terminal's stderr about what takes some seconds, while it does."""
    from tqdm import tqdm

    with tqdm(desc=what, bar_format="{desc} ...", leave=False, disable=None):
        yield


def actions(parser: argparse.ArgumentParser, metavar: str) -> Callable[..., Callable]:
    """A function (name, run, summary, description="") that adds an action to a verb and returns its `add_argument`."""
    made = parser.add_subparsers(dest="action", metavar=metavar, title="actions", required=True)

    def action(name: str, run: Callable, summary: str, description: str = "") -> Callable:
        own = made.add_parser(name, help=summary, description=description)
        own.set_defaults(run=run)
        return own.add_argument

    return action
