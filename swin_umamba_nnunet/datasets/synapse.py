"""Synapse multi-organ CT as TransUNet's authors hand it out: slices to train on, volumes to test on.

`train_npz/caseXXXX_sliceYYY.npz` (image (H, W) in [0, 1], label) and `test_vol_h5/caseXXXX.npy.h5` (image (D, H, W)).
Neither stores a voxel size nor an orientation, and none is invented: nnU-Net needs a spacing, so 1 mm is written, and
the report and dataset.json say that it is not the truth.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet._text import listed
from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._model import (
    VOLUME_ENDING,
    CaseError,
    Content,
    Conversion,
    ConversionError,
    Findings,
    LabelRule,
    Layout,
    SourceCase,
    decoding,
)

if TYPE_CHECKING:
    import numpy as np

INSTALL_LINE = install_line("synapse")
ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
PUBLISHED_TRAIN = frozenset((5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40))
PUBLISHED_TEST = frozenset((1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38))
NO_SPACING = (
    "The voxel size and orientation were not stored in the source and are unknown: 1 x 1 x 1 mm is written because "
    "nnU-Net needs a number. Distances computed from these files are in voxels, not in mm."
)
_DESCRIPTION = (
    "Synapse multi-organ CT (BTCV), preprocessed by TransUNet's authors: Hounsfield units clipped to [-125, 275] and "
    "scaled to [0, 1]. " + NO_SPACING
)
_SLICE = re.compile(r"(case(\d+))_slice_?(\d+)\.npz$", re.IGNORECASE)
_VOLUME = re.compile(r"(case(\d+))(\.npy)?\.h5$", re.IGNORECASE)


@dataclass(frozen=True)
class Synapse(Layout):
    """Synapse multi-organ CT in TransUNet's layout."""

    name = "synapse"
    summary = "Synapse multi-organ CT in TransUNet's layout (npz and h5)"
    text = f"""\
Synapse multi-organ CT as TransUNet's authors hand it out:

    train_npz/case0005_slice000.npz ...   test_vol_h5/case0001.npy.h5 ...

Slices become volumes; the test volumes become imagesTs and labelsTs.  The source stores no voxel size, and none is
invented: 1 x 1 x 1 mm is written because nnU-Net needs a number, and dataset.json says so.
Needs h5py:   {INSTALL_LINE}
"""

    def _conversion(self, source: Path) -> Conversion:
        findings = Findings()
        findings.warning(NO_SPACING)
        slices, volumes = _list(source, findings)
        if volumes:
            _h5py()
        if leaks := ", ".join(sorted(slices.keys() & volumes.keys())):
            raise ConversionError(f"{leaks} is in train_npz and in test_vol_h5 of {source}; remove it from one")
        _compare_with_published(slices, volumes, findings)
        cases = [SourceCase(name, tuple(paths), paths[0], "train") for name, paths in slices.items()]
        cases += [SourceCase(name, (path,), path, "test") for name, path in volumes.items()]
        return Conversion(
            self.name,
            source,
            cases,
            read=_read,
            labels=LabelRule.of(ORGANS),
            description=_DESCRIPTION,
            findings=findings,
            channels=("CT",),  # which nnU-Net normalises by the whole dataset: what was clipped stays comparable
            ending=VOLUME_ENDING,
            threads=2,
            extra={"reference": "TransUNet's preprocessed copy of the Synapse multi-atlas challenge"},
        )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"the test volumes are HDF5 files, which h5py reads: install it with   {INSTALL_LINE}"
        ) from error
    return h5py


def _list(source: Path, findings: Findings) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Case -> its slices in order, case -> its volume."""
    train = _files.subfolder(source, ("train_npz", "train"))
    test = _files.subfolder(source, ("test_vol_h5", "test_vol", "test"))
    if train is None:
        raise ConversionError(
            f"{source} has no folder train_npz with files such as case0005_slice000.npz; give the folder that "
            "TransUNet's data were unpacked to"
        )
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for match, path in _named(train, ".npz", _SLICE, "a slice", findings):
        name, number = match[1].lower(), int(match[3])
        if number in numbered[name]:
            findings.error("the same slice twice", f"{path.name} and {numbered[name][number].name}", name)
        numbered[name][number] = path
    if not numbered:
        raise ConversionError(f"{train} has no files such as case0005_slice000.npz")
    _judge_gaps(numbered, source, findings)
    volumes: dict[str, Path] = {}
    for match, path in _named(test, ".h5", _VOLUME, "a test volume", findings) if test else ():
        name = match[1].lower()
        if name in volumes:
            findings.error("the same test volume twice", f"{path.name} and {volumes[name].name}", name)
        volumes[name] = path
    if not volumes:
        findings.warning("no test volumes (test_vol_h5/case0001.npy.h5 and so on) were found")
    return {name: [of_case[n] for n in sorted(of_case)] for name, of_case in sorted(numbered.items())}, volumes


def _named(
    folder: Path, ending: str, pattern: re.Pattern[str], what: str, findings: Findings
) -> Iterator[tuple[re.Match[str], Path]]:
    for path in _files.list_files(folder, (ending,)):
        if match := pattern.fullmatch(path.name):
            yield match, path
        else:
            findings.warning(f"file is not named like {what} and was left out", str(path))


def _judge_gaps(numbered: dict[str, dict[int, Path]], source: Path, findings: Findings) -> None:
    """Find gaps in the numbers, and slices that the source's own train.txt lists."""
    listed_slices = defaultdict(set)
    for path in sorted(source.glob("lists/**/train.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").split():
            match = _SLICE.fullmatch(line.removesuffix(".npz") + ".npz")
            if match:
                listed_slices[match[1].lower()].add(int(match[3]))
    for name in sorted({*numbered, *listed_slices}):
        present = set(numbered.get(name, ()))
        expected = {*range(max(present, default=-1) + 1), *listed_slices[name]}
        if missing := sorted(expected - present):
            shown = listed(f"{name}_slice{number:03d}.npz" for number in missing)
            findings.error("slices of the series are missing", shown, name)


def _compare_with_published(slices: Iterable[str], volumes: Iterable[str], findings: Findings) -> None:
    train, test = ({int(name[4:]) for name in names} for names in (slices, volumes))
    for where, found, published in (("training", train, PUBLISHED_TRAIN), ("test", test, PUBLISHED_TEST)):
        if found and found != published:
            text = "; ".join(
                f"{word} " + ", ".join(f"case{number:04d}" for number in sorted(numbers))
                for word, numbers in (("without", published - found), ("with", found - published))
                if numbers
            )
            findings.warning(f"not the {where} cases of the published 18/12 split", text)
    if (train, test) == (PUBLISHED_TRAIN, PUBLISHED_TEST):
        findings.note("the published split: 18 training and 12 test cases")


def _read(case: SourceCase, findings: Findings) -> Content:
    """Slices or an HDF5 volume as (D, H, W) arrays."""
    import numpy as np

    from swin_umamba_nnunet.datasets._labels import raw_values

    if case.images[0].suffix.lower() == ".h5":
        image, label = _read_h5(case.images[0])
    else:
        pairs = [_read_npz(path) for path in case.images]
        shapes = {array.shape for pair in pairs for array in pair}
        if len(shapes) > 1 or len(next(iter(shapes))) != 2:
            shown = listed(sorted(shapes), 4)
            raise CaseError("slices of one case differ in shape, or are not two-dimensional", shown)
        image, label = (np.stack(arrays) for arrays in zip(*pairs))
    if image.ndim != 3 or image.shape != label.shape:
        raise CaseError("image and label are not volumes of the same size", f"{image.shape} and {label.shape}")
    image = image.astype(np.float32, copy=False)
    low, high = float(image.min()), float(image.max())
    if low < -0.01 or high > 1.01:
        findings.warning("image is not scaled to [0, 1] as TransUNet's are", f"{low:.4g} to {high:.4g}")
    return Content([image], raw_values(label, case.images[0]))


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    from swin_umamba_nnunet._volume_files import require_memory

    # the file is opened here, because NumPy leaves damaged files open
    with (
        decoding(path, "file cannot be read as a slice (npz with image and label)"),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
            raise ValueError("it is no npz file")
        require_memory(sum(entry.file_size for entry in file.zip.infolist()))
        return _numbers(file["image"]), _numbers(file["label"])


def _numbers(array: Any) -> Any:
    """The array (or HDF5 dataset) if it has integers or floats."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"its numbers are of the type {array.dtype}; integers or floats are expected")
    return array


def _read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from swin_umamba_nnunet._volume_files import require_memory

    with (
        decoding(path, "file cannot be read as a volume (HDF5 with image and label)"),
        _h5py().File(path, "r") as file,
    ):
        datasets = [_own_dataset(file, name) for name in ("image", "label")]
        require_memory(sum(dataset.size * dataset.dtype.itemsize for dataset in datasets))
        return datasets[0][:], datasets[1][:]


def _own_dataset(file: Any, name: str) -> Any:
    """A dataset of numbers that lie in the file itself: HDF5 can send a reader to any other file of the machine."""
    h5py = _h5py()
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f'its "{name}" is a link; only what lies in the file itself is read')
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'its "{name}" is no dataset')
    if dataset.external or dataset.is_virtual:
        raise ValueError(f'the numbers of its "{name}" are in another file; only what lies in the file itself is read')
    return _numbers(dataset)
