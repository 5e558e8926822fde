"""What the papers report: numbers of others, under other protocols, for orientation only."""

from typing import NamedTuple

OTHER_PROTOCOL = (
    "Published elsewhere under another protocol: other plans, training lengths, checkpoints, test cases and scoring "
    "conventions. These rows were not run here, take part in no ranking and no test, and a difference between one of "
    "them and a row above is not a result."
)


class Published(NamedTuple):
    """A table of a paper.

    Attributes:
        title: what was measured.
        source: where.
        protocol: how, as far as it differs from what is done here.
        datasets: parts of nnU-Net dataset names that mean this dataset.
        metrics: heads of the columns, with units where there are any.
        lines: method and values as printed, separated by bars.
    """

    title: str
    source: str
    protocol: str
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    lines: str

    @property
    def rows(self) -> list[list[str]]:
        """(method, value, ...) as printed."""
        return [[cell.strip() for cell in line.split("|")] for line in self.lines.strip().splitlines()]


_SWIN_UMAMBA = "Swin-UMamba, arXiv:2402.03302"
_VM_UNET = "VM-UNet, arXiv:2402.02491"
_SNAPSHOT = (
    "test set; training on fold `all`; a snapshot of a 1000-epoch schedule after {} epochs; no test-time mirroring; {}"
)
_ISIC = "checkpoint chosen on the cases that are scored; one confusion matrix over all pixels at 256x256"

PUBLISHED: tuple[Published, ...] = (
    Published(
        "AbdomenMR",
        _SWIN_UMAMBA,
        _SNAPSHOT.format(100, "organs scored by the authors' script, some on part of the slices"),
        ("AbdomenMR",),
        ("DSC", "NSD"),
        """
        nnU-Net | 0.7450 | 0.8153
        SwinUNETR | 0.7028 | 0.7669
        U-Mamba_Bot | 0.7588 | 0.8285
        U-Mamba_Enc | 0.7625 | 0.8327
        Swin-UMamba from scratch | 0.7054 | 0.7647
        Swin-UMamba-dagger from scratch | 0.6653 | 0.7312
        Swin-UMamba, ImageNet | 0.7760 | 0.8421
        Swin-UMamba-dagger, ImageNet | 0.7705 | 0.8376
        """,
    ),
    Published(
        "Endoscopy",
        _SWIN_UMAMBA,
        _SNAPSHOT.format(250, "the NSD of the authors' script is not a boundary metric in 2D"),
        ("Endovis17", "Endoscopy"),
        ("DSC", "NSD"),
        """
        nnU-Net | 0.6264 | 0.6412
        SwinUNETR | 0.5528 | 0.5683
        U-Mamba_Bot | 0.6540 | 0.6692
        U-Mamba_Enc | 0.6303 | 0.6451
        Swin-UMamba from scratch | 0.5483 | 0.5632
        Swin-UMamba-dagger from scratch | 0.6402 | 0.6547
        Swin-UMamba, ImageNet | 0.6767 | 0.6922
        Swin-UMamba-dagger, ImageNet | 0.6783 | 0.6933
        """,
    ),
    Published(
        "Microscopy",
        _SWIN_UMAMBA,
        _SNAPSHOT.format(350, "F1 of cells matched at IoU 0.5"),
        ("NeurIPSCell", "Microscopy"),
        ("F1",),
        """
        nnU-Net | 0.5383
        SwinUNETR | 0.3967
        U-Mamba_Bot | 0.5389
        U-Mamba_Enc | 0.5607
        Swin-UMamba from scratch | 0.4561
        Swin-UMamba-dagger from scratch | 0.5186
        Swin-UMamba, ImageNet | 0.5806
        Swin-UMamba-dagger, ImageNet | 0.5982
        """,
    ),
    Published("ISIC17", _VM_UNET, _ISIC, ("ISIC17", "ISIC2017"), ("mIoU in %", "DSC in %"), "VM-UNet | 80.23 | 89.03"),
    Published("ISIC18", _VM_UNET, _ISIC, ("ISIC18", "ISIC2018"), ("mIoU in %", "DSC in %"), "VM-UNet | 81.35 | 89.71"),
    Published(
        "Synapse",
        _VM_UNET,
        "12 test volumes; MedPy's Dice and HD95 in voxels",
        ("Synapse",),
        ("DSC in %", "HD95 in voxels"),
        "VM-UNet | 81.08 | 19.21",
    ),
    Published(
        "nnU-Net Revisited",
        "arXiv:2404.09556",
        "3D, five folds, six datasets",
        (),
        ("DSC in %",),
        """
        U-Mamba without its Mamba layers | 87.07
        U-Mamba_Bot | 87.05
        U-Mamba_Enc | 86.59
        nnU-Net ResEnc L | 87.56
        """,
    ),
)


def published_for(dataset: str) -> list[Published]:
    """The tables on the same dataset, by its name."""
    return [table for table in PUBLISHED if any(part.lower() in dataset.lower() for part in table.datasets)]
