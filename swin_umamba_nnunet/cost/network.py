"""What a network costs: parameters, FLOPs and the memory of its activations, part by part, without computing anything.

    cost = describe_network(SwinUMambaD(1, 14), (1, 320, 320))
    cost.flops / 1e9  # 18.91, as in the paper

Everything is measured on torch's fake tensors, which have a shape, a memory format and a device but no contents, so
that the largest network is described on a laptop in a second.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.cost.count import CONVENTION, MultiplyAddCounter
from swin_umamba_nnunet.networks import set_backend

MEMORY_CONVENTION = (
    "Activation memory is what autograd keeps for the backward pass, in float32 (tensors that share memory counted "
    "once, the image included, the parameters not; no loss, no workspace of kernels). Mixed precision keeps less."
)
_DEVICE = "cpu"  # whose memory formats are assumed
_BACKEND = "numba"  # any that runs there and is one opaque operator; nothing of it is run
HEADS = "heads"
# what a dotted name may contain -> part; tried in this order
_NAMED = {"seg_layers": HEADS, "stem": "stem", "patch_embed": "patch embedding", "skip_blocks": "skips"}
_MANY_MAPS = (HEADS, "skips")  # parts that return maps of several sizes

Shape = tuple[int, ...]  # of a tensor, or the size of an image or patch per axis


@dataclass(frozen=True)
class PartCost:
    """One part of a network.

    Attributes:
        name: "stem", "encoder stage 1", ..., "skips", "decoder stage 1", ..., "heads".
        parameters: how many.
        dense_flops: multiply-adds of everything but the scans, at batch 1.
        scan_flops: multiply-adds of the selective scans, at batch 1.
        activation_bytes: kept for backward, at the batch size of the `Cost`.
        channels: of the map it returns, None if it returns none.
        size: of that map in pixels; () if it returns none.
    """

    name: str
    parameters: int
    dense_flops: int
    scan_flops: int
    activation_bytes: int
    channels: int | None
    size: Shape


def _total(name: str) -> Any:
    return property(lambda self: sum(getattr(part, name) for part in self.parts), doc=f"`{name}` of all parts.")


@dataclass(frozen=True)
class Cost:
    """What a network costs for images of one size; see `CONVENTION` and `MEMORY_CONVENTION` for what is counted.

    `parameters`, `dense_flops`, `scan_flops`, `flops` and `activation_bytes` are those of all parts together.

    Attributes:
        network: name of its class.
        input_shape: (C, H, W), or (C, D, H, W) in 3D.
        classes: channels of the logits.
        batch_size: at which the activations were measured; FLOPs are always at batch 1.
        parameter_bytes: memory of the parameters alone, in their dtype.
        head_sizes: size of each head's map in pixels, as returned with deep supervision.
        parts: in the order of the forward pass.
        uncounted: operations without a formula that are not known to be free, with how often each ran ("aten.fft x2");
            what they cost is missing from the FLOPs.
    """

    network: str
    input_shape: Shape
    classes: int
    batch_size: int
    parameter_bytes: int
    head_sizes: tuple[Shape, ...]
    parts: tuple[PartCost, ...]
    uncounted: tuple[str, ...] = ()

    parameters = _total("parameters")
    dense_flops = _total("dense_flops")
    scan_flops = _total("scan_flops")
    activation_bytes = _total("activation_bytes")

    @property
    def flops(self) -> int:
        """Multiply-adds of everything."""
        return self.dense_flops + self.scan_flops

    @property
    def deep_supervision_scales(self) -> tuple[tuple[float, ...], ...]:
        """Size of each head's map relative to the image, per axis."""
        return tuple(tuple(h / w for h, w in zip(size, self.input_shape[1:])) for size in self.head_sizes)

    def to_dict(self) -> dict[str, Any]:
        """Everything, totals and conventions included, as JSON takes it."""
        totals = ("parameters", "dense_flops", "scan_flops", "flops", "activation_bytes", "deep_supervision_scales")
        return {
            **asdict(self),
            **{name: getattr(self, name) for name in totals},
            "flops_convention": CONVENTION,
            "memory_convention": MEMORY_CONVENTION,
        }


def describe_network(network: nn.Module, input_shape: Sequence[int], batch_size: int = 1) -> Cost:
    """The cost of `network`, which is left as it is and whose weights are not copied.

    Args:
        network: takes (B, C, ...) and returns logits (B, classes, ...), or a list of them; not compiled, not wrapped.
            Deep supervision is switched on for the count where the network knows it (`decoder.deep_supervision`).
        input_shape: (C, H, W), or (C, D, H, W) in 3D.
        batch_size: for the activation memory.

    Raises:
        ValueError: a batch size below 1, or a shape that the network refuses.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}; it must be at least 1")
    parameters: dict[str, int] = defaultdict(int)
    for name, parameter in network.named_parameters():
        parameters[part_of(name)] += parameter.numel()
    padded = _padded(network, input_shape)
    with FakeTensorMode(allow_non_fake_inputs=True):  # such as constants that a module holds
        network = fake_copy(network)
        image = torch.empty(1, *input_shape, device=_DEVICE)
        tracker = PartTracker(network.eval())
        with torch.no_grad(), tracker, MultiplyAddCounter(lambda: tracker.current) as counter:
            outputs = network(image)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        saved = _saved_bytes(network.train(), torch.empty(batch_size, *input_shape, device=_DEVICE))
    dense, scan, maps = counter.dense, counter.scan, tracker.maps
    names = dict.fromkeys((*maps, *parameters, *dense, *scan, *saved))  # in the order of the forward pass
    parts = [
        PartCost(name, parameters[name], dense[name], scan[name], saved[name], *_map(maps.get(name), padded))
        for name in sorted(names, key=lambda name: name == HEADS)  # which come last
    ]
    return Cost(
        network=type(network).__name__,
        input_shape=tuple(input_shape),
        classes=outputs[0].shape[1],
        batch_size=batch_size,
        parameter_bytes=sum(p.numel() * p.element_size() for p in network.parameters()),
        head_sizes=tuple(tuple(y.shape[2:]) for y in outputs),
        parts=tuple(part for part in parts if any(astuple(part)[1:5])),
        uncounted=tuple(f"{name} x{times}" for name, times in counter.uncounted.items()),
    )


def fake_copy(network: nn.Module) -> nn.Module:
    """A copy of fake tensors (inside a FakeTensorMode), deep supervision on, scans that stay one operator."""
    replacements: dict[int, Any] = {
        id(t): torch.empty(t.shape, dtype=t.dtype, device=_DEVICE) for t in (*network.parameters(), *network.buffers())
    }
    for p in network.parameters():
        replacements[id(p)] = nn.Parameter(replacements[id(p)], p.requires_grad)
    network = copy.deepcopy(network, replacements)  # finds each tensor already copied
    set_backend(network, _BACKEND)
    decoder: Any = getattr(network, "decoder", None)
    if hasattr(decoder, "deep_supervision"):
        decoder.deep_supervision = True
    return network


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

    Attributes:
        maps: shape of what each part's last module returned, None of parts that return several; in the order in which
            the parts first finished a module.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._running = [part_of("")]
        self._handles: list[Any] = []
        self.maps: dict[str, Shape | None] = {}

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
        for handle in self._handles:
            handle.remove()

    def _follow(self, module: nn.Module, part: str) -> None:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._running.append(part)

        def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
            self._running.pop()
            self.maps.setdefault(part, None)
            first = outputs[0] if isinstance(outputs, list | tuple) and outputs else outputs
            if isinstance(first, Tensor) and part not in _MANY_MAPS:
                self.maps[part] = tuple(first.shape)

        self._handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _saved_bytes(network: nn.Module, image: Tensor) -> dict[str, int]:
    """{part: bytes that autograd keeps from its forward pass}; memory that two parts keep belongs to the first."""
    parameters = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages are held so that no address is given out twice
    saved: dict[str, int] = defaultdict(int)
    with PartTracker(network) as tracker:

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in parameters and storage._cdata not in kept:
                kept[storage._cdata] = storage
                saved[tracker.current] += storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(image)
    return saved


def _padded(network: nn.Module, input_shape: Sequence[int]) -> Shape:
    """Size of the image inside the network, in pixels."""
    stride = getattr(network, "stride", 1)
    stride = stride if isinstance(stride, int) else 1
    return tuple(-(-side // stride) * stride for side in input_shape[1:])


def _map(shape: Shape | None, image: Sequence[int]) -> tuple[int | None, Shape]:
    """(channels, size) of an output: (B, ..., C) if all axes of the image are then scaled alike, else (B, C, ...)."""
    if shape is None or len(shape) != len(image) + 2:
        return None, ()
    size = shape[1:-1]
    if all(side * image[0] == size[0] * whole for side, whole in zip(size, image)):
        return shape[-1], size
    return shape[1], shape[2:]
