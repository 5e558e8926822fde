"""The configuration of a benchmark: a TOML file, flags, or both, as one checked and frozen object."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from swin_umamba_nnunet._text import did_you_mean, printable
from swin_umamba_nnunet.benchmark.files import BenchmarkError, ConfigError, Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEVICES = ("auto", "cpu", "cuda", "mps")
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_NOT_IN_NAMES = '/\\:*?"<>|'  # separators of paths, and what Windows refuses


@dataclass(frozen=True)
class Row:
    """One row of the table: what is compared.

    Attributes:
        name: of the trainer, as `nnUNetv2_train -tr` takes it.
        plans: identifier of the plans, as `-p` takes it.
        configuration: of these plans; that of the benchmark by default.
        label: what the row is called in tables; by default the trainer, with plans and configuration where unusual.
        num_gpus: GPUs of one training (nnU-Net's DDP).
        slurm: resources of its jobs, over those of the whole benchmark (parameters of submitit's slurm executor).
        recorded: what benchmark.json says about a row that was read back from there: "weights" (None, or "name" and
            "sha256" of the ImageNet file), "ancestors", "stock_network", "network_classes"; {} of any other.
    """

    name: str
    plans: str = "nnUNetPlans"
    configuration: str = "2d"
    label: str = ""
    num_gpus: int = 1
    slurm: Record = field(default_factory=dict, hash=False)
    recorded: Record = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Name of the folder nnU-Net gives such a model; of an observer, the name."""
        return self.name if self.human else f"{self.name}__{self.plans}__{self.configuration}"

    @property
    def human(self) -> bool:
        """Whether it is an observer (see `BenchmarkConfig`): scored as the others, and nothing is trained."""
        return not self.plans

    def to_dict(self) -> Record:
        """Its settings, as JSON and TOML take them."""
        return {name: getattr(self, name) for name in _IN_ROWS}


@dataclass(frozen=True)
class BenchmarkConfig:
    """A benchmark.

    Attributes:
        output: folder for everything it writes.
        datasets: ids or names of nnU-Net datasets.
        trainers: the rows.
        folds: of nnU-Net's split, or "all" (train on all cases, score on imagesTs).
        seeds: one training each; see `steps` for what a seed fixes.
        configuration: of the plans, for rows that name none.
        baseline: label or trainer of the row that others are compared to; "" lets the report choose.
        device: "auto" takes a GPU that PyTorch sees, or on SLURM those that `slurm` asks for, else the CPU.
        test: score on imagesTs and labelsTs instead of on the fold's validation cases.
        mirroring: test-time mirroring in `nnUNetv2_predict` (nnU-Net's default), for all rows alike.
        checkpoint: which one predicts, for all rows alike.
        validation: also let `nnUNetv2_train` run nnU-Net's own validation, which predicts the same cases once more.
        checkpoint_minutes: a training saves `checkpoint_latest.pth` at least that often (at the end of an epoch).
        slurm: resources of every job (parameters of submitit's slurm executor).
        observers: name -> folder of segmentations by a human, or dataset -> folder; further rows, by whom the trainers
            can be judged.
    """

    output: Path
    datasets: tuple[int | str, ...]
    trainers: tuple[Row, ...]
    folds: tuple[int | str, ...] = (0,)
    seeds: tuple[int, ...] = (0,)
    configuration: str = "2d"
    baseline: str = ""
    device: str = "auto"
    test: bool = False
    mirroring: bool = True
    checkpoint: str = CHECKPOINTS[0]
    validation: bool = False
    checkpoint_minutes: float = 10.0
    slurm: Record = field(default_factory=dict)
    observers: Record = field(default_factory=dict)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The trainers, and the observers."""
        return (*self.trainers, *map(_observer, self.observers))

    def to_dict(self) -> Record:
        """As JSON and TOML take it."""
        return {**asdict(self), "output": str(self.output), "trainers": [row.to_dict() for row in self.trainers]}


def _observer(name: str) -> Row:
    return Row(name, plans="", configuration="", label=f"{printable(name)} (human)")


# ------------------------------------------------------------------------------------------------------- rules


def _is(*kinds: type) -> Callable[[Any], bool]:
    """Whether a value is of such a type; true is no number."""
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _is_name(value: Any) -> bool:
    """Whether a text can be (part of) a folder's name, on every system, and an argument of a command."""
    clean = isinstance(value, str) and value == value.strip(" .") and value.isprintable()
    return clean and value != "" and value[0] != "-" and not {*value} & {*_NOT_IN_NAMES}


def _are_observers(value: Any) -> bool:
    """Whether it is a table of names, and of folders or tables of them by dataset."""
    folders = [folder for given in value.values() for folder in (given.values() if _is(Mapping)(given) else (given,))]
    return all(map(_is_name, value)) and {} not in value.values() and all(map(_is(str), folders))


_Rule = tuple[Callable[[Any], bool], str]  # whether a setting, or each item of one in _LISTS, fits; what was expected


def _name(example: str) -> _Rule:
    return _is_name, f"a single name was expected, such as {example}, without {' '.join(_NOT_IN_NAMES)}"


def _choice(choices: tuple[str, ...]) -> _Rule:
    return lambda value: value in choices, f"one of {', '.join(choices)} was expected"


def _number(least: int, most: float, expected: str, *kinds: type) -> _Rule:
    return lambda value: _is(int, *kinds)(value) and least <= value <= most, expected


_LISTS = ("datasets", "folds", "seeds", "trainers")
_IN_ROWS = ("name", "plans", "configuration", "label", "num_gpus", "slurm")
_TEXT, _SWITCH = (_is(str), "a string was expected"), (_is(bool), "true or false was expected")
_RULES: dict[str, _Rule] = {
    "name": _name("nnUNetTrainer"),
    "plans": _name("nnUNetPlans"),
    "configuration": _name("2d"),
    "label": _TEXT,
    "num_gpus": _number(1, math.inf, "1 or more was expected (1 also runs on a CPU)"),
    "slurm": (
        lambda value: (
            _is(Mapping)(value)
            and all(
                isinstance(v, Mapping if name == "additional_parameters" else str | int | float | list)
                for name, v in value.items()
            )
        ),
        "a table of numbers and strings was expected: [slurm] and then time = 720 (minutes)",
    ),
    "observers": (
        lambda value: _is(Mapping)(value) and _are_observers(value),
        'names with folders were expected: observers = {second = "FOLDER"}, or by dataset, {second = {1 = "FOLDER"}}',
    ),
    "output": (_is(str, Path), "the path of a folder was expected"),
    "datasets": (
        lambda value: _is(int)(value) or _is_name(value),
        f"the id (such as 1) or name (Dataset001_NAME) of a dataset was expected, without {' '.join(_NOT_IN_NAMES)}",
    ),
    "trainers": (_is(str, Mapping), "a name or a [[trainers]] table was expected"),
    "folds": (lambda value: value == "all" or (_is(int)(value) and value >= 0), 'a fold is 0, 1, ... or "all"'),
    "seeds": _number(0, 2**32 - 1, "a number between 0 and 2^32 - 1 was expected, which is what numpy takes"),
    "baseline": _TEXT,
    "device": _choice(DEVICES),
    "test": _SWITCH,
    "mirroring": _SWITCH,
    "checkpoint": _choice(CHECKPOINTS),
    "validation": _SWITCH,
    "checkpoint_minutes": _number(0, 1e9, "a number of minutes, 0 or more (up to 1e9), was expected", float),
}
_REQUIRED = {
    "output": 'name the folder to write to, as in output = "bench"',
    "datasets": "name nnU-Net datasets, as in datasets = [1] for Dataset001_NAME",
    "trainers": 'name at least one, as in [[trainers]] and then name = "nnUNetTrainer"',
}


# ---------------------------------------------------------------------------------------------------- building


def read_file(path: Path) -> dict[str, Any]:
    """What a TOML file says, unchecked.

    Raises:
        BenchmarkError: it is not there, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"the configuration {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"the configuration {path} is not valid TOML: {error}") from error


def build_config(settings: Record) -> BenchmarkConfig:
    """The configuration that `settings` (from a file, or from flags) spell out.

    Rows may be tables, or what flags take: NAME, NAME:PLANS or NAME:PLANS:CONFIGURATION.

    Raises:
        ConfigError: with everything that is wrong about names, types and values; what depends on this machine is
            checked by `prepare`.
    """
    missing = [name for name in _REQUIRED if not settings.get(name)]
    problems = [f"`{name}` is missing or empty; {_REQUIRED[name]}" for name in missing]
    given = {name: value for name, value in settings.items() if name not in missing}
    values = _fitting(given, [item.name for item in fields(BenchmarkConfig)], "the configuration", problems)
    rows = _rows(values.pop("trainers", ()), values.get("configuration", "2d"), problems)
    observers = list(map(_observer, values.get("observers", ())))
    labels = [row.label for row in rows]
    twice = [f"`{name}` names {item}" for name in _LISTS for item in _repeated(values.get(name, ()))]
    twice += [f"the row {key} is there" for key in _repeated(row.key for row in rows)]
    problems += [f"{what} twice: two runs would write into one folder; leave one out" for what in twice]
    for label in _repeated(row.label for row in {row.key: row for row in (*rows, *observers)}.values()):
        problems.append(f"two rows have the label {label!r}; give each its own `label`")
    baseline = values.get("baseline")
    if baseline and rows and baseline not in (*labels, *(row.name for row in rows)):
        problems.append(f"the `baseline` {baseline!r} is none of the rows ({', '.join(labels)})")
    config = None
    if rows and {"output", "datasets"} <= {*values}:
        values["output"] = Path(values["output"]).expanduser().absolute()
        config = BenchmarkConfig(**values, trainers=tuple(rows))
    if problems or config is None:
        raise ConfigError(problems, config)
    return config


def _fitting(given: Record, known: Sequence[str], where: str, problems: list[str]) -> dict[str, Any]:
    """What of `given` is as the rules want it, lists as tuples; what is wrong is added to `problems`."""
    values = {}
    for name, value in given.items():
        fits, expected = _RULES.get(name, (None, ""))
        if fits is None or name not in known:
            hint = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            problems.append(f"{where} has an unknown setting `{name}`; {hint}")
        elif name not in _LISTS:
            if fits(value):
                values[name] = value
            else:
                problems.append(f"{where}: `{name}` is {value!r}, but {expected}")
        elif not isinstance(value, list | tuple) or not value:
            problems.append(f"{where}: `{name}` is {value!r}, but a list was expected, as in {name} = [...]")
        else:
            # "0" and 0 are the same fold; ids and names of one dataset are compared where the names are known
            items = [int(item) if isinstance(item, str) and item.isdecimal() else item for item in value]
            wrong = [item for item in items if not fits(item)]
            problems += [f"{where}: `{name}` holds {item!r}, but {expected}" for item in wrong]
            if len(wrong) < len(items):
                values[name] = tuple(item for item in items if item not in wrong)
    return values


def _rows(entries: Iterable[Any], configuration: str, problems: list[str]) -> list[Row]:
    rows = []
    for number, given in enumerate(entries, 1):
        where = f"row {number} of `trainers`"
        entry = given
        if isinstance(given, str):
            entry = {name: part for name, part in zip(_IN_ROWS, given.split(":", 2)) if part or name == "name"}
        if not entry.get("name"):
            problems.append(f'{where} is {given!r}, but needs a name, as in name = "nnUNetTrainer"')
            continue
        values = _fitting(entry, _IN_ROWS, where, problems)
        if {*entry} & {*_IN_ROWS[:3]} <= {*values}:
            row = Row(**{"configuration": configuration, **values})
            usual = {"nnUNetPlans", configuration}
            unusual = ", ".join(value for value in (row.plans, row.configuration) if value not in usual)
            plain = f"{row.name} ({unusual})" if unusual else row.name
            rows.append(replace(row, label=printable(row.label or plain)))
    return rows


def _repeated(items: Iterable[Any]) -> list[Any]:
    return [item for item, count in Counter(items).items() if count > 1]
