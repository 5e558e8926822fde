"""The networks that are compared, all for the same task: one image channel and 14 classes, as in the papers' AbdomenMR.

Those that nnU-Net's plans shape (U-Mamba and nnU-Net's own U-Net) get the stages its planner makes for patches of the
size; the rule is written out here, because a bare GPU machine has no nnU-Net.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import nn

CHANNELS, CLASSES = 1, 14
NETWORKS = ("SwinUMambaD", "SwinUMamba", "VMUNet", "UMambaBot", "UMambaEnc", "PlainConvUNet")
SMALLEST_MAP, WIDEST = 4, 512  # positions a side of the coarsest map; channels (nnU-Net's planner, 2D)
BUILDING_BLOCKS = "dynamic_network_architectures"


class MissingPackageError(RuntimeError):
    """A network needs a package that is not installed."""


def build_network(name: str, size: Sequence[int]) -> nn.Module:
    """A network of `NETWORKS` in float32 on the CPU, random weights, seeded.

    Args:
        name: which.
        size: (H, W) of its images in pixels.

    Raises:
        MissingPackageError: nnU-Net's building blocks are needed and not installed.
    """
    torch.manual_seed(0)
    try:
        if name == "PlainConvUNet":
            return _plain_unet(size)
        from swin_umamba_nnunet import networks

        network = getattr(networks, name)
        from_plans = {"patch_size": tuple(size), **planned_stages(size)} if name.startswith("UMamba") else {}
        return network(CHANNELS, CLASSES, True, **from_plans)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != BUILDING_BLOCKS:
            raise
        raise MissingPackageError(f"{name} is made of nnU-Net's building blocks, which are not installed; "
                                  "pip install dynamic-network-architectures") from error  # fmt: skip


def planned_stages(size: Sequence[int]) -> dict[str, Any]:
    """The stages nnU-Net 2.8 plans for 2D patches of `size` at equal spacing, named as in its plans.

    Each stage halves the axes that keep `SMALLEST_MAP` positions; widths double from 32 to 512; two convolutions each.
    """
    sides, strides = list(size), [(1, 1)]
    while any(side >= 2 * SMALLEST_MAP for side in sides):
        strides.append((*(2 if side >= 2 * SMALLEST_MAP else 1 for side in sides),))  # type: ignore[arg-type]
        sides = [-(-side // step) for side, step in zip(sides, strides[-1])]
    n_stages = len(strides)
    return {
        "n_stages": n_stages,
        "features_per_stage": tuple(min(32 * 2**i, WIDEST) for i in range(n_stages)),
        "kernel_sizes": ((3, 3),) * n_stages,
        "strides": tuple(strides),
        "n_conv_per_stage": (2,) * n_stages,
        "n_conv_per_stage_decoder": (2,) * (n_stages - 1),
    }


def _plain_unet(size: Sequence[int]) -> nn.Module:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He

    stages = planned_stages(size)
    for side, steps in zip(size, zip(*stages["strides"])):
        if side % prod(steps):
            raise ValueError(f"{side} pixels are no multiple of {prod(steps)}, the coarsest stride nnU-Net plans")
    network: nn.Module = PlainConvUNet(
        CHANNELS, num_classes=CLASSES, conv_op=nn.Conv2d, conv_bias=True, norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True, **stages,
    )  # fmt: skip
    return network.apply(InitWeights_He(1e-2))


def scanned(network: nn.Module, size: Sequence[int], device: str) -> tuple[int, int]:
    """(state-steps, elements E of the two-dimensional scans) of one image, from the shapes that pass through."""
    from swin_umamba_nnunet.blocks import SS2D
    from swin_umamba_nnunet.blocks.mamba import Mamba

    steps, elements = 0, 0

    def count_image(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal steps, elements
        directions, inner, _ = module.dt_projs_weight.shape  # type: ignore[union-attr, operator, misc]
        positions = inputs[0].numel() // inputs[0].shape[-1]
        elements += positions * inner
        steps += directions * positions * inner * module.A_logs.shape[1]  # type: ignore[union-attr, operator, index]

    def count_sequence(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal steps
        positions = inputs[0].numel() // inputs[0].shape[-1]
        steps += positions * module.A_log.numel()  # type: ignore[union-attr, operator]

    handles = [
        part.register_forward_hook(count_image if isinstance(part, SS2D) else count_sequence)
        for part in network.modules() if isinstance(part, SS2D | Mamba)
    ]  # fmt: skip
    try:
        with torch.no_grad():
            network(torch.zeros(1, CHANNELS, *size, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return steps, elements
