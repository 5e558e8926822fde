"""Which part of a network (stem, a stage, the heads, ...) a module or parameter belongs to, and which one runs."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from swin_umamba_nnunet.blocks import SS2D

HEADS = "heads"
# what a dotted name may contain -> part; tried in this order
_NAMED = {"seg_layers": HEADS, "stem": "stem", "patch_embed": "patch embedding", "skip_blocks": "skips"}
_MANY_MAPS = (HEADS, "skips")  # parts that return maps of several sizes


def part_of(name: str) -> str:
    """The part that a module or parameter called `name` ("encoder.stages.2.0.conv") belongs to.

    Names as this package and nnU-Net give them.  Within `encoder` and `decoder` the first number is that of the stage,
    from 0; what has none is the final step or the rest of that side.  Networks built otherwise are split by their
    direct children.
    """
    side, *path = name.split(".")
    if side not in ("encoder", "decoder"):
        return side or "network"
    named = next((part for key, part in _NAMED.items() if key in path), None)
    if named is not None:
        return named
    number = next((int(item) for item in path if item.isdecimal()), None)
    if number is None:
        return f"{side} final step" if any(item.startswith("final") for item in path) else f"{side} rest"
    return f"{side} stage {number + 1}"


class PartTracker:
    """A context that follows a network's forward pass from part to part, by hooks on its modules.

    Args:
        network: whose forward pass is followed.
        left: called with the part that ran until now, each time the next one begins.

    Attributes:
        order: parts in the order in which they first finished a module.
        maps: shape of what each part's last module returned; not of parts that return several.
    """

    def __init__(self, network: nn.Module, left: Callable[[str], None] = lambda part: None) -> None:
        self._network = network
        self._left = left
        self._running = [part_of("")]
        self._handles: list[Any] = []
        self.order: list[str] = []
        self.maps: dict[str, tuple[int, ...]] = {}

    @property
    def current(self) -> str:
        """The part of the innermost module that is running."""
        return self._running[-1]

    def __enter__(self) -> "PartTracker":
        for name, module in self._network.named_modules():
            inside = self._network.get_submodule(name.rpartition(".")[0])
            if name and not isinstance(inside, SS2D):  # which fuses its norm only where nobody hooks it
                self._follow(module, part_of(name))
        return self

    def __exit__(self, *_: object) -> None:
        self._left(self.current)
        for handle in self._handles:
            handle.remove()

    def _follow(self, module: nn.Module, part: str) -> None:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._left(self.current)
            self._running.append(part)

        def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
            self._left(self._running.pop())
            if part not in self.order:
                self.order.append(part)
            first = outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs
            if isinstance(first, Tensor) and part not in _MANY_MAPS:
                self.maps[part] = tuple(first.shape)

        self._handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
