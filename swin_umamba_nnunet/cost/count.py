"""What an operation costs in the papers' convention: torch's FLOP formulas, with fvcore's for what torch omits.

The published FLOPs are fvcore's: one multiply-add counts one, biases and elementwise operations nothing, norm layers 5
per element (4 without scale and shift).  fvcore itself traces with torch.jit, which is deprecated and needs real
tensors, that is a forward pass of the whole network; torch's formulas count convolutions and matrix products alike,
need no more than shapes, and lack just the norms and interpolations given here.  A test holds both equal.

The formulas are torch's, the mode that looks them up is not: `FlopCounterMode` tries to decompose an operation before
it looks for its formula, what decomposes depends on torch's version (2.14 takes every batch norm apart), and what is
left without a formula it passes over.  Here an operation that is neither counted nor known to be free is named.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import swin_umamba_nnunet.ops  # noqa: F401 (registers the operator)

SCAN_OPERATOR = torch.ops.swin_umamba.scan
# These make the step sizes too, a matrix product that is none of the scan, and the second one the norm behind it.
SCAN_OPERATORS_2D = torch.ops.swin_umamba.scan_2d, torch.ops.swin_umamba.scan_2d_norm_gate

CONVENTION = (
    "FLOPs are multiply-adds as fvcore counts them (convolutions, matrix products, norm layers; no biases, no "
    "elementwise operations) of one forward pass at batch 1 with all deep-supervision heads; each selective scan adds "
    "9*B*L*D*N + B*L*D for B images, L positions, D = directions * inner channels, N states per channel."
)

_FLOPS_PER_MULTIPLY_ADD = 2  # in torch's formulas
_Formula = Callable[..., int]


class MultiplyAddCounter(TorchDispatchMode):
    """A context in which operations are counted, on tensors of any device (`meta` computes nothing).

    Args:
        part: says which part of the network is running.

    Attributes:
        dense, scan: multiply-adds by part, of everything but the scans and of the scans.
        uncounted: how often an operation ran for which there is no formula and which is not known to be free.  What
            they cost is missing from the sums.
    """

    def __init__(self, part: Callable[[], str]) -> None:
        super().__init__()
        self._part = part
        self.uncounted: Counter[str] = Counter()
        self.dense: dict[str, int] = defaultdict(int)
        self.scan: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet, part = func._overloadpacket, self._part()
        if packet is SCAN_OPERATOR:
            x, _, _, _, A, *_ = args
            directions, channels, states = A.shape
            self.scan[part] += scan_multiply_adds(prod(x.shape[:-1]), directions * channels, states)
        elif packet in SCAN_OPERATORS_2D:
            x, _, dt_weight, _, A_logs, *_ = args
            self.scan[part] += scan_multiply_adds(x[..., 0].numel(), *A_logs.shape)
            self.dense[part] += x[..., 0].numel() * dt_weight.numel()
            if packet is not SCAN_OPERATORS_2D[0]:
                self.dense[part] += _norm(x, args[7])  # the gate's products are free
        elif packet in _FORMULAS:
            self.dense[part] += _FORMULAS[packet](*args, **kwargs, out=out)
        elif packet in flop_registry:
            self.dense[part] += flop_registry[packet](*args, **kwargs, out_val=out) // _FLOPS_PER_MULTIPLY_ADD
        elif not _is_free(func, out):
            self.uncounted[str(packet)] += 1
        return out


def scan_multiply_adds(positions: int, channels: int, states: int) -> int:
    """Of a selective scan over B*L `positions` of D `channels` with N `states`: 9*B*L*D*N + B*L*D.

    Source: the VMamba authors' count, which the papers use; the last term is the skip D*u.
    """
    return 9 * positions * channels * states + positions * channels


def _norm(x: Tensor, weight: Tensor | None) -> int:
    return x.numel() * (4 if weight is None else 5)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Any, mean: Any, variance: Any, training: bool, *_: Any, **__: Any
) -> int:
    """Also InstanceNorm, which torch computes as a BatchNorm in training mode over (1, B*C, ...)."""
    if training:
        return _norm(x, weight)
    return x.numel() * (1 if weight is None else 2)  # with fixed statistics


def _per_output(multiply_adds: int) -> _Formula:
    return lambda *_, out, **__: multiply_adds * out.numel()


_aten = torch.ops.aten
_FORMULAS: dict[Any, _Formula] = {
    _aten.native_layer_norm: lambda x, shape, weight, *_, **__: _norm(x, weight),
    _aten.native_group_norm: lambda x, weight, *_, **__: _norm(x, weight),
    _aten.native_batch_norm: _batch_norm,
    _aten.upsample_nearest2d: _per_output(1),
    _aten.upsample_nearest3d: _per_output(1),
    _aten.upsample_bilinear2d: _per_output(4),
    _aten.upsample_trilinear3d: _per_output(8),
}

# Free all the same: memory that is made, moved or copied, pooling, sums, what torch 2.4 does not call pointwise.
_FREE = frozenset(
    {
        "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d",
        "_softmax",
        "_to_copy",
        "_unsafe_view",
        "amax",
        "avg_pool2d",
        "avg_pool3d",
        "cat",
        "clone",
        "constant_pad_nd",
        "copy",
        "empty",
        "empty_like",
        "empty_strided",
        "fill",
        "flip",
        "full",
        "full_like",
        "index_select",
        "leaky_relu",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "mean",
        "new_empty",
        "new_zeros",
        "ones",
        "ones_like",
        "reflection_pad2d",
        "repeat",
        "replication_pad2d",
        "roll",
        "stack",
        "sum",
        "zeros",
        "zeros_like",
    }
)


def _is_free(func: Any, out: Any) -> bool:
    """Whether the convention counts nothing for an operation that returned `out`."""
    if func.is_view or torch.Tag.pointwise in func.tags or not isinstance(out, Tensor | tuple | list):
        return True
    return func.namespace == "aten" and func._overloadpacket.__name__.rstrip("_") in _FREE
