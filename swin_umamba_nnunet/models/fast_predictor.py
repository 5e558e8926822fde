"""nnU-Net's predictor with several images in one call of the network: mirrored copies, and slices of a volume.

nnU-Net's own calls the network once for each window and each of its mirrored copies (four in 2D).  On a GPU the time of
such a call is that of starting its kernels, whatever they compute, so that a larger batch is almost free.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor

from swin_umamba_nnunet.models.checkpoints import ModelError, channel_names

logger = logging.getLogger(__name__)

IMAGES_PER_CALL = 8  # on CUDA: beyond it the kernels fill a GPU, and memory is all that grows
PIXELS_PER_CALL = 2**21  # on CUDA: eight images of 512x512


class FastPredictor(nnUNetPredictor):
    """Predicts what nnU-Net's predictor does, up to the rounding of a network that sees another batch size.

    Windows, weights, sums and averages are nnU-Net's, in its order.  In 2D, windows at one place of neighbouring slices
    go through the network together; windows at different places do not, which would need a loop of its own.

    Unverified on a GPU.

    Args:
        *args, **kwargs: nnU-Net's.
        images_per_call: images (mirrored copies and slices) in one call of the network at most; 1 calls it as nnU-Net
            does, None chooses: 1 on a CPU, where more gain nothing.  Rounded down to a power of two.

    Raises:
        ModelError: `images_per_call` below 1.
    """

    def __init__(self, *args: Any, images_per_call: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if images_per_call is not None and images_per_call < 1:
            raise ModelError(f"images_per_call is {images_per_call}; at least one image goes through the network")
        self._images_per_call = images_per_call
        self.checkpoints: list[Path] = []  # where its networks are from

    @property
    def images_per_call(self) -> int:
        """Images in one call of the network at most: a power of two, as the number of mirrored copies is."""
        wanted = self._images_per_call
        if wanted is None and self.device.type != "cuda":
            wanted = 1
        elif wanted is None:
            wanted = min(IMAGES_PER_CALL, PIXELS_PER_CALL // math.prod(self.configuration_manager.patch_size))
        return 1 << (max(1, wanted).bit_length() - 1)

    def require_channels(self, found: int, what: str) -> None:
        """Refuse an image of another number of channels than the model is for, before nnU-Net stumbles over it.

        Raises:
            ModelError: naming both, and the model's channels.
        """
        names = channel_names(self.dataset_json)
        if found != len(names):
            told = ", ".join(f"{number} {name}" for number, name in names.items())
            raise ModelError(
                f"{what} has {found} channel{'s' if found != 1 else ''}, but the model is for {len(names)} ({told}): "
                "give it the channels it was trained with, in that order: files CASE_0000, CASE_0001, ..., or each by "
                "its name (--channel NAME=FILE); and images of their own each as a file (-i FILE FILE ...)"
            )

    def predict_single_npy_array(self, input_image: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        """As nnU-Net's.

        Args:
            input_image: (C, slices, H, W).
            *args, **kwargs: nnU-Net's.

        Raises:
            ModelError: another shape, or other channels than the model's.
        """
        if np.ndim(input_image) != 4:
            raise ModelError(f"the image has shape {np.shape(input_image)}, expected (channels, slices, rows, columns)")
        self.require_channels(len(input_image), "the image")
        return super().predict_single_npy_array(input_image, *args, **kwargs)

    def _mirrorings(self) -> list[tuple[int, ...]]:
        """Axes (of images with batch and channels) to flip for each copy, in nnU-Net's order; the first flips none."""
        axes = [axis + 2 for axis in (self.allowed_mirroring_axes if self.use_mirroring else None) or ()]
        return [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]

    def _internal_get_sliding_window_slicers(self, image_size: Sequence[int]) -> list[tuple]:
        """nnU-Net's windows; in 2D each goes through as many slices as fit in one call, (channels, slices, y, x)."""
        slicers = super()._internal_get_sliding_window_slicers(image_size)
        together = self.images_per_call // len(self._mirrorings())
        depth = image_size[0]
        if together < 2 or len(self.configuration_manager.patch_size) == len(image_size):
            return slicers
        of_one_slice = slicers[: len(slicers) // depth]
        return [
            (channels, slice(first, min(first + together, depth)), *place)
            for first in range(0, depth, together)
            for channels, _, *place in of_one_slice
        ]

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        """Mean logits of a window over its mirrored copies.

        Args:
            x: (1, C, *patch), or (1, C, slices, H, W) in 2D.

        Returns:
            The same with heads in place of C.
        """
        sliced = x.dim() == len(self.configuration_manager.patch_size) + 3
        images = x[0].transpose(0, 1) if sliced else x
        prediction = self._mean_as_memory_allows(images)
        return prediction.transpose(0, 1)[None] if sliced else prediction

    def _mean_as_memory_allows(self, images: Tensor) -> Tensor:
        """Where a GPU's memory does not do, half as many images in a call from now on."""
        while True:
            at_once = min(self.images_per_call, len(images) * len(self._mirrorings()))
            try:
                return self._mean_over_mirrorings(images, at_once)
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise
            self._images_per_call = 1 << ((at_once - 1).bit_length() - 1)
            logger.warning(
                "out of GPU memory with %d images in one call of the network; going on with %d",
                at_once,
                self._images_per_call,
            )
            empty_cache(self.device)

    def _mean_over_mirrorings(self, images: Tensor, at_once: int) -> Tensor:
        """(B, C, ...) -> (B, heads, ...) with at most `at_once` images in a call; summed in nnU-Net's order."""
        if len(images) > at_once:
            return torch.cat([self._mean_over_mirrorings(part, at_once) for part in images.split(at_once)])
        mirrorings = self._mirrorings()
        together = at_once // len(images)
        groups = [mirrorings[first : first + together] for first in range(0, len(mirrorings), together)]
        batches = (torch.cat([images.flip(axes) for axes in group]) for group in groups)
        copies = (copy for batch in batches for copy in self.network(batch).split(len(images)))
        prediction = next(copies)
        for axes, copy in zip(mirrorings[1:], copies):
            prediction += copy.flip(axes)
        prediction /= len(mirrorings)
        return prediction
