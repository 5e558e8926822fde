"""Swin-UMamba and dagger on other VMamba encoders: Small, Base, and the second generation.  Only class attributes.

No paper trains these, so the recipe is Swin-UMamba's unchanged.  DropPath is the one setting that a deeper encoder must
not inherit from Tiny (0.2): the encoder gets the rate of the ImageNet training its weights come from (0.3 in Small, 0.6
in Base, as the names of the published files say), which VMamba's authors also keep where they train their second
generation for segmentation.  Dagger's decoder is the paper's and starts from random weights, so its rate stays 0.2.
"""

from typing import Any, ClassVar

from swin_umamba_nnunet.networks import SwinUMambaDV2, SwinUMambaV2
from swin_umamba_nnunet.trainers.leaves import (
    nnUNetTrainerSwinUMamba,
    nnUNetTrainerSwinUMambaD,
    nnUNetTrainerSwinUMambaDScratch,
    nnUNetTrainerSwinUMambaScratch,
)

SMALL = {"depths": (2, 2, 27, 2), "width": 96, "drop_path_rate": 0.3}
BASE = {"depths": (2, 2, 27, 2), "width": 128, "drop_path_rate": 0.6}
DECODER = {"decoder_drop_path_rate": 0.2}


class nnUNetTrainerSwinUMambaSmall(nnUNetTrainerSwinUMamba):
    """Swin-UMamba with a VMamba-Small encoder from ImageNet."""

    network_settings = SMALL
    imagenet_weights = "vmamba_small_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaSmallScratch"


class nnUNetTrainerSwinUMambaDSmall(nnUNetTrainerSwinUMambaD):
    """Swin-UMamba-dagger with a VMamba-Small encoder from ImageNet."""

    network_settings = SMALL | DECODER
    imagenet_weights = "vmamba_small_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaDSmallScratch"


class nnUNetTrainerSwinUMambaBase(nnUNetTrainerSwinUMamba):
    """Swin-UMamba with a VMamba-Base encoder from ImageNet; its stem and decoder are 4/3 as wide as with Tiny."""

    network_settings = BASE
    imagenet_weights = "vmamba_base_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaBaseScratch"


class nnUNetTrainerSwinUMambaDBase(nnUNetTrainerSwinUMambaD):
    """Swin-UMamba-dagger with a VMamba-Base encoder from ImageNet; its decoder is 4/3 as wide as with Tiny."""

    network_settings = BASE | DECODER
    imagenet_weights = "vmamba_base_v0"
    scratch_trainer = "nnUNetTrainerSwinUMambaDBaseScratch"


class nnUNetTrainerSwinUMambaV2(nnUNetTrainerSwinUMamba):
    """Swin-UMamba with a VMamba-Tiny encoder of the second generation from ImageNet."""

    network_class: ClassVar[Any] = SwinUMambaV2
    imagenet_weights = "vmamba_tiny_v2"
    scratch_trainer = "nnUNetTrainerSwinUMambaV2Scratch"


class nnUNetTrainerSwinUMambaDV2(nnUNetTrainerSwinUMambaD):
    """Swin-UMamba-dagger of second-generation VMamba blocks, its (Tiny) encoder from ImageNet."""

    network_class: ClassVar[Any] = SwinUMambaDV2
    imagenet_weights = "vmamba_tiny_v2"
    scratch_trainer = "nnUNetTrainerSwinUMambaDV2Scratch"


class nnUNetTrainerSwinUMambaSmallScratch(nnUNetTrainerSwinUMambaScratch):
    """Swin-UMamba with a VMamba-Small encoder, from random weights."""

    network_settings = SMALL


class nnUNetTrainerSwinUMambaDSmallScratch(nnUNetTrainerSwinUMambaDScratch):
    """Swin-UMamba-dagger with a VMamba-Small encoder, from random weights, without deep supervision."""

    network_settings = SMALL | DECODER


class nnUNetTrainerSwinUMambaBaseScratch(nnUNetTrainerSwinUMambaScratch):
    """Swin-UMamba with a VMamba-Base encoder, from random weights."""

    network_settings = BASE


class nnUNetTrainerSwinUMambaDBaseScratch(nnUNetTrainerSwinUMambaDScratch):
    """Swin-UMamba-dagger with a VMamba-Base encoder, from random weights, without deep supervision."""

    network_settings = BASE | DECODER


class nnUNetTrainerSwinUMambaV2Scratch(nnUNetTrainerSwinUMambaScratch):
    """Swin-UMamba with a VMamba-Tiny encoder of the second generation, from random weights."""

    network_class: ClassVar[Any] = SwinUMambaV2


class nnUNetTrainerSwinUMambaDV2Scratch(nnUNetTrainerSwinUMambaDScratch):
    """Swin-UMamba-dagger of second-generation VMamba blocks, from random weights, without deep supervision."""

    network_class: ClassVar[Any] = SwinUMambaDV2
