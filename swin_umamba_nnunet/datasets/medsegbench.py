"""MedSegBench: 35 public 2D datasets with fixed training, validation and test sets, each a file of arrays.

`NAME_SIZE.npz` has `{train,val,test}_images` uint8 (N, H, W[, 3]) and `{train,val,test}_label` (N, H, W).  Some have
categories besides, `train_images_C1` with `train_label_C1` and so on; idrib has its images once and one kind of lesion
per category.  What is known of each dataset is in medsegbench.csv, after the package medsegbench 1.0.0.

Source: Kuş and Aydin, MedSegBench, Scientific Data 11 (2024), https://doi.org/10.1038/s41597-024-04159-2
"""

from __future__ import annotations

import argparse
import csv
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZipFile

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet._text import did_you_mean, listed, table
from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._model import (
    CaseError,
    Content,
    Conversion,
    ConversionError,
    Findings,
    LabelRule,
    Layout,
    Part,
    SourceCase,
    decoding,
    option,
)

if TYPE_CHECKING:
    import numpy as np

INSTALL_LINE = install_line("medsegbench")
FOREGROUND = "foreground"  # of two classes, where everything above 0 is one
_PARTS: tuple[Part, ...] = ("train", "val", "test")
_KEPT = 64  # rows read on the way to a later one; threads ask in about the order of the cases


def published() -> dict[str, dict[str, str]]:
    """Name -> row of medsegbench.csv: numbers of images, labels and categories (C1=lung,...), licence and source."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file, delimiter=";")}


def _categories(row: dict[str, str]) -> dict[str, str]:
    """C1 -> what it is."""
    return dict(each.split("=") for each in filter(None, row.get("categories", "").split(",")))


@dataclass(frozen=True)
class MedSegBench(Layout):
    """One of MedSegBench's files, or its name."""

    name = "medsegbench"
    summary = "MedSegBench's 35 public 2D datasets (npz), by file or by name"
    text = f"""\
MedSegBench's 35 public 2D datasets with their fixed splits: test images become imagesTs and labelsTs, validation images
the validation set of fold 0.  SOURCE is a file, a folder with one, or a dataset's name, which downloads it:

    swin-umamba convert medsegbench kvasir_256.npz -d 50
    swin-umamba convert medsegbench kvasir --size 512 -d 51
    swin-umamba convert medsegbench --list                       names, numbers of images, licences

Names need the package medsegbench:   {INSTALL_LINE}
"""
    files = (".npz",)

    size: int = option(
        "with a name: pixels a side of the images to download (default: %(default)s)",
        256,
        type=int,
        choices=(128, 256, 512),
    )
    category: str | None = option("only the images of a category; --list and errors name them", metavar="C1|C2|...")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--list", action="version", version=_listing(), help="show the datasets, and end")

    def conversion(self, source: Path) -> Conversion:
        if not source.expanduser().exists():
            known = published()
            if str(source) not in known:
                hint = did_you_mean(str(source), known, before="; ")
                raise ConversionError(
                    f"{source} does not exist and is no name of MedSegBench's{hint}; "
                    "swin-umamba convert medsegbench --list shows them"
                )
            source = self._downloaded(str(source))
        return super().conversion(source)

    def _downloaded(self, name: str) -> Path:
        try:
            from medsegbench.info import DEFAULT_ROOT, INFO
            from torchvision.datasets.utils import download_url
        except ImportError as error:
            raise ImportError(
                f"{name} is no file here, and to download it takes the package medsegbench: install it with   "
                f"{INSTALL_LINE}"
            ) from error
        url, file = INFO[name][f"url_{self.size}"], f"{name}_{self.size}.npz"
        try:
            # some of the sums end in a space
            download_url(url, DEFAULT_ROOT, file, INFO[name][f"MD5_{self.size}"].strip())
        except (OSError, RuntimeError) as error:
            raise ConversionError(
                f"{url} could not be downloaded to {DEFAULT_ROOT} ({error}); run it again, or download it by other "
                "means and give the file"
            ) from error
        return Path(DEFAULT_ROOT, file)

    def _conversion(self, source: Path) -> Conversion:
        if source.is_dir():
            files = _files.list_files(source, self.files, "*")
            if len(files) != 1:
                held = listed(path.name for path in files) or "none"
                raise ConversionError(f"{source} should hold one file of MedSegBench and holds {held}; give the file")
            (source,) = files
        findings = Findings()
        known = published().get(source.stem.rpartition("_")[0], {})
        categories = _categories(known)
        rows = self._arrays(source, categories)
        cases = [
            SourceCase(f"{part}_{i:05d}", (source / images.key / str(i),), source / masks.key / str(i), part)
            for part, (images, masks) in zip(_PARTS, rows)
            for i in range(len(masks))
        ]
        if known:
            findings.note(f"licence: {known['licence']}; source: {known['source']}")
            counts, expected = [str(len(masks)) for _, masks in rows], [known[part] for part in _PARTS]
            if not self.category and counts != expected:
                text = f"{' + '.join(counts)}, published {' + '.join(expected)}"
                findings.warning("not as many images as were published (train + val + test)", text)
        else:
            findings.warning("the file's name is none of MedSegBench's: licence and source are not known", source.name)
        names = known.get("labels", "").split(",")
        category = f", {categories.get(self.category, self.category)}" if self.category else ""
        two = names == [FOREGROUND]
        arrays = {each.key: each for pair in rows for each in pair}

        def read(case: SourceCase, findings: Findings) -> Content:
            from swin_umamba_nnunet.datasets._labels import raw_values

            image, mask = (arrays[path.parent.name][int(path.name)] for path in (*case.images, case.label) if path)
            if two and mask.max() > 1:
                findings.note("mask is not 0 and 1: every value above 0 became foreground", f"up to {mask.max()}")
            return Content([image], raw_values(mask, case.label))

        return Conversion(
            self.name,
            source,
            cases,
            read,
            labels=LabelRule(threshold=0) if two else LabelRule.of(names) if known else LabelRule(),
            description=f"{source.stem} of MedSegBench{category}; its fixed splits, validation is fold 0's.",
            findings=findings,
            extra={"reference": known["source"], "licence": known["licence"]} if known else {},
            dataset="_".join(filter(None, (source.stem, self.category))),
        )

    def _arrays(self, source: Path, categories: dict[str, str]) -> list[tuple[_Rows, _Rows]]:
        """Images and masks of each part.  Raises ConversionError where they are not there."""
        with _intact(source), ZipFile(source) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
        end, rows = f"_{self.category}" if self.category else "", []
        for part in _PARTS:
            images, masks = f"{part}_images{end}", f"{part}_label{end}"
            if images not in keys:
                images = f"{part}_images"  # idrib's, for all its categories
            if missing := [key for key in (images, masks) if key not in keys]:
                codes = sorted({key.rpartition("_label_")[2] for key in keys if "_label_" in key})
                shown = ", ".join(f"{code} ({categories[code]})" if code in categories else code for code in codes)
                raise ConversionError(
                    f"{source} has no array {missing[0]}; a file of MedSegBench has train_images, train_label, and the "
                    f"same for val and test{shown and f'; --category takes {shown}'}"
                )
            with _intact(source):
                pair = _Rows(source, images), _Rows(source, masks)
            shape = pair[0].shape
            if shape[:3] != pair[1].shape or shape[3:] not in ((), (3,)):
                raise ConversionError(
                    f"{source}: {images} has the shape {shape} and {masks} {pair[1].shape}; expected are (N, H, W) or "
                    "(N, H, W, 3) and (N, H, W), the same number and size"
                )
            rows.append(pair)
        return rows


class _Rows:
    """An array of an npz file, read one element of its first axis at a time: some files are of many gigabytes.

    Elements may be asked for by several threads, in about their order; going back begins at the front again.

    Raises:
        ValueError: there are other numbers in it than are expected, or fewer.
    """

    def __init__(self, source: Path, key: str) -> None:
        self.source, self.key = source, key
        self._lock = threading.Lock()
        self._stream: IO[bytes] = io.BytesIO()
        self._passed: dict[int, np.ndarray] = {}
        try:
            self._begin()
        finally:
            self._stream.close()
        self._next = len(self)  # whatever is asked for, begin

    def _begin(self) -> None:
        import numpy as np

        with ZipFile(self.source) as archive:  # what it has opened stays open
            self._stream = archive.open(f"{self.key}.npy")
            size = archive.getinfo(f"{self.key}.npy").file_size
        formats: Any = np.lib.format
        version = formats.read_magic(self._stream)
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        shape, by_column, self.dtype = read(self._stream)
        if self.dtype.kind not in "buif" or by_column or len(shape) < 3 or not prod(shape):
            raise ValueError(f"{self.key} is {self.dtype} {shape}; numbers, (N, H, W) or (N, H, W, 3), are expected")
        if size - self._stream.tell() != prod(shape) * self.dtype.itemsize:
            raise ValueError(f"{self.key} has {size} bytes, and {shape} of {self.dtype} are announced")
        self.shape: tuple[int, ...] = shape[:3] if shape[3:] == (1,) else shape
        self._next = 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        import numpy as np

        with self._lock, _intact(self.source):
            try:
                if index < self._next and index not in self._passed:
                    self._begin()
                while self._next <= index:
                    # the last one's end is where zipfile compares the checksum
                    content = self._stream.read(prod(self.shape[1:]) * self.dtype.itemsize)
                    self._passed[self._next] = np.frombuffer(content, self.dtype).reshape(self.shape[1:])
                    self._next += 1
            finally:
                if self._next <= index or self._next == len(self):
                    self._stream.close()
            for old in [*self._passed][:-_KEPT]:
                del self._passed[old]
            return self._passed.pop(index)


@contextmanager
def _intact(source: Path) -> Iterator[None]:
    """Whatever is wrong with the file as such is wrong for all of its cases."""
    try:
        with decoding(source, "the file is damaged, cut off or not MedSegBench's; download it again"):
            yield
    except CaseError as error:
        raise ConversionError(str(error)) from error


def _listing() -> str:
    """The datasets as a table."""
    numbers = ("name", *_PARTS, "channels")
    rows = [(*numbers, "classes", "categories", "licence")]
    for row in published().values():
        classes = str(len(row["labels"].split(",")) + 1)
        rows.append((*map(row.__getitem__, numbers), classes, ", ".join(_categories(row)), row["licence"]))
    return "\n".join(
        [*table(rows, "<>>>>><<"), "", "Images of 128, 256 or 512 pixels a side; classes count background."]
    )
