"""The Mamba-1 block and U-Mamba's layer around it, on this package's selective scan.

Source: Gu and Dao, "Mamba", arXiv 2312.00752 (the block); Ma et al., "U-Mamba", arXiv 2401.04722 (the layer).
Parameter names are mamba_ssm's, so that checkpoints load by prefix; neither mamba_ssm nor causal-conv1d is needed.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from swin_umamba_nnunet.blocks.norm import AUTOCAST_DEVICES, LayerNorm, widen
from swin_umamba_nnunet.blocks.ss2d import init_scan
from swin_umamba_nnunet.ops import selective_scan


class Mamba(nn.Module):
    """Gated selective scan over a sequence, (B, L, C) -> (B, L, C).

    Symbols: C block width, D = expand * C inner width, N states, R rank of the step size.

    Args:
        d_model: C.
        d_state: N.
        d_conv: taps of the causal depthwise convolution.
        expand: D / C.
        dt_rank: R; None stands for ceil(C / 16).
        backend: backend of the scan (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        inner = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, padding=d_conv - 1, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self.reset_scan_parameters()

    def reset_scan_parameters(self, dt_min: float = 1e-3, dt_max: float = 1e-1) -> None:
        """Initial values of the scan: A = -(1..N), D = 1, step sizes log-uniform in [`dt_min`, `dt_max`].

        The other projections and the convolution keep PyTorch's, as in mamba_ssm.
        """
        bound = self.dt_proj.in_features**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        init_scan(self.dt_proj.bias, self.A_log, self.D, dt_min, dt_max)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C); position l sees the positions up to l."""
        length, states = x.shape[1], self.A_log.shape[1]
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = silu(self.conv1d(x.transpose(1, 2))[..., :length])  # (B, D, L); padded at both ends, hence cut at the right
        low_rank, Bs, Cs = self.x_proj(x.transpose(1, 2)).split((self.dt_proj.in_features, states, states), dim=-1)
        delta = linear(low_rank, self.dt_proj.weight)  # its bias goes in with the softplus
        A = -torch.exp(self.A_log.to(torch.promote_types(torch.float32, self.A_log.dtype)))
        y: Any = selective_scan(
            x,
            delta.transpose(1, 2),
            A,
            Bs.transpose(1, 2),
            Cs.transpose(1, 2),
            self.D,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            backend=self.backend,
        )
        return self.out_proj(y.transpose(1, 2) * silu(gate))


class MambaLayer(nn.Module):
    """LayerNorm and Mamba over the tokens of a map, without a residual; (B, C, *S) -> (B, C, *S) in the input's dtype.

    The map has one axis or more.  Its tokens are its positions in row-major order, each of C values; or, with
    `channel_tokens`, its channels, each of as many values as there are positions.  Under autocast everything inside
    stays float32, as in the authors' code: nothing around the layer bounds its values.

    Args:
        width: values per token.
        channel_tokens: tokens are channels, so the layer fits maps of `width` positions only.
        backend: backend of the scan; None chooses.
    """

    def __init__(self, width: int, *, channel_tokens: bool = False, backend: str | None = None) -> None:
        super().__init__()
        self.channel_tokens = channel_tokens
        self.norm = LayerNorm(width)
        self.mamba = Mamba(width, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        tokens = widen(x).flatten(2)
        with _full_precision(x.device.type):
            if self.channel_tokens:
                y = self.mamba(self.norm(tokens))
            else:
                y = self.mamba(self.norm(tokens.transpose(1, 2))).transpose(1, 2)
        # Left as it is, the result would be channels-last, and so would the maps after it; torch 2.15's backward of a
        # strided 1x1 convolution then writes outside its memory on a CPU (seen at 4 and 6 channels, not at 8 or more).
        return y.reshape(x.shape).contiguous().to(x.dtype)


def _full_precision(device_type: str) -> AbstractContextManager:
    """Autocast switched off, on devices that have it."""
    return torch.autocast(device_type, enabled=False) if device_type in AUTOCAST_DEVICES else nullcontext()
