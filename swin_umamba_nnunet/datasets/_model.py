"""What a conversion is made of: cases found in the source, what was measured on them, and what was noticed."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from swin_umamba_nnunet.datasets._labels import LabelMap, LabelRule

Severity = Literal["error", "warning", "note"]
Part = Literal["train", "val", "test"]


class ConversionError(ValueError):
    """One sentence about what is wrong with the source or the settings, what was expected and what to do."""


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
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CaseError(topic, f"{path} ({lines[0][:400] if lines else type(error).__name__})") from error


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


@dataclass(frozen=True)
class Case:
    """One case as it lies in the source.

    Attributes:
        name: nnU-Net's case identifier.
        images: the image's files: one per channel file, or what the layout's handler makes an image of.
        label: the mask's file (or folder, for a DICOM series); None where there is none (test cases only).
        part: "val" cases are training cases for nnU-Net (imagesTr) and the validation set of fold 0.
        group: cases of one group (one patient) never come apart in a split; None: every case stands for itself.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    part: Part
    group: str | None = None


@dataclass(frozen=True)
class Measured:
    """What reading a case brought to light.

    Attributes:
        shape: (H, W) or (D, H, W).
        channels: number of channels nnU-Net will see.
        dtype: NumPy's name of the image's numbers.
        spacing: mm between voxels along (D, H, W); None for pictures and where it is unknown.
        digest: hash of the image's numbers and shape, to find duplicates.
        values: how many pixels each raw mask value has (see `_labels`); None without a mask.
        colours: the same counts by colour, 0xRRGGBB; None where there is no colour to speak of (volumes).
        colour: the mask has real colours, which its `values` then are.
        findings: what the handler noticed on the way.
    """

    shape: tuple[int, ...]
    channels: int
    dtype: str
    digest: str
    values: Mapping[int, int] | None = None
    colours: Mapping[int, int] | None = None
    colour: bool = False
    spacing: tuple[float, ...] | None = None
    findings: tuple[Finding, ...] = ()


class Handler(Protocol):
    """How one layout's cases are read and written."""

    @property
    def threads(self) -> int:
        """How many cases may be worked on at once, for their memory."""

    def measure(self, case: Case) -> Measured:
        """Read the case.  Raises CaseError where it cannot be converted."""

    def write(self, case: Case, images: Path, labels: Path, encode: LabelMap, file_ending: str) -> None:
        """Write the case's image files into `images` and its mask, if it has one, into `labels`."""

    def file_ending(self, measured: Iterable[Measured]) -> str:
        """nnU-Net's file ending for a dataset of such cases."""

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """Names for dataset.json; nnU-Net chooses the normalisation by them."""

    def finish(self, folder: Path) -> None:
        """Write what goes into the dataset beside cases and dataset.json."""


@dataclass(frozen=True)
class Plan:
    """What a source holds, before any pixel was read.

    Attributes:
        layout: the layout's name on the command line.
        source: where it was found.
        cases: every case, sorted by name.
        handler: reads and writes them.
        labels: how mask values become labels.
        description: for dataset.json; what a reader of the data has to know.
        findings: what was noticed while listing files.
        folds: number of folds of a written splits_final.json; 0 for none of our own (nnU-Net draws five).
            Where there are "val" cases, fold 0 is train against val, and it is the only one.
        seed: of random splits.
        extra: further entries of dataset.json.
    """

    layout: str
    source: Path
    cases: tuple[Case, ...]
    handler: Handler
    labels: LabelRule
    description: str = ""
    findings: tuple[Finding, ...] = ()
    folds: int = 0
    seed: int = 12345
    extra: Mapping[str, object] = field(default_factory=dict)
