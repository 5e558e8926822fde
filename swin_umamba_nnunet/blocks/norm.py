"""Layer normalisation that stays float32 under mixed precision, on every device alike."""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

# Devices that know autocast; asked once, because torch 2.4's compiler cannot follow the question.
AUTOCAST_DEVICES = tuple(device for device in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(device))


def widen(x: Tensor) -> Tensor:
    """`x` in float32 where autocast is on, else unchanged.

    Autocast makes each matrix product return half precision.  What is summed over many blocks (the residual stream)
    and what is normalised goes through here, so that it neither overflows in float16 nor loses bits in bfloat16.
    """
    device = x.device.type
    if device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
        return x.to(torch.promote_types(x.dtype, torch.float32))
    return x


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis, computed in float32 at least.

    Torch does so by itself under CUDA's autocast only; on a CPU the norm would follow its half-precision input.
    Returns float32 under autocast and the dtype of the input otherwise (so a network cast to half works too).
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        y = layer_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.bias.to(wide), self.eps)
        return y.to(widen(x).dtype)
