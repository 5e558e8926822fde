"""What a conversion is made of: a layout and its options, its cases as they lie in the source, how the values of masks
are to be understood, and what was noticed."""

from __future__ import annotations

import argparse
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from swin_umamba_nnunet._atomic import write_json
from swin_umamba_nnunet._text import UserError

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

Severity = Literal["error", "warning", "note"]
Part = Literal["train", "val", "test"]
VOLUME_ENDING = ".nii.gz"  # of all volumes written: compressed NIfTI, which everything reads
DEFAULT_FOLDS = 5  # nnU-Net's own number
INSTANCE_LABELS = ("interior", "boundary")  # as U-Mamba's cell dataset has them
INSTANCES = "instances"  # Tr, Ts: folders of instance masks
INSTANCE_SUFFIX = "_label"  # the name `evaluate --protocol cells` knows: CASE_label.tiff

NOT_FINITE = (
    "values are not finite (NaN or infinite); replace them by what they stand for: in an image usually the value of "
    "air, in a mask a label"
)


class ConversionError(UserError, ValueError):
    """One sentence about what is wrong with the source or the settings, what was expected and what to do."""


class LabelError(ConversionError):
    """The values found cannot be understood as labels without being told; the message says what to tell."""


class CaseError(ValueError):
    """One case cannot be converted; `topic` is the same for all cases with this trouble, `detail` is this case's."""

    def __init__(self, topic: str, detail: str = "") -> None:
        super().__init__(f"{topic}: {detail}" if detail else topic)
        self.topic = topic
        self.detail = detail


@contextmanager
def decoding(path: Path, topic: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged file (they are inventive) becomes a CaseError that names the file."""
    try:
        yield
    except CaseError:
        raise
    except MemoryError as error:
        raise CaseError("not enough memory to read a file; -np 1 reads one case at a time", str(path)) from error
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        line = lines[-1 if isinstance(error, RuntimeError) else 0]  # ITK's last line is the one that says something
        raise CaseError(topic, f"{path} ({line[:400]})") from error


@dataclass(frozen=True)
class Finding:
    """Something to tell the user.  Findings of one severity and topic are reported together.

    Attributes:
        severity: an error stops the conversion, a warning may spoil results, a note is good to know.
        topic: what was noticed, without names, for example "mask is all background".
        detail: what differs from case to case, or "".
        case: nnU-Net's name of the case, or the file's name where there is no case; "" for the whole dataset.
    """

    severity: Severity
    topic: str
    detail: str = ""
    case: str = ""


class Findings(list[Finding]):
    """Findings in the order in which they were made: `findings.warning(topic, detail, case)`."""

    def _add(self, severity: Severity, topic: str, detail: str = "", case: str = "") -> None:
        self.append(Finding(severity, topic, detail, case))

    error = partialmethod(_add, "error")
    warning = partialmethod(_add, "warning")
    note = partialmethod(_add, "note")


@dataclass(frozen=True)
class SourceCase:
    """One case as it lies in the source.

    Attributes:
        name: nnU-Net's case identifier.
        images: the image's files: one per channel file, or what the layout makes an image of.
        label: the mask's file (or folder, for a DICOM series); None where there is none (test cases only).
        part: "val" cases are training cases for nnU-Net (imagesTr) and the validation set of fold 0.
        group: cases of one group (one patient) never come apart in a split; None: every case stands for itself.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    part: Part
    group: str | None = None

    @property
    def unit(self) -> str:
        """What a split never divides: the group, or the case itself."""
        return self.name if self.group is None else f"group {self.group}"


@dataclass(frozen=True)
class Content:
    """What the files of a case hold.

    Attributes:
        images: an array for each file to write: (H, W), (H, W, 3) or (D, H, W).
        mask: raw values, integers (H, W) or (D, H, W); None without a mask.
        colour: the values of the mask are colours, 0xRRGGBB.
        palette: value -> 0xRRGGBB, int32, where values that are no colours stand for some; None: they do not.
        volumes: what the images are views of, so that a volume is in memory once; the first has the spacing, origin and
            direction of all.  (): pictures, or these are unknown.
        instances: ids of the objects that the mask was made of, (H, W), to be kept beside it.
    """

    images: Sequence[np.ndarray]
    mask: np.ndarray | None = None
    colour: bool = False
    palette: np.ndarray | None = None
    volumes: Sequence[sitk.Image] = ()
    instances: np.ndarray | None = None

    @property
    def colours(self) -> np.ndarray | None:
        """The mask in colours, 0xRRGGBB; None where there is no colour to speak of (volumes)."""
        if self.mask is None or self.palette is None:
            return self.mask if self.colour else None
        return self.palette[self.mask.clip(max=len(self.palette) - 1)]

    @property
    def by_colour(self) -> bool:
        """Whether the mask is to be understood by colour, unless labels are given by index.

        Black, which is the background everywhere else, is not index 0 in what optimisers and Pillow's GIFs have.
        """
        colours = self.colours
        palette_without = self.palette is not None and self.palette[0] > 0
        return self.colour or (palette_without and colours is not None and not colours.all())


@dataclass(frozen=True)
class LabelEntry:
    """`name` stands for raw value `value`; `colour` says that the value is 0xRRGGBB."""

    name: str
    value: int
    colour: bool = False


@dataclass(frozen=True)
class LabelRule:
    """How raw values are to be understood.

    Attributes:
        entries: what the user listed; empty: work it out from the values.  The entry named "background" becomes 0
            (without one, raw value 0 does), the others 1, 2, ... in their order, "ignore" the highest.
        threshold: raw values above it are foreground and the others background, whatever they are; None: exact.
        foreground: the foreground's name where it is not listed.
        merge_into_background: values not listed become background instead of being an error.
    """

    entries: tuple[LabelEntry, ...] = ()
    threshold: int | None = None
    foreground: str = "foreground"
    merge_into_background: bool = False

    @classmethod
    def of(cls, names: Sequence[str]) -> LabelRule:
        """Masks that have 0 for the background and 1, 2, ... for these names."""
        return cls(tuple(LabelEntry(name, value) for value, name in enumerate(("background", *names))))


def parse_label(text: str) -> LabelEntry:
    """ "tumour=255", "tumour=#ff0000" or "tumour=255,0,0" -> LabelEntry.

    Raises:
        LabelError: the text is none of these.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if name and equals:
        if re.fullmatch(r"\d{1,6}", value):
            return LabelEntry(name, int(value))
        if re.fullmatch(r"#[0-9a-fA-F]{6}", value):
            return LabelEntry(name, int(value[1:], 16), colour=True)
        channels = [int(part) for part in value.split(",")] if re.fullmatch(r"\d+,\d+,\d+", value) else []
        if channels and max(channels) <= 255:
            return LabelEntry(name, channels[0] << 16 | channels[1] << 8 | channels[2], colour=True)
    raise LabelError(f'label "{text}" is not understood; write NAME=VALUE, for example tumour=255 or tumour=#ff0000')


def check_entries(entries: tuple[LabelEntry, ...]) -> None:
    """Raises LabelError for names or values given twice, for grey values beside colours and for a lone background."""
    if not entries:
        return
    if len({entry.colour for entry in entries}) > 1:
        raise LabelError("labels are given partly as grey values and partly as colours; use one of the two")
    shown = [show_value(entry.value, entry.colour) for entry in entries]
    for what, given in ("name", [entry.name for entry in entries]), ("value", shown):
        if len(set(given)) < len(given):
            raise LabelError(f"label {what} {max(given, key=given.count)} is given twice; every label needs its own")
    if {entry.name for entry in entries} <= {"background", "ignore"}:
        raise LabelError("only background is listed; list at least one label to segment")


def show_value(value: int, colour: bool) -> str:
    """A raw value as the user writes it: 255, or #ff0000."""
    return f"#{value:06x}" if colour else str(value)


@dataclass(frozen=True)
class Conversion:
    """What a source holds, before any pixel was read, and how it is to be read and written.

    Attributes:
        layout: the layout's name on the command line.
        source: where it was found.
        cases: every case; from `Layout.conversion` sorted by name, which is the order in which they are worked on.
        read: (case, findings) -> what its files hold; what is odd about them is added to the findings.  Raises
            CaseError where the case cannot be converted.
        labels: how mask values become labels.
        description: for dataset.json; what a reader of the data has to know.
        findings: what was noticed while listing files.
        channels: names for dataset.json, by which nnU-Net chooses the normalisation; (): R, G, B or grey.
        ending: of the files to write, `VOLUME_ENDING` for volumes; "": PNG, or TIFF for what PNG cannot hold.
        copied: files are not written anew but copied, or made hard links, as they are.
        added: further files, by their place in the dataset.
        threads: how many cases may be worked on at once, for their memory.
        folds: number of folds of a written splits_final.json; 0 for none of our own (nnU-Net draws five).
            Where there are "val" cases, fold 0 is train against val, and it is the only one.
        seed: of random splits.
        extra: further entries of dataset.json.
        dataset: DatasetXXX_NAME, or NAME alone, where the source has such a name already; else "".
    """

    layout: str
    source: Path
    cases: Sequence[SourceCase]
    read: Callable[[SourceCase, Findings], Content]
    labels: LabelRule
    description: str
    findings: Sequence[Finding] = ()
    channels: tuple[str, ...] = ()
    ending: str = ""
    copied: Literal["copy", "link"] | None = None
    added: Mapping[str, Path] = field(default_factory=dict)
    threads: int = 8
    folds: int = 0
    seed: int = 12345
    extra: Mapping[str, object] = field(default_factory=dict)
    dataset: str = ""


def write_dataset_json(
    folder: Path,
    channels: Sequence[str],
    labels: Mapping[str, int],
    ending: str,
    name: str,
    description: str,
    **more: object,
) -> None:
    """Write the dataset.json of a folder that has its labelsTr already."""
    content = {
        "channel_names": {str(index): channel for index, channel in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": len(list((folder / "labelsTr").iterdir())),
        "file_ending": ending,
        "name": name,
        "description": description,
        **more,
    }
    write_json(folder / "dataset.json", content)


def option(text: str, default: Any = None, group: str = "", **settings: Any) -> Any:
    """A field of a layout that is an option of the command line too.

    Args:
        text: for --help.
        default: of the field; () for options that can be given several times.
        group: its title in --help.
        settings: of argparse's `add_argument`.
    """
    if default == ():
        settings["action"] = "append"
    return field(default=default, metadata={"group": group, "help": text, **settings})


@dataclass(frozen=True)
class Layout(ABC):
    """One way in which people's data lie in folders.  The fields are its options; this module imports nothing heavy.

    Attributes:
        name: on the command line.
        summary: a line for the list of layouts.
        text: for --help: what the layout looks like.
        files: endings of single files that are a source too.
        numbered: the datasets have a number of their own.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    text: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()
    numbered: ClassVar[bool] = False

    def conversion(self, source: Path) -> Conversion:
        """What lies in a folder, or a file, and what it is to become, before any pixel is read.

        Raises:
            ConversionError: it is not laid out like this, or an option does not fit.
            ImportError: a library is missing; the message has the install line.
        """
        source = source.expanduser().absolute()
        if source.is_file() and not source.name.lower().endswith(self.files):
            packed = source.suffix.lower() in (".zip", ".gz", ".tar", ".tgz", ".7z", ".rar")
            hint = "; unpack it first" if packed else ""
            raise ConversionError(f"{source} is a file, and a folder is expected{hint}")
        if not source.exists():
            raise ConversionError(f"the folder {source} does not exist; give the folder the data were unpacked to")
        found = self._conversion(source)
        return replace(found, cases=sorted(found.cases, key=lambda case: case.name))

    @abstractmethod
    def _conversion(self, source: Path) -> Conversion: ...

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """The layout's options, in their groups."""
        groups: dict[str, Any] = {"": parser}
        for each in fields(cls):
            settings = dict(each.metadata)
            title = settings.pop("group")
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            default = [] if each.default == () else each.default
            groups[title].add_argument(f"--{each.name.replace('_', '-')}", default=default, **settings)

    @classmethod
    def from_options(cls, args: argparse.Namespace) -> Layout:
        """The layout with the options that were given."""
        return cls(**{each.name: getattr(args, each.name) for each in fields(cls)})
