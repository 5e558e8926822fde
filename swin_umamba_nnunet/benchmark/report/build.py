"""From a benchmark's folder to the files of its report."""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import markupsafe
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from swin_umamba_nnunet import __version__
from swin_umamba_nnunet._atomic import write_text
from swin_umamba_nnunet._text import plural, printable
from swin_umamba_nnunet.benchmark.files import BenchmarkError, now
from swin_umamba_nnunet.benchmark.report import published, tables, words
from swin_umamba_nnunet.benchmark.report.analysis import Analysis, ReportOptions, analyse
from swin_umamba_nnunet.benchmark.report.charts import charts_of
from swin_umamba_nnunet.benchmark.report.collect import Benchmark, read_benchmark
from swin_umamba_nnunet.benchmark.report.pictures import pictures
from swin_umamba_nnunet.evaluation.records import ALL_CLASSES

PAGE, LATEX = "report.html", "tables.tex"
# What is hashed of a run's inputs, and what it is the hash of.
_HASHES = {
    "plans_sha256": "plans {run.row.plans} of {run.dataset}",
    "splits_sha256": "split of {run.dataset}",
    "dataset_fingerprint_sha256": "dataset fingerprint of {run.dataset}",
    "weights_sha256": "ImageNet weights of {run.row.label}",
    "trainer_sha256": "file of the trainer of {run.row.label}",
    "segmentations_sha256": "segmentations of {run.row.label}",
}
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "{}$&#%_"},
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        words.MINUS: "$-$",
        words.DASH: "--",
        "\u221e": r"$\infty$",
        "\u2026": r"\ldots{}",
        "\u00b1": r"$\pm$",
        "\n": " ",
    }
)


def write_report(
    folder: Path,
    output: Path,
    options: ReportOptions | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> tuple[Analysis, list[Path]]:
    """Read a benchmark, and write its report when all of it is made.

    Args:
        folder: of the benchmark.
        output: folder for the files; those of an earlier report are replaced, each as a whole.
        options: what to show.
        said: is told what comes next.

    Returns:
        The numbers, and the files, the page first.

    Raises:
        BenchmarkError: see `read_benchmark` and `analyse`; or the folder cannot be written.
    """
    options = options or ReportOptions()
    said("reading the runs")
    benchmark = read_benchmark(folder)
    said("computing the statistics")
    analysis = analyse(benchmark, options)
    said("drawing the charts and pictures")
    files = {LATEX: _template(LATEX, finalize=escape).render(analysis=analysis), **tables.files(analysis)}
    files = {PAGE: render(analysis, options, list(files)), **files}
    said("writing")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(output / name, text)
    except OSError as error:
        raise BenchmarkError(
            f"the report cannot be written to {output} ({error.strerror}); name another with -o"
        ) from error
    return analysis, [output / name for name in files]


def _own_file(name: str) -> str:
    """What a file of this folder holds."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template(name: str, **settings: Any) -> Template:
    """Of a file of the report; it escapes whatever is put into it but `Markup`, for HTML or else as `settings` say."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True, **settings
    )
    environment.filters |= {name: value for name, value in vars(words).items() if callable(value)}
    environment.filters |= {how.__name__: how for how in (breakable, commands, pictures, plural, provenance, slug)}
    return environment.from_string(_own_file(f"{name}.j2"))


def render(analysis: Analysis, options: ReportOptions, beside: Sequence[str]) -> str:
    """The page, complete in itself; everything is escaped but the charts.

    Args:
        analysis: the numbers.
        options: what to show.
        beside: names of the other files.
    """
    text = _template(PAGE).render(
        css=_own_file("report.css"),
        analysis=analysis,
        charts=[charts_of(result, f"dataset-{i}") for i, result in enumerate(analysis.results, 1)],
        options=options,
        all_classes=ALL_CLASSES,
        published=published,
        runs=list(tables.runs(analysis)),
        config=json.dumps(analysis.benchmark.content["config"], indent=2, default=str),
        made=f"Made on {now()} by swin_umamba_nnunet {__version__} (swin-umamba benchmark report).",
        beside=beside,
    )
    return printable(text, lines=True)  # all of it, charts included: logs and names come from anywhere


def escape(value: Any) -> Markup:
    """Text as LaTeX prints it."""
    return value if isinstance(value, Markup) else Markup(printable(str(value), lines=True).translate(_ESCAPES))


def slug(text: str) -> str:
    """A name for LaTeX's labels: small letters, digits and hyphens."""
    return re.sub("[^a-z0-9]", "-", text.lower())


def breakable(name: str) -> Markup:
    """A name that may be broken after its separators, and nowhere else."""
    return Markup(re.sub(r"([_/])(?=[^_/])", r"\1<wbr>", str(markupsafe.escape(name))))


def provenance(benchmark: Benchmark) -> dict[str, dict[str, str]]:
    """What ran, on what, from what: tables of names and values by title."""
    inputs = [run.part("inputs") for run in benchmark.runs]
    versions = [item.get("versions") or {} for item in inputs]
    hashes: dict[str, list[Any]] = {}
    for run in benchmark.runs:
        for key, what in _HASHES.items():
            if value := run.part("inputs").get(key):
                hashes.setdefault(what.format(run=run), []).append(value)
    names = ("device", "num_gpus", "mirroring", "checkpoint", "scored_on")
    return {
        "Conditions": {
            **{name.replace("_", " "): _values(item.get(name) for item in inputs) for name in names},
            "begun, last changed": _values(benchmark.content.get(name) for name in ("created", "updated")),
        },
        "Versions": {name: _values(item.get(name) for item in versions) for item in versions for name in item},
        "Hardware of the machine that planned": {
            **{name: str(value) for name, value in (benchmark.content.get("hardware") or {}).items()},
            "hosts of the runs": _values(run.record.get("host") for run in benchmark.runs),
        },
        "SHA-256 of what files say or hold": {what: _values(values) for what, values in sorted(hashes.items())},
    }


def _values(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or words.DASH


def commands(benchmark: Benchmark) -> Iterator[tuple[str, str, list[str]]]:
    """Per run its name, nnU-Net's training command (an observer's evaluation) in one line, and all as they ran."""
    for run in benchmark.runs:
        made = [list(map(str, command)) for command in run.record.get("commands") or []]
        if made:
            own = made[0][made[0].index("--") + 1 :] if "--" in made[0] else made[0]
            line = shlex.join(own) + (f"  # seed {run.seed}" if run.shown_seed else "")
            if run.part("training").get("replays"):
                line = f"SWIN_UMAMBA_SEED={run.seed} {shlex.join(own)}"
            yield run.title, line, [shlex.join(command) for command in made]
