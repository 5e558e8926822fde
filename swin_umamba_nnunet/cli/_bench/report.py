"""`swin-umamba bench report`: tables and a plot of JSON files."""

import argparse
from pathlib import Path

from swin_umamba_nnunet.cli.errors import CliError

DESCRIPTION = """\
Tables (Markdown) and a plot of what `bench ops`, `bench networks` and `make gpu-check` have written.

    swin-umamba bench report                              the runs kept in this package's repository
    swin-umamba bench report mine.json --plot mine.png --markdown mine.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="JSON files (default: those that come with the package)")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there instead of to the screen")
    add("--plot", type=Path, metavar="FILE", help="draw the figures, as .png, .svg or .pdf")


def run(args: argparse.Namespace) -> int:
    """Read, print or write."""
    from swin_umamba_nnunet._atomic import replacing, write_text
    from tests.speed.record import RESULTS, find_documents, read_document
    from tests.speed.table import markdown

    for option, file in (("--markdown", args.markdown), ("--plot", args.plot)):
        if file and not file.absolute().parent.is_dir():
            raise CliError(f"{option} {file}: the folder {file.absolute().parent} does not exist; make it first")
    files = args.files or find_documents()
    if not files:
        raise CliError(f"no figures yet: {RESULTS} holds none, since nobody has run `make gpu-check` on a GPU; "
                       "name a file of your own, made by `swin-umamba bench networks --json FILE`")  # fmt: skip
    documents = [read_document(file) for file in files]
    text = "\n".join(map(markdown, documents))
    if args.markdown:
        write_text(args.markdown, text)
        print(f"tables of {len(documents)} runs written to {args.markdown}")
    else:
        print(text)
    if args.plot:
        try:
            from tests.speed.plot import FORMATS, draw
        except ModuleNotFoundError as error:
            raise CliError(f"--plot needs {error.name}; run   pip install matplotlib") from error
        if args.plot.suffix not in FORMATS:
            raise CliError(f"--plot {args.plot}: expected a name that ends in {', '.join(FORMATS)}")
        with replacing(args.plot) as unfinished:
            draw(documents, unfinished, args.plot.suffix[1:])
        print(f"plot written to {args.plot}")
    return 0
