"""What became of the tensors of an ImageNet checkpoint, for logs and training checkpoints."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

DECODER = "decoder."  # how the names of the tensors outside the encoder start
_BLOCK = re.compile(r"^(.*\bblocks)\.(\d+)\.")


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of the checkpoint and of the part of the network that is loaded.

    Tensors of the encoder have VMamba's names, those of the decoder (VM-UNet's) the network's own: `decoder.` first.

    Attributes:
        source: path of the file.
        sha256: its digest.
        variant: name of the checkpoint in the registry.
        loaded: tensors copied as they are.
        adapted: tensors copied after a change (the input convolution, to the image's channels).
        left_out_by_design: tensors of the file that are not used: the classifier's, blocks that the network is too
            shallow for, a patch embedding that would not see the image.
        missing: tensors the file should have and does not.
        unexpected: tensors of the file nobody accounts for.
        kept: tensors of the network that keep their initial values, by design.
    """

    source: str
    sha256: str
    variant: str
    loaded: tuple[str, ...]
    adapted: tuple[str, ...]
    left_out_by_design: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for a log; blocks that were cut off are named as ranges."""
        filled, empty = (*self.loaded, *self.adapted), (*self.missing, *self.kept)
        counts = []
        for part, is_decoder in (("encoder", False), ("decoder", True)):
            done, left = (sum(key.startswith(DECODER) is is_decoder for key in keys) for keys in (filled, empty))
            if done + left:
                counts.append(f"{done} of {done + left} {part} tensors")
        adapted = f", of them adapted to the image's channels: {', '.join(self.adapted)}" if self.adapted else ""
        faults = f", {len(self.missing)} missing, {len(self.unexpected)} unexpected" if self.has_faults else ""
        return (
            f"ImageNet weights {self.variant} from {self.source} (sha256 {self.sha256[:16]}): "
            f"{' and '.join(counts)} loaded{adapted}{faults}; "
            f"left out by design: {', '.join(_in_ranges(self.left_out_by_design))}"
        )

    @property
    def has_faults(self) -> bool:
        """Whether anything is unexplained; no network is ever loaded from such a file."""
        return bool(self.missing or self.unexpected)

    def to_dict(self) -> dict[str, Any]:
        """As strings and lists, for JSON and for checkpoints read with weights_only."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _in_ranges(keys: Iterable[str]) -> list[str]:
    """Keys of neighbouring blocks as one entry, "layers.2.blocks.2 to 26"; other keys as they are."""
    entries: list[str] = []
    blocks: dict[str, set[int]] = {}
    for key in keys:
        match = _BLOCK.match(key)
        if match is None:
            entries.append(key)
        elif (stage := match[1]) in blocks:
            blocks[stage].add(int(match[2]))
        else:
            blocks[stage] = {int(match[2])}
            entries.append(stage)
    named = {stage: sorted(numbers) for stage, numbers in blocks.items()}
    ranges = {stage: f"{stage}.{of[0]}" + (f" to {of[-1]}" if len(of) > 1 else "") for stage, of in named.items()}
    return [ranges.get(entry, entry) for entry in entries]
