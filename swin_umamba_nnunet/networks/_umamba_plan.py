"""The stages of a U-Mamba network, from nnU-Net's plans."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

RELEASES = ("2024-03", "2024-01")  # what the authors have published since, and what their tables measured


@dataclass(frozen=True)
class StagePlan:
    """The stages as nnU-Net planned them, in tuples of our own: the plans are never written to.

    Attributes:
        patch_size: (H, W) or (D, H, W) in pixels.
        widths: channels of each stage, finest first.
        kernels: kernel sizes of each stage.
        strides: of each stage, relative to the one before.
        encoder_blocks: residual blocks of each stage.
        decoder_blocks: residual blocks of each decoder step, coarsest first.
        release: one of `RELEASES`.
    """

    patch_size: tuple[int, ...]
    widths: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    release: str

    @classmethod
    def from_settings(
        cls,
        release: str,
        patch_size: Sequence[int],
        n_stages: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
    ) -> "StagePlan":
        """Checked and copied.  The release of March 2024 has one block in the coarser half of the encoder's stages and
        in the finer half of the decoder's steps, whatever the plans say.

        Raises:
            ValueError: an unknown release, or settings that do not fit together.
        """
        if release not in RELEASES:
            raise ValueError(f"there is no U-Mamba release {release!r}; choose one of {', '.join(RELEASES)}")
        if len(patch_size) not in (2, 3):
            raise ValueError(f"patch_size is {tuple(patch_size)}; U-Mamba takes patches of two or three axes")
        if n_stages < 2:
            raise ValueError(f"n_stages is {n_stages}; U-Mamba needs at least 2, a bottleneck and what it skips")
        for name, values, entries in (
            ("features_per_stage", features_per_stage, n_stages),
            ("kernel_sizes", kernel_sizes, n_stages),
            ("strides", strides, n_stages),
            ("n_conv_per_stage", n_conv_per_stage, n_stages),
            ("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1),
        ):
            if not isinstance(values, Sequence) or len(values) != entries:
                raise ValueError(f"{name} is {values}; expected {entries} entries, for n_stages = {n_stages}")
        for name, axes in (("kernel_sizes", kernel_sizes), ("strides", strides)):
            if any(not isinstance(entry, Sequence) or len(entry) != len(patch_size) for entry in axes):
                raise ValueError(f"{name} is {axes}; expected {len(patch_size)} numbers per stage, one per axis")
        if any(side % 2 == 0 for kernel in kernel_sizes for side in kernel):
            raise ValueError(f"kernel_sizes is {kernel_sizes}; only odd kernels keep the size of a map")
        encoder, decoder = tuple(n_conv_per_stage), tuple(n_conv_per_stage_decoder)
        if min(encoder + decoder) < 1:
            raise ValueError(f"a stage without blocks: n_conv_per_stage {encoder}, n_conv_per_stage_decoder {decoder}")
        if release == "2024-03":
            half = math.ceil(n_stages / 2)
            encoder, decoder = (blocks[:half] + (1,) * len(blocks[half:]) for blocks in (encoder, decoder))
        return cls(
            tuple(int(side) for side in patch_size),
            tuple(features_per_stage),
            tuple(map(tuple, kernel_sizes)),
            tuple(map(tuple, strides)),
            encoder,
            decoder,
            release,
        )

    @property
    def dims(self) -> int:
        """Axes of an image."""
        return len(self.patch_size)

    @property
    def map_strides(self) -> tuple[tuple[int, ...], ...]:
        """Pixels per step of each stage's map, per axis, finest first."""
        return cumulative_strides(self.strides)

    @property
    def without_finest_skip(self) -> bool:
        """Whether the last decoder step has no skip: in the 2D form of March 2024 only."""
        return self.release == "2024-03" and self.dims == 2

    @property
    def padded_patch(self) -> tuple[int, ...]:
        """The patch as the network pads it."""
        return padded_size(self.patch_size, self.map_strides[-1])

    def positions(self, stage: int) -> int:
        """Positions of a stage's map for a padded patch."""
        return math.prod(side // stride for side, stride in zip(self.padded_patch, self.map_strides[stage]))


def cumulative_strides(strides: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Strides of the stages relative to each other -> relative to the image."""
    return tuple(itertools.accumulate(map(tuple, strides), lambda finer, here: tuple(map(math.prod, zip(finer, here)))))


def padded_size(size: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """`size` up to multiples of `stride`, to two positions at least: InstanceNorm has no variance over a single one."""
    padded = [-(-side // step) * step for side, step in zip(size, stride)]
    if padded == list(stride):
        padded[-1] *= 2
    return tuple(padded)
