"""The demo's dataset: slabs of the MNI152 brain that ships inside the nilearn package.  Nothing is downloaded.

The image is the ICBM 152 (2009a, symmetric) T1 template at 1 mm, an average of 152 registered brains; the labels are
the most likely of {rest, grey matter, white matter} at each voxel, from the tissue probability maps that come with
it.  Axial slabs become cases, with a gap between any two of them, so that no held-out voxel touches a training voxel.

It is ONE averaged brain: neighbouring slabs show neighbouring parts of the same head.  A good score here says that
the installation works, and nothing about how a network would do on patients.

Template: Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 54 (2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swin_umamba_nnunet._atomic import new_folder
from swin_umamba_nnunet._distribution import install_line
from swin_umamba_nnunet.datasets._model import write_dataset_json

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

BRAIN_DATASET_ID = 152
BRAIN_DATASET_NAME = "Dataset152_MNI152Brain"
LABELS = {"background": 0, "grey matter": 1, "white matter": 2}
FILE_ENDING = ".nii.gz"

INSTALL_LINE = install_line("demo")


@dataclass(frozen=True)
class Slab:
    """Axial slices [start, stop) of the template, and whether they are held out for the test."""

    start: int
    stop: int
    held_out: bool

    @property
    def case(self) -> str:
        """nnU-Net's case identifier, for example "brain_z050"."""
        return f"brain_z{self.start:03d}"


# From the cerebellum (slice 30) to just below the vertex (slice 145): 6 mm of brain, 4 mm left out, and so on.
SLABS = tuple(Slab(start, start + 6, start in (50, 90, 130)) for start in range(30, 150, 10))


def write_brain_dataset(raw_folder: Path) -> Path:
    """Write the brain slabs as an nnU-Net raw dataset, labelled test cases (labelsTs) included.

    The dataset appears under its name only when it is complete: it is written beside it and renamed.

    Args:
        raw_folder: what nnU-Net calls nnUNet_raw; created if it does not exist.

    Returns:
        The dataset's folder, `raw_folder / BRAIN_DATASET_NAME`.

    Raises:
        FileExistsError: the dataset's folder is already there; it is left as it is.
        ImportError: nilearn is not installed; the message has the install line.
        OSError: the folder cannot be written, or the disk is full; nothing is left behind.
    """
    target = raw_folder / BRAIN_DATASET_NAME
    if target.exists():
        raise FileExistsError(f"{target} already exists; delete it to have the brain dataset written anew")
    image, labels = load_brain()
    with new_folder(target) as folder:
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / name).mkdir()
        for slab in SLABS:
            part = "Ts" if slab.held_out else "Tr"
            slices = (slice(None), slice(None), slice(slab.start, slab.stop))
            # slicer keeps the affine right: every slab lies where it was in MNI space
            image.slicer[slices].to_filename(folder / f"images{part}" / f"{slab.case}_0000{FILE_ENDING}")
            labels.slicer[slices].to_filename(folder / f"labels{part}" / f"{slab.case}{FILE_ENDING}")
        write_dataset_json(
            folder,
            ["T1"],
            LABELS,
            FILE_ENDING,
            BRAIN_DATASET_NAME,
            "Slabs of one averaged brain (MNI152 T1 template, 1 mm). A smoke test, not a benchmark.",
            reference="ICBM 152 nonlinear symmetric 2009a, Fonov et al. 2011, as shipped in nilearn",
        )
    return target


def load_brain() -> tuple[Nifti1Image, Nifti1Image]:
    """The template (X, Y, Z) as float32 in [0, 1] and its label map (X, Y, Z) as uint8, both at 1 mm in MNI space.

    Raises:
        ImportError: nilearn is not installed; the message has the install line.
    """
    import numpy as np

    try:
        import nibabel
        from nilearn import datasets as nilearn_datasets
    except ImportError as error:
        raise ImportError(
            f"the brain dataset comes with the nilearn package, which cannot be imported here ({error}): "
            f"install it with   {INSTALL_LINE}"
        ) from error
    template = nilearn_datasets.load_mni152_template(resolution=1)
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (nilearn_datasets.load_mni152_gm_template, nilearn_datasets.load_mni152_wm_template)
    )
    likeliest = np.argmax([1 - grey - white, grey, white], axis=0).astype(np.uint8)
    intensities = np.asarray(template.dataobj, dtype=np.float32)
    return nibabel.Nifti1Image(intensities, template.affine), nibabel.Nifti1Image(likeliest, template.affine)
