"""The residual block around SS2D."""

from torch import Tensor, nn

from swin_umamba_nnunet.blocks.norm import LayerNorm, widen
from swin_umamba_nnunet.blocks.ss2d import SS2D


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

    def __init__(self, channels: int, *, d_state: int = 16, drop_path: float = 0.0, backend: str | None = None) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(channels)
        self.self_attention = SS2D(channels, d_state=d_state, backend=backend)  # VMamba's name; there is no attention
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return widen(x) + self.drop_path(self.self_attention(self.ln_1(x)))
