"""What an operation costs in the papers' convention: torch's FLOP counter, with fvcore's formulas for what it omits.

The published FLOPs are fvcore's: one multiply-add counts one, biases and elementwise operations nothing, norm layers 5
per element (4 without scale and shift).  fvcore itself traces with torch.jit, which is deprecated and needs real
tensors, that is a forward pass of the whole network; torch's counter counts convolutions and matrix products alike,
needs no more than shapes, and lacks just the norms and 2D interpolations given here.  A test holds both equal.
"""

from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import swin_umamba_nnunet.ops  # noqa: F401 (registers the operator)

SCAN_OPERATOR = torch.ops.swin_umamba.scan
SCAN_OPERATOR_2D = torch.ops.swin_umamba.scan_2d  # makes the step sizes too: a matrix product that is none of the scan

CONVENTION = (
    "FLOPs are multiply-adds as fvcore counts them (convolutions, matrix products, norm layers; no biases, no "
    "elementwise operations) of one forward pass at batch 1 with all deep-supervision heads; each selective scan adds "
    "9*B*L*D*N + B*L*D for B images, L positions, D = directions * inner channels, N states per channel."
)

_FLOPS_PER_MULTIPLY_ADD = 2  # in torch's counter; the formulas below are halved again with everything else
_Shape = tuple[int, ...]


class MultiplyAddCounter(FlopCounterMode):
    """A context in which operations are counted, on tensors of any device (`meta` computes nothing)."""

    def __init__(self) -> None:
        aten = torch.ops.aten
        self._step_sizes = 0  # what SCAN_OPERATOR_2D counted for them
        super().__init__(
            display=False,
            custom_mapping={
                SCAN_OPERATOR: _scan_flops,
                SCAN_OPERATOR_2D: self._scan_2d_flops,
                aten.native_layer_norm: _layer_norm_flops,
                aten.native_group_norm: _group_norm_flops,
                aten.native_batch_norm: _batch_norm_flops,
                aten.upsample_nearest2d: _upsample_nearest_flops,
                aten.upsample_bilinear2d: _upsample_bilinear_flops,
            },
        )

    def so_far(self) -> tuple[int, int]:
        """(all but the scans, the scans) in multiply-adds since the context was entered."""
        counts = self.flop_counts.get("Global", {})
        scan = counts.get(SCAN_OPERATOR, 0) + counts.get(SCAN_OPERATOR_2D, 0) - self._step_sizes
        return (sum(counts.values()) - scan) // _FLOPS_PER_MULTIPLY_ADD, scan // _FLOPS_PER_MULTIPLY_ADD

    def _scan_2d_flops(self, x: _Shape, projected: _Shape, dt_weight: _Shape, bias: _Shape, A_logs: _Shape, *_: Any,
                       **__: Any) -> int:  # fmt: skip
        step_sizes = _FLOPS_PER_MULTIPLY_ADD * prod(x[:-1]) * prod(dt_weight)
        self._step_sizes += step_sizes
        rows, states = A_logs
        return step_sizes + _FLOPS_PER_MULTIPLY_ADD * scan_multiply_adds(prod(x[:-1]), rows, states)


def scan_multiply_adds(positions: int, channels: int, states: int) -> int:
    """Of a selective scan over B*L `positions` of D `channels` with N `states`: 9*B*L*D*N + B*L*D.

    Source: the VMamba authors' count, which the papers use; the last term is the skip D*u.
    """
    return 9 * positions * channels * states + positions * channels


def _scan_flops(x: _Shape, dt: _Shape, Bs: _Shape, Cs: _Shape, A: _Shape, *_: Any, **__: Any) -> int:
    directions, channels, states = A
    return _FLOPS_PER_MULTIPLY_ADD * scan_multiply_adds(prod(x[:-1]), directions * channels, states)


def _norm_flops(x: _Shape, weight: _Shape | None) -> int:
    return _FLOPS_PER_MULTIPLY_ADD * prod(x) * (4 if weight is None else 5)


def _layer_norm_flops(x: _Shape, normalized_shape: Any, weight: _Shape | None, *_: Any, **__: Any) -> int:
    return _norm_flops(x, weight)


def _group_norm_flops(x: _Shape, weight: _Shape | None, *_: Any, **__: Any) -> int:
    return _norm_flops(x, weight)


def _batch_norm_flops(
    x: _Shape, weight: _Shape | None, bias: Any, mean: Any, variance: Any, training: bool, *_: Any, **__: Any
) -> int:
    """Also InstanceNorm, which torch computes as a BatchNorm in training mode over (1, B*C, ...)."""
    if training:
        return _norm_flops(x, weight)
    return _FLOPS_PER_MULTIPLY_ADD * prod(x) * (1 if weight is None else 2)  # with fixed statistics


def _upsample_nearest_flops(*_: Any, out_shape: _Shape, **__: Any) -> int:
    return _FLOPS_PER_MULTIPLY_ADD * prod(out_shape)


def _upsample_bilinear_flops(*_: Any, out_shape: _Shape, **__: Any) -> int:
    return _FLOPS_PER_MULTIPLY_ADD * 4 * prod(out_shape)
