"""The configuration of a benchmark: a TOML file, flags, or both, as one checked and frozen object."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from swin_umamba_nnunet.benchmark.files import ConfigError, MatrixError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEVICES = ("auto", "cpu", "cuda", "mps")
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_NOT_IN_NAMES = frozenset('/\\:*?"<>|')  # separators of paths, and what Windows refuses


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
    slurm: Mapping[str, Any] = field(default_factory=dict)
    recorded: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Its settings, as JSON and TOML take them."""
        return {name: getattr(self, name) for name in ROW_SETTINGS}

    @property
    def key(self) -> str:
        """Name of the folder nnU-Net gives such a model."""
        return f"{self.name}__{self.plans}__{self.configuration}"


ROW_SETTINGS = tuple(item.name for item in fields(Row) if item.compare)


@dataclass(frozen=True)
class MatrixConfig:
    """A benchmark.

    Attributes:
        output: folder for everything it writes.
        datasets: ids or names of nnU-Net datasets.
        trainers: the rows.
        folds: of nnU-Net's split, or "all" (train on all cases, score on imagesTs).
        seeds: one training each; see `seeded` for what a seed fixes.
        configuration: of the plans, for rows that name none.
        baseline: label or trainer of the row that others are compared to; "" lets the report choose.
        device: "auto" takes a GPU that PyTorch sees, else the CPU.
        test: score on imagesTs and labelsTs instead of on the fold's validation cases.
        mirroring: test-time mirroring in `nnUNetv2_predict` (nnU-Net's default), for all rows alike.
        checkpoint: which one predicts, for all rows alike.
        validation: also let `nnUNetv2_train` run nnU-Net's own validation, which predicts the same cases once more.
        checkpoint_minutes: a training saves `checkpoint_latest.pth` at least that often (at the end of an epoch).
        slurm: resources of every job (parameters of submitit's slurm executor).
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
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON and TOML take it."""
        return {**asdict(self), "output": str(self.output), "trainers": [row.to_dict() for row in self.trainers]}


def read_file(path: Path) -> dict[str, Any]:
    """What a TOML file says, unchecked.

    Raises:
        MatrixError: it is not there, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MatrixError(f"the configuration {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MatrixError(f"the configuration {path} is not valid TOML: {error}") from error


def parse_row(text: str) -> dict[str, Any]:
    """A row as flags spell it: NAME, NAME:PLANS or NAME:PLANS:CONFIGURATION."""
    return dict(zip(("name", "plans", "configuration"), text.split(":", 2)))


def build_config(settings: Mapping[str, Any]) -> MatrixConfig:
    """The configuration that `settings` (from a file, or from flags) spell out.

    Raises:
        ConfigError: with everything that is wrong about names, types and values; what depends on this machine is
            checked by `plan.prepare`.
    """
    problems: list[str] = []
    known = [item.name for item in fields(MatrixConfig)]
    _refuse_unknown(settings, known, "the configuration", problems)
    values = {name: settings[name] for name in known if name in settings}
    for name, remedy in (
        ("output", 'name the folder to write to, as in output = "bench"'),
        ("datasets", "name nnU-Net datasets, as in datasets = [901]"),
        ("trainers", 'name at least one, as in [[trainers]] and then name = "nnUNetTrainer"'),
    ):
        if not values.get(name):
            problems.append(f"`{name}` is missing or empty; {remedy}")
    whole = {"configuration": values.get("configuration", "2d")}
    rows = _rows(values.pop("trainers", None) or [], whole, problems)
    for name, kinds in (("datasets", (int, str)), ("folds", (int, str)), ("seeds", (int,))):
        values[name] = _list(values, name, kinds, problems)
    _check_values(values, problems)
    _check_rows(rows, str(values.get("baseline", "")), problems)
    config = None
    if values.get("output") and values.get("datasets") and rows:
        values["output"] = Path(values["output"]).expanduser().absolute()
        config = MatrixConfig(**{**values, "trainers": tuple(rows)})
    if problems or config is None:
        raise ConfigError(problems, config)
    return config


def _refuse_unknown(settings: Mapping[str, Any], known: Sequence[str], where: str, problems: list[str]) -> None:
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(known)}"
            problems.append(f"{where} has an unknown setting `{name}`; {hint}")


def _wrong_name(where: str, name: str, example: str) -> str:
    """Why a name cannot be (part of) a folder's, on every system, and an argument of a command; "" if it can."""
    path_like = set(name) & _NOT_IN_NAMES or name.strip(" .") != name or not name.isprintable()
    if name and not path_like and not name.startswith("-"):
        return ""
    return (
        f"`{where}` is {name!r}, which names a folder of the benchmark: a single name was expected, such as {example}, "
        f"without {' '.join(sorted(_NOT_IN_NAMES))}"
    )


def _list(values: dict[str, Any], name: str, kinds: tuple[type, ...], problems: list[str]) -> tuple:
    default = {"folds": (0,), "seeds": (0,)}.get(name, ())
    found = values.get(name, default)
    if isinstance(found, str) or not isinstance(found, Sequence):
        problems.append(f"`{name}` is {found!r}, but a list was expected, as in {name} = [0, 1]")
        return ()
    wrong = [item for item in found if isinstance(item, bool) or not isinstance(item, kinds)]
    if wrong:
        problems.append(f"`{name}` holds {wrong[0]!r}, but {' or '.join(kind.__name__ for kind in kinds)} was expected")
        return ()
    if name == "datasets":
        paths = {item: _wrong_name(name, item, "Dataset901_Synthetic") for item in found if isinstance(item, str)}
        problems += filter(None, paths.values())
        found = [item for item in found if not paths.get(item)]
    if name in values and not found and name != "datasets":  # that one is missed above
        problems.append(f"`{name}` is an empty list; leave it out for {list(default)}")
    # "0" and 0 are the same fold; ids and names of one dataset are compared where the names are known
    found = tuple(int(item) if isinstance(item, str) and item.isdecimal() else item for item in found)
    if name == "seeds" and any(not 0 <= item < 2**32 for item in found):
        problems.append("`seeds` must lie between 0 and 2^32 - 1, which is what numpy takes")
    if name == "folds" and (bad := [item for item in found if item != "all" and (isinstance(item, str) or item < 0)]):
        problems.append(f'`folds` holds {bad[0]!r}, but a fold is 0, 1, ... or "all"')
    repeated = {item for item in found if found.count(item) > 1}
    for item in sorted(repeated, key=str):
        problems.append(f"`{name}` names {item} twice: two cells would write into one folder; leave one out")
    return found


def _check_values(values: dict[str, Any], problems: list[str]) -> None:
    strings = ("configuration", "baseline", "device", "checkpoint")
    for names, kind, said in ((strings, str, "a string"), (("test", "mirroring", "validation"), bool, "true or false")):
        for name in names:
            if name in values and not isinstance(values[name], kind):
                problems.append(f"`{name}` is {values.pop(name)!r}, but {said} was expected")
    if not isinstance(values.get("output", ""), str | Path):
        problems.append(f"`output` is {values.pop('output')!r}, but the path of a folder was expected")
    for name, choices in (("device", DEVICES), ("checkpoint", CHECKPOINTS)):
        if name in values and values[name] not in choices:
            problems.append(f"`{name}` is {values.pop(name)!r}; choose one of {', '.join(choices)}")
    minutes = values.get("checkpoint_minutes", 0)
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes < 0:
        problems.append(f"`checkpoint_minutes` is {minutes!r}, but a number of minutes, 0 or more, was expected")
    if not isinstance(values.get("slurm", {}), Mapping):
        problems.append(f"`slurm` is {values.pop('slurm')!r}, but a table was expected: [slurm] and then time = 720")


def _rows(entries: Any, defaults: dict[str, Any], problems: list[str]) -> list[Row]:
    known: dict[str, Any] = {item.name: item.type for item in fields(Row) if item.compare} | {"slurm": Mapping}
    rows = []
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
        problems.append(f"`trainers` is {entries!r}, but a list of names or of [[trainers]] tables was expected")
        return []
    for number, given in enumerate(entries, 1):
        where = f"row {number} of `trainers`"
        entry = parse_row(given) if isinstance(given, str) else given
        if not isinstance(entry, Mapping) or not entry.get("name"):
            problems.append(f'{where} is {given!r}, but needs a name, as in name = "nnUNetTrainer"')
            continue
        _refuse_unknown(entry, list(known), where, problems)
        entry = {**defaults, **{key: value for key, value in entry.items() if key in known}}
        wrong = [key for key, value in entry.items() if isinstance(value, bool) or not isinstance(value, known[key])]
        for key in wrong:
            problems.append(f"{where}: `{key}` is {entry[key]!r}, which is not what is expected there")
        if wrong:
            continue
        row = Row(**entry)
        examples = {"name": "nnUNetTrainer", "plans": "nnUNetPlans", "configuration": "2d"}
        paths = [_wrong_name(key, getattr(row, key), example) for key, example in examples.items()]
        if any(paths):
            problems += filter(None, paths)
            continue
        if row.num_gpus < 1:
            problems.append(f"{where}: `num_gpus` is {row.num_gpus}; it must be at least 1 (1 also runs on a CPU)")
        unusual = [
            value
            for value, usual in ((row.plans, "nnUNetPlans"), (row.configuration, defaults["configuration"]))
            if value != usual
        ]
        plain = f"{row.name} ({', '.join(unusual)})" if unusual else row.name
        rows.append(Row(**{**entry, "label": row.label or plain}))
    return rows


def _check_rows(rows: Sequence[Row], baseline: str, problems: list[str]) -> None:
    keys, labels = [row.key for row in rows], [row.label for row in rows]
    for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
        problems.append(f"the row {key} is there twice: two cells would write into one folder; leave one out")
    for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
        if len({row.key for row in rows if row.label == label}) > 1:
            problems.append(f"two rows have the label {label!r}; give each its own `label`")
    if baseline and rows and baseline not in (*labels, *(row.name for row in rows)):
        problems.append(f"the `baseline` {baseline!r} is none of the rows ({', '.join(labels)})")
