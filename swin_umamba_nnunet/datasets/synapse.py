"""Synapse multi-organ CT as TransUNet's authors hand it out: slices to train on, volumes to test on.

`train_npz/caseXXXX_sliceYYY.npz` (image (H, W) in [0, 1], label) and `test_vol_h5/caseXXXX.npy.h5` (image (D, H, W)).
Neither stores a voxel size nor an orientation, and none is invented: nnU-Net needs a spacing, so 1 mm is written, and
the report and dataset.json say that it is not the truth.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet._volume_files import require_memory
from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._labels import LabelEntry, LabelMap, LabelRule
from swin_umamba_nnunet.datasets._model import Case, CaseError, ConversionError, Finding, Measured, Plan, decoding
from swin_umamba_nnunet.datasets._picture_cases import count_values, digest_of
from swin_umamba_nnunet.datasets._volumes import write_volume

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


def plan_synapse(source: Path) -> Plan:
    """List the cases of a Synapse folder.

    Raises:
        ConversionError: the source is not laid out like that, or a case is in both training and test.
        ImportError: h5py is not installed; the message has the install line.
    """
    source = _files.check_source(source)
    slices, volumes, findings = _list(source)
    if volumes:
        _h5py()
    leaks = sorted(set(slices) & set(volumes))
    if leaks:
        raise ConversionError(f"{', '.join(leaks)} is in train_npz and in test_vol_h5 of {source}; remove it from one")
    findings += _compare_with_published(set(slices), set(volumes))
    cases = [Case(name, tuple(paths), paths[0], "train") for name, paths in slices.items()]
    cases += [Case(name, (path,), path, "test") for name, path in volumes.items()]
    entries = (LabelEntry("background", 0), *(LabelEntry(organ, label) for label, organ in enumerate(ORGANS, 1)))
    return Plan(
        layout="synapse",
        source=source,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        handler=SynapseCases(),
        labels=LabelRule(entries),
        description=_DESCRIPTION,
        findings=(Finding("warning", NO_SPACING), *findings),
        extra={"reference": "TransUNet's preprocessed copy of the Synapse multi-atlas challenge"},
    )


def _h5py():
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"the test volumes are HDF5 files, which h5py reads: install it with   {INSTALL_LINE}"
        ) from error
    return h5py


def _list(source: Path) -> tuple[dict[str, list[Path]], dict[str, Path], list[Finding]]:
    """Case -> its slices in order, case -> its volume, and what was noticed."""
    train = _files.subfolder(source, ("train_npz", "train"))
    test = _files.subfolder(source, ("test_vol_h5", "test_vol", "test"))
    if train is None:
        raise ConversionError(f"{source} has no folder train_npz with files such as case0005_slice000.npz; "
                              "give the folder that TransUNet's data were unpacked to")  # fmt: skip
    findings: list[Finding] = []
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in _files.list_files(train, (".npz",)):
        match = _SLICE.fullmatch(path.name)
        if match is None:
            findings.append(Finding("warning", "file is not named like a slice and was left out", str(path)))
            continue
        name, number = match[1].lower(), int(match[3])
        if number in numbered[name]:
            findings.append(
                Finding("error", "the same slice twice", f"{path.name} and {numbered[name][number].name}", name)
            )
        numbered[name][number] = path
    if not numbered:
        raise ConversionError(f"{train} has no files such as case0005_slice000.npz")
    findings += _missing_slices(numbered, source)
    volumes: dict[str, Path] = {}
    for path in _files.list_files(test, (".h5",)) if test else []:
        match = _VOLUME.fullmatch(path.name)
        if match is None:
            findings.append(Finding("warning", "file is not named like a test volume and was left out", str(path)))
        else:
            volumes[match[1].lower()] = path
    if not volumes:
        findings.append(Finding("warning", "no test volumes (test_vol_h5/case0001.npy.h5 and so on) were found"))
    return (
        {name: [of_case[n] for n in sorted(of_case)] for name, of_case in sorted(numbered.items())},
        volumes,
        findings,
    )


def _missing_slices(numbered: dict[str, dict[int, Path]], source: Path) -> list[Finding]:
    """Gaps in the numbers, and slices that the source's own train.txt lists."""
    listed: dict[str, set[int]] = defaultdict(set)
    for path in sorted(source.glob("lists/**/train.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").split():
            match = _SLICE.fullmatch(line.strip().removesuffix(".npz") + ".npz")
            if match:
                listed[match[1].lower()].add(int(match[3]))
    findings = []
    for name in sorted(set(numbered) | set(listed)):
        present = set(numbered.get(name, ()))
        missing = sorted((set(range(max(present, default=-1) + 1)) | listed[name]) - present)
        if missing:
            shown = ", ".join(f"{name}_slice{number:03d}.npz" for number in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            findings.append(Finding("error", "slices of the series are missing", shown + more, name))
    return findings


def _compare_with_published(train: set[str], test: set[str]) -> list[Finding]:
    findings = []
    found_train, found_test = ({int(name[4:]) for name in names} for names in (train, test))
    for where, found, published in (("training", found_train, PUBLISHED_TRAIN), ("test", found_test, PUBLISHED_TEST)):
        if found and found != published:
            missing, added = sorted(published - found), sorted(found - published)
            text = "; ".join(
                f"{word} " + ", ".join(f"case{number:04d}" for number in numbers)
                for word, numbers in (("without", missing), ("with", added))
                if numbers
            )
            findings.append(Finding("warning", f"not the {where} cases of the published 18/12 split", text))
    if (found_train, found_test) == (PUBLISHED_TRAIN, PUBLISHED_TEST):
        findings.append(Finding("note", "the published split: 18 training and 12 test cases"))
    return findings


@dataclass(frozen=True)
class SynapseCases:
    """Reads slices and HDF5 volumes as (D, H, W) arrays, writes NIfTI."""

    threads: int = 2

    def _read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        if case.images[0].suffix.lower() == ".h5":
            image, label = _read_h5(case.images[0])
        else:
            pairs = [_read_npz(path) for path in case.images]
            shapes = {array.shape for pair in pairs for array in pair}
            if len(shapes) > 1 or len(next(iter(shapes))) != 2:
                shown = ", ".join(str(shape) for shape in sorted(shapes)[:4])
                raise CaseError("slices of one case differ in shape, or are not two-dimensional", shown)
            image, label = (np.stack([pair[index] for pair in pairs]) for index in (0, 1))
        if image.ndim != 3 or image.shape != label.shape:
            raise CaseError("image and label are not volumes of the same size", f"{image.shape} and {label.shape}")
        image = image.astype(np.float32, copy=False)
        if not np.isfinite(image).all():
            raise CaseError("image has values that are not finite (NaN or infinite)")
        if label.dtype.kind == "f" and (not np.isfinite(label).all() or (label != np.rint(label)).any()):
            raise CaseError("label values are no whole numbers")
        if label.min() < 0 or label.max() > 1 << 20:
            raise CaseError("label values are negative or too large", f"{label.min()} to {label.max()}")
        return image, label.astype(np.int32)

    def measure(self, case: Case) -> Measured:
        """See `Handler`."""
        image, label = self._read(case)
        findings = []
        low, high = float(image.min()), float(image.max())
        if low < -0.01 or high > 1.01:
            text = f"{low:.4g} to {high:.4g}"
            findings.append(Finding("warning", "image is not scaled to [0, 1] as TransUNet's are", text, case.name))
        return Measured(
            shape=image.shape,
            channels=1,
            dtype=str(image.dtype),
            digest=digest_of(image),
            values=count_values(label),
            findings=tuple(findings),
        )

    def write(self, case: Case, images: Path, labels: Path, encode: LabelMap, file_ending: str) -> None:
        """See `Handler`."""
        image, label = self._read(case)
        for array, path in (
            (image, images / f"{case.name}_0000{file_ending}"),
            (encode.encode(label), labels / f"{case.name}{file_ending}"),
        ):
            write_volume(sitk.GetImageFromArray(array), path)

    def file_ending(self, measured: Iterable[Measured]) -> str:
        """Compressed NIfTI."""
        return ".nii.gz"

    def channel_names(self, channels: int) -> tuple[str, ...]:
        """nnU-Net normalises "CT" by the whole dataset's statistics, which keeps what the clipping made comparable."""
        return ("CT",)

    def finish(self, folder: Path) -> None:
        """Nothing more to write."""


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
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


def _numbers(array):
    """The array (or HDF5 dataset) if it has integers or floats."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"its numbers are of the type {array.dtype}; integers or floats are expected")
    return array


def _read_h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with (
        decoding(path, "file cannot be read as a volume (HDF5 with image and label)"),
        _h5py().File(path, "r") as file,
    ):
        datasets = [_own_dataset(file, name) for name in ("image", "label")]
        require_memory(sum(dataset.size * dataset.dtype.itemsize for dataset in datasets))
        return datasets[0][:], datasets[1][:]


def _own_dataset(file, name: str):
    """A dataset of numbers that lie in the file itself: HDF5 can send a reader to any other file of the machine."""
    h5py = _h5py()
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f'its "{name}" is a link; only what lies in the file itself is read')
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'its "{name}" is no dataset')
    if dataset.external or dataset.is_virtual:
        raise ValueError(f'the numbers of its "{name}" are in another file; only what lies in the file itself is read')
    return _numbers(dataset)
