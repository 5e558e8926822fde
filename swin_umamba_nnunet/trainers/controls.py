"""Controls of Swin-UMamba and dagger: the same network, weights and recipe without what is said to make the difference.

In the NoScan networks every selective scan is replaced by its own skip term (`SS2D`, mixing="skip"): within a block,
information travels no further than the 3x3 convolution carries it.  Projections, convolutions, gates, norms and
ImageNet weights stay, and so does everything around the blocks.  A trainer and its control differ in one setting.
"""

from swin_umamba_nnunet.trainers.leaves import (
    nnUNetTrainerSwinUMamba,
    nnUNetTrainerSwinUMambaD,
    nnUNetTrainerSwinUMambaDScratch,
    nnUNetTrainerSwinUMambaScratch,
)

NO_SCAN = {"mixing": "skip"}


class nnUNetTrainerSwinUMambaNoScan(nnUNetTrainerSwinUMamba):
    """Does Swin-UMamba need its scans?  Or do the rest of its blocks, the decoder and ImageNet weights do the work?

    `nnUNetTrainerSwinUMamba` with every scan of the encoder replaced by its skip term (it has no others).  The ImageNet
    weights were trained with the scans in place; `nnUNetTrainerSwinUMambaNoScanScratch` asks without that handicap.
    """

    network_settings = NO_SCAN
    scratch_trainer = "nnUNetTrainerSwinUMambaNoScanScratch"


class nnUNetTrainerSwinUMambaDNoScan(nnUNetTrainerSwinUMambaD):
    """Does dagger need its scans?  Or do gated convolutions at the same places, with ImageNet weights, do the work?

    `nnUNetTrainerSwinUMambaD` with every scan of encoder and decoder replaced by its skip term.  The ImageNet weights
    were trained with the scans in place; `nnUNetTrainerSwinUMambaDNoScanScratch` asks without that handicap.
    """

    network_settings = NO_SCAN
    scratch_trainer = "nnUNetTrainerSwinUMambaDNoScanScratch"


class nnUNetTrainerSwinUMambaNoScanScratch(nnUNetTrainerSwinUMambaScratch):
    """Is it the scans that Swin-UMamba learns with from random weights?  The Scratch trainer without them."""

    network_settings = NO_SCAN


class nnUNetTrainerSwinUMambaDNoScanScratch(nnUNetTrainerSwinUMambaDScratch):
    """Is it the scans that dagger learns with from random weights?  The DScratch trainer without them."""

    network_settings = NO_SCAN
