"""The residual blocks around SS2D, of VMamba's first release and of its second generation.

Source: Liu et al., "VMamba", arXiv 2401.10166 (versions 1 and 3).  Parameter names are those of the released files.
"""

from torch import Tensor, nn
from torch.nn.functional import gelu

from swin_umamba_nnunet.blocks.norm import LayerNorm, widen
from swin_umamba_nnunet.blocks.ss2d import SS2D, Mixing


class DropPath(nn.Module):
    """Stochastic depth: in training, sets whole samples to zero with probability `rate` and rescales the others.

    Source: Huang et al., "Deep networks with stochastic depth", arXiv 1603.09382.  Written out here because timm and
    torchvision take longer to import than torch itself, for these four lines.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the DropPath rate is {rate}; it must be at least 0 and below 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class VSSBlock(nn.Module):
    """x + DropPath(SS2D(LayerNorm(x))), (B, H, W, C) -> (B, H, W, C)."""

    def __init__(
        self,
        channels: int,
        *,
        d_state: int = 16,
        drop_path: float = 0.0,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(channels)
        # VMamba's name; there is no attention
        self.self_attention = SS2D(channels, d_state=d_state, mixing=mixing, backend=backend)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return widen(x) + self.drop_path(self.self_attention(self.ln_1(x)))


class MLP(nn.Module):
    """Linear, GELU, Linear at every position, (..., C) -> (..., C)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class VSSBlockV2(nn.Module):
    """Second generation: x + DropPath(SS2D(LayerNorm(x))), and after it the same with an MLP; (B, H, W, C) kept.

    The SS2D has no gate, no bias in its convolution, and by default one state per channel.

    Args:
        channels: C.
        d_state: states of the scan.
        expand: inner width of SS2D over C; 1 in VMamba-Tiny, 2 in Small and Base.
        mlp_ratio: hidden width of the MLP over C.
        drop_path: rate of both branches.
        mixing, backend: of SS2D.
    """

    def __init__(
        self,
        channels: int,
        *,
        d_state: int = 1,
        expand: int = 1,
        mlp_ratio: int = 4,
        drop_path: float = 0.0,
        mixing: Mixing = "scan",
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.op = SS2D(
            channels, d_state=d_state, expand=expand, conv_bias=False, gate=False, mixing=mixing, backend=backend
        )
        self.norm2 = LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = widen(x) + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
