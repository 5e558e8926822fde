"""SS2D, the four-direction selective scan over an image with its projections, convolution and gate.

Source: Liu et al., "VMamba", arXiv 2401.10166.  The defaults are those of the first VMamba release, which Swin-UMamba
(arXiv 2402.03302) and VM-UNet (arXiv 2402.02491) use; the second generation has no gate, no bias in the convolution and
one state.  Parameter names are VMamba's, so that its checkpoints load by prefix.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from swin_umamba_nnunet.blocks.norm import LayerNorm, widen
from swin_umamba_nnunet.ops import fuses_glue, selective_scan_2d, selective_scan_2d_norm_gate

DIRECTIONS = 4

Mixing = Literal["scan", "skip"]


class SS2D(nn.Module):
    """Two-dimensional selective scan with a gate, (B, H, W, C) -> (B, H, W, C).

    Symbols: C block width, D = expand * C inner width, N states, R rank of the step size, K = 4 directions.

    With `mixing="skip"` it is the control of itself: of the scan only the skip term is left, Ds * x summed over the
    directions.  The rest is the same, names and initial values (at the same seed) included, so the same checkpoints
    load.  What only the scan reads stays in the state dict, as buffers: neither counted nor trained, and
    DistributedDataParallel does not wait for its gradients.

    On CUDA (backend "triton") and on a CPU (backend "numba") scan, norm and gate are one operator;
    SWIN_UMAMBA_FUSED_GLUE=0 in the environment leaves norm and gate to torch (`swin_umamba_nnunet.ops.fuses_glue`).

    Args:
        d_model: C.
        d_state: N.
        expand: D / C.
        dt_rank: R; None stands for ceil(C / 16).
        d_conv: side of the depthwise convolution, odd.
        conv_bias: whether that convolution has a bias.
        gate: whether the output is multiplied by SiLU of a second projection of the input.
        mixing: what carries information between positions beyond the convolution: "scan", or nothing ("skip").
        backend: backend of the scan (`swin_umamba_nnunet.ops.BACKENDS`); None chooses.
        scan: what computes the scan, called as `swin_umamba_nnunet.ops.selective_scan_2d` is; None for that itself,
            which on some backends takes norm and gate with it.

    Raises:
        ValueError: an even `d_conv`, or an unknown `mixing`.
    """

    x_proj_weight: Tensor
    dt_projs_weight: Tensor
    dt_projs_bias: Tensor
    A_logs: Tensor
    given_scan: Callable[..., Tensor] | None = None  # of networks pickled before there was one, too

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        expand: int = 2,
        dt_rank: int | None = None,
        d_conv: int = 3,
        conv_bias: bool = True,
        gate: bool = True,
        mixing: Mixing = "scan",
        backend: str | None = None,
        scan: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        if d_conv % 2 == 0:
            raise ValueError(f"d_conv is {d_conv}; the depthwise convolution keeps the image size only if it is odd")
        if mixing not in get_args(Mixing):
            raise ValueError(f"mixing is {mixing!r}; choose one of {', '.join(get_args(Mixing))}")
        inner = expand * d_model
        rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        self.mixing = mixing
        self.backend = backend
        self.given_scan = scan
        self.has_gate = gate
        self.in_proj = nn.Linear(d_model, 2 * inner if gate else inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, d_conv, padding=d_conv // 2, groups=inner, bias=conv_bias)
        self._add_scan_tensor("x_proj_weight", DIRECTIONS, rank + 2 * d_state, inner)
        self._add_scan_tensor("dt_projs_weight", DIRECTIONS, inner, rank)
        self._add_scan_tensor("dt_projs_bias", DIRECTIONS, inner)
        self._add_scan_tensor("A_logs", DIRECTIONS * inner, d_state)
        self.Ds = nn.Parameter(torch.empty(DIRECTIONS * inner))
        self.out_norm = LayerNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)
        self.reset_scan_parameters()

    def _add_scan_tensor(self, name: str, *shape: int) -> None:
        if self.mixing == "scan":
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        else:
            self.register_buffer(name, torch.empty(shape))

    def reset_scan_parameters(self, dt_min: float = 1e-3, dt_max: float = 1e-1) -> None:
        """Initial values of the scan: A = -(1..N), D = 1, step sizes log-uniform in [`dt_min`, `dt_max`]."""
        inner, rank = self.dt_projs_weight.shape[1:]
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        init_scan(self.dt_projs_bias, self.A_logs, self.Ds, dt_min, dt_max)

    def scan(self, x: Tensor) -> Tensor:
        """The mixing over positions, (B, H, W, D) -> (B, H, W, D) in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        if self.mixing == "skip":
            return x.to(wide) * self.Ds.to(wide).unflatten(0, (DIRECTIONS, -1)).sum(0)
        return (self.given_scan or selective_scan_2d)(
            x,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
            out_dtype=wide,
            backend=self.backend,
        )

    def _fuses_glue(self, x: Tensor) -> bool:
        """Whether scan, norm and gate are one operator; then `out_norm` lends its parameters and is not called."""
        if type(self.out_norm) is not LayerNorm or self.out_norm._forward_hooks or self.out_norm._forward_pre_hooks:
            return False  # somebody put another norm there, or wants to see this one work
        own_scan = self.mixing == "scan" and self.given_scan is None
        return own_scan and x.dtype != torch.float64 and fuses_glue(self.backend, x.device.type, x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x, gate = self.in_proj(x).chunk(2, dim=-1) if self.has_gate else (self.in_proj(x), None)
        x = silu(self.conv2d(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        if self._fuses_glue(x):
            y = selective_scan_2d_norm_gate(
                x,
                self.x_proj_weight,
                self.dt_projs_weight,
                self.dt_projs_bias,
                self.A_logs,
                self.Ds,
                self.out_norm.weight,
                self.out_norm.bias,
                gate,
                eps=self.out_norm.eps,
                backend=self.backend,
            )
            return self.out_proj(y)
        y = self.out_norm(self.scan(x)).to(widen(x).dtype)  # back to half only in a network that is half throughout
        return self.out_proj(y if gate is None else y * silu(gate))


@torch.no_grad()
def init_scan(dt_bias: Tensor, A_log: Tensor, D: Tensor, dt_min: float, dt_max: float) -> None:
    """Mamba's initial values: A = -(1..N), D = 1, step sizes log-uniform in [`dt_min`, `dt_max`]; in place."""
    steps = torch.empty_like(dt_bias).uniform_(math.log(dt_min), math.log(dt_max)).exp()
    dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
    A_log.copy_(torch.arange(1, A_log.shape[1] + 1, device=A_log.device).log().expand_as(A_log))
    nn.init.ones_(D)
