"""ISIC 2017 and 2018 skin lesions: in VM-UNet's split, or as the ISIC archive hands them out.

VM-UNet's tree is `train|val/images|masks/`, 1500/650 (2017) and 1886/808 (2018) images.  The archive's is one folder
of `ISIC_0000000.jpg` and one of `ISIC_0000000_segmentation.png` for each of training, validation and test.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from swin_umamba_nnunet.datasets import _files
from swin_umamba_nnunet.datasets._files import PICTURE_ENDINGS, PartFolders
from swin_umamba_nnunet.datasets._model import (
    Conversion,
    ConversionError,
    Findings,
    LabelRule,
    Layout,
    Part,
    SourceCase,
)
from swin_umamba_nnunet.datasets.folders import validation_option

THRESHOLD = 127  # masks are 0/255, some published copies of them JPEGs
PUBLISHED = {(1500, 650): "ISIC17", (1886, 808): "ISIC18"}  # (train, val) of VM-UNet

_ARCHIVE_IMAGES = re.compile(r"_(data|input)$", re.IGNORECASE)
# the ground truth of other tasks lies beside that of the first
_ARCHIVE_MASKS = re.compile(r"^(?!.*(part[23]|task[23]_)).*groundtruth$", re.IGNORECASE)
_SUPERPIXELS = re.compile(r"_superpixels$", re.IGNORECASE)  # ISIC 2017 ships them among the images


@dataclass(frozen=True)
class Isic(Layout):
    """ISIC 2017 and 2018 skin lesions.

    With `val_as="fold0"` one trains and validates on the source's own split as fold 0; "test" makes imagesTs and
    labelsTs of the validation images (VM-UNet's tables are validation figures, called test there).
    """

    name = "isic"
    summary = "ISIC 2017 and 2018 skin lesions"
    text = """\
ISIC 2017 or 2018 skin lesions.  SOURCE is VM-UNet's tree

    train/images/*.png   train/masks/*.png   val/images/*.png   val/masks/*.png

(.jpg works too, and so do the archive's file names, ISIC_0000000_segmentation.png), or the folder in which the
archive's own downloads were unpacked side by side (ISIC-2017_Training_Data, ISIC-2017_Training_Part1_GroundTruth, ...;
ISIC2018_Task1-2_Training_Input, ISIC2018_Task1_Training_GroundTruth, ...).  Masks are cut at 127 of 255.
"""

    val_as: Literal["fold0", "test"] = validation_option()

    def _conversion(self, source: Path) -> Conversion:
        from swin_umamba_nnunet.datasets._pictures import read_pictures

        parts = _archive_parts(source) or _files.find_parts(source)
        if not parts:
            raise ConversionError(
                f"{source} does not look like ISIC: the folders train/images, train/masks, val/images and val/masks "
                "(VM-UNet's tree), or the archive's own such as ISIC-2017_Training_Data and "
                "ISIC-2017_Training_Part1_GroundTruth are expected in it"
            )
        findings = Findings()
        cases: list[SourceCase] = []
        for part, folders in parts.items():
            pictures = _files.everything(source, folders.images, PICTURE_ENDINGS)
            pictures = pictures._replace(files=[path for path in pictures.files if not _SUPERPIXELS.search(path.stem)])
            images = _files.keys_of(pictures, None, "image", findings)
            masks = _files.everything(source, folders.masks, PICTURE_ENDINGS) if folders.masks else None
            labels = _files.find_masks(images, masks, None, findings)
            cases += [SourceCase(_files.case_name(key), (path,), labels.get(key), part) for key, path in images.items()]
        if not cases:
            raise ConversionError(
                f"{source} has the folders of ISIC, but no images in them ({', '.join(PICTURE_ENDINGS)})"
            )
        train, val = (sum(case.part == part for case in cases) for part in ("train", "val"))
        text = f"{train} training and {val} validation images"
        if (train, val) in PUBLISHED:
            findings.note(f"{text}: VM-UNet's {PUBLISHED[train, val]} split")
        elif not val:
            findings.note("no validation folder: nnU-Net will draw five folds of its own")
        else:
            known = ", ".join(f"{train}/{val} ({name})" for (train, val), name in PUBLISHED.items())
            findings.warning(f"{text} are not VM-UNet's split, {known}: scores are not comparable with its figures")
        counts = Counter(case.name.casefold() for case in cases)
        for case in cases:
            if counts[case.name.casefold()] > 1:
                topic = "the same case name twice (in train and val?); rename one"
                findings.error(topic, str(case.images[0]), case.name)
        if self.val_as == "test":
            cases = [replace(case, part="train" if case.part == "train" else "test") for case in cases]
        return Conversion(
            self.name,
            source,
            cases,
            read=partial(read_pictures, channels="rgb"),  # the masks fit the images as stored
            labels=LabelRule(threshold=THRESHOLD, foreground="lesion"),
            description="ISIC skin lesion boundaries; dermoscopic images at their own size, masks cut at 127 of 255.",
            findings=findings,
        )


def _archive_parts(source: Path) -> dict[Part, PartFolders]:
    """The archive's folders by the words in their names."""
    parts: dict[Part, PartFolders] = {}
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    for part, words in _files.PART_FOLDERS.items():
        of_part = [folder for folder in folders if words[0] in folder.name.lower()]
        images, masks = (
            [folder for folder in of_part if kind.search(folder.name)] for kind in (_ARCHIVE_IMAGES, _ARCHIVE_MASKS)
        )
        for several in images, masks:
            if len(several) > 1:
                names = ", ".join(folder.name for folder in several)
                raise ConversionError(f"{source} has several folders for {part}: {names}; give one year's at a time")
        if masks and not images:
            raise ConversionError(
                f"{masks[0]} has no folder of its images beside it (named ..._Data or ..._Input); unpack them there too"
            )
        if images:
            inner = [_files.inner(folder, folder.name) for folder in (*images, *masks)]
            parts[part] = PartFolders(inner[0], inner[1] if masks else None)
    return parts
