"""The first convolution of a network trained on RGB images, for images of any number of channels.  Pure.

The convolution is linear, so it is enough to say which RGB image the new image stands for.  Let x have N channels and
let the checkpoint expect M (3).  For k = 0 .. max(N, M) - 1, channel k mod N of the image is paired with channel
k mod M of the checkpoint, whose channel j then sees the mean of the image channels paired with it,

    rgb_j = sum_c P[j, c] x_c,   every row of P adds up to 1,   so   w'[:, c] = sum_j w[:, j] P[j, c].

    N = 1: (x, x, x), so w' = w_R + w_G + w_B       N = 2: (x1, x2, x1)
    N = 3: (x1, x2, x3), w' = w                     N = 4: (mean(x1, x4), x2, x3), and so on

Because the rows add up to 1, a grey image in any number of channels gives what the same image gives as R = G = B, and
the sum of w' over its channels is that of w.  For N > 3 the colour-opponent filters stay alive, as differences between
modalities; spreading the mean of w over all channels would cancel them.
"""

import torch
from torch import Tensor


def channel_mixing(image_channels: int, checkpoint_channels: int = 3) -> Tensor:
    """P of the module's docstring: (checkpoint_channels, image_channels), float64, rows add up to 1."""
    mixing = torch.zeros(checkpoint_channels, image_channels, dtype=torch.float64)
    for k in range(max(image_channels, checkpoint_channels)):
        mixing[k % checkpoint_channels, k % image_channels] += 1
    return mixing / mixing.sum(dim=1, keepdim=True)


def adapt_input_convolution(weight: Tensor, image_channels: int) -> Tensor:
    """Weights of the same convolution for images of `image_channels` channels.

    Args:
        weight: (out, M, kh, kw), or with three kernel axes.
        image_channels: N >= 1.

    Returns:
        (out, N, ...), dtype and device of `weight`; `weight` itself where N = M.

    Raises:
        ValueError: N < 1.
    """
    if image_channels < 1:
        raise ValueError(f"an image has at least one channel, got {image_channels}")
    if image_channels == weight.shape[1]:
        return weight
    mixing = channel_mixing(image_channels, weight.shape[1]).to(weight.device)
    return torch.einsum("oj...,jc->oc...", weight.double(), mixing).to(weight.dtype)
