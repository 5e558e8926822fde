"""What U-Mamba is made of: the convolution parts of its two releases, its encoder and its decoder, 2D and 3D.

`dynamic_network_architectures` (nnU-Net's own building blocks) has all but the first block of a stage.
"""

from collections.abc import Sequence
from typing import Any

from dynamic_network_architectures.building_blocks.helper import (
    convert_dim_to_conv_op,
    get_matching_convtransp,
    get_matching_instancenorm,
)
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, StackedResidualBlocks
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import Tensor, cat, nn
from torch.nn.functional import interpolate, leaky_relu

from swin_umamba_nnunet.networks._base import Recomputing, segment
from swin_umamba_nnunet.networks._umamba_plan import StagePlan

NEGATIVE_SLOPE = 0.01  # of every LeakyReLU, torch's default


def convolution_settings(dims: int) -> dict[str, Any]:
    """Convolution, norm and nonlinearity of U-Mamba, as `dynamic_network_architectures` takes them."""
    return {
        "conv_op": convert_dim_to_conv_op(dims),
        "conv_bias": True,
        "norm_op": get_matching_instancenorm(dimension=dims),
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"negative_slope": NEGATIVE_SLOPE, "inplace": True},
    }


class ProjectedBlock(nn.Module):
    """First block of a stage of March 2024: conv-IN-LeakyReLU-conv-IN plus a bare 1x1 convolution, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        dims, padding = len(kernel), tuple(side // 2 for side in kernel)
        conv, norm = convert_dim_to_conv_op(dims), get_matching_instancenorm(dimension=dims)
        self.conv1 = conv(in_channels, out_channels, kernel, stride, padding)
        self.norm1 = norm(out_channels, affine=True)
        self.conv2 = conv(out_channels, out_channels, kernel, 1, padding)
        self.norm2 = norm(out_channels, affine=True)
        self.conv3 = conv(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, D, *S / stride)."""
        y = leaky_relu(self.norm1(self.conv1(x)), NEGATIVE_SLOPE)
        return leaky_relu(self.norm2(self.conv2(y)) + self.conv3(x), NEGATIVE_SLOPE)


class NearestUpsample(nn.Module):
    """Nearest neighbours, then a 1x1 convolution; (B, C, *S) -> (B, D, *S * stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(float(factor) for factor in stride)
        self.conv = convert_dim_to_conv_op(len(stride))(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=self.stride))


def make_stem(plan: StagePlan, input_channels: int) -> nn.Module:
    """Image -> the first stage's input, at stride 1."""
    ones = (1,) * plan.dims
    if plan.release == "2024-03":
        return make_stage(plan, plan.encoder_blocks[0], input_channels, plan.widths[0], plan.kernels[0], ones)
    return StackedConvBlocks(
        1,
        input_channels=input_channels,
        output_channels=plan.widths[0],
        kernel_size=plan.kernels[0],
        initial_stride=ones,
        **convolution_settings(plan.dims),
    )


def make_stage(
    plan: StagePlan, n_blocks: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Module:
    """Residual blocks of one resolution."""
    settings = convolution_settings(plan.dims)
    stage: nn.Module
    if plan.release == "2024-03":
        further = (
            BasicBlockD(
                input_channels=out_channels,
                output_channels=out_channels,
                kernel_size=kernel,
                stride=(1,) * plan.dims,
                **settings,
            )
            for _ in range(n_blocks - 1)
        )
        stage = nn.Sequential(ProjectedBlock(in_channels, out_channels, kernel, stride), *further)
    else:
        stage = StackedResidualBlocks(
            n_blocks,
            input_channels=in_channels,
            output_channels=out_channels,
            kernel_size=kernel,
            initial_stride=stride,
            **settings,
        )
    for block in stage.modules():
        if isinstance(block, BasicBlockD) and not isinstance(block.skip, nn.Module):
            block.skip = nn.Identity()  # its lambda would keep the network from being pickled
    return stage


def make_upsampling(plan: StagePlan, in_channels: int, out_channels: int, stride: Sequence[int]) -> nn.Module:
    """From one stage's resolution to that of the next finer one."""
    if plan.release == "2024-03":
        return NearestUpsample(in_channels, out_channels, stride)
    return get_matching_convtransp(dimension=plan.dims)(in_channels, out_channels, stride, stride)


class UMambaEncoder(Recomputing):
    """Image -> one map per stage, finest first, the bottleneck last.

    Attributes:
        mamba_layers: one per stage, `nn.Identity` where there is none.
    """

    def __init__(
        self, plan: StagePlan, input_channels: int, mamba_layers: Sequence[nn.Module], gradient_checkpointing: bool
    ) -> None:
        super().__init__(gradient_checkpointing)
        self.stem = make_stem(plan, input_channels)
        widths_before = (plan.widths[0], *plan.widths)
        self.stages = nn.ModuleList(
            make_stage(plan, *each)
            for each in zip(plan.encoder_blocks, widths_before, plan.widths, plan.kernels, plan.strides)
        )
        self.mamba_layers = nn.ModuleList(mamba_layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S), multiples of the coarsest stride -> (B, widths[i], *S / map_strides[i])."""
        maps = []
        x = self.run(self.stem, x)
        for stage, mamba_layer in zip(self.stages, self.mamba_layers):
            x = self.run(mamba_layer, self.run(stage, x))
            maps.append(x)
        return maps


class UMambaDecoder(Recomputing):
    """Maps -> logits: upsampling, concatenation and residual blocks per step, a head on each."""

    def __init__(self, plan: StagePlan, num_classes: int, deep_supervision: bool, gradient_checkpointing: bool) -> None:
        super().__init__(gradient_checkpointing)
        self.deep_supervision = deep_supervision
        self.without_finest_skip = plan.without_finest_skip
        below, here = plan.widths[:0:-1], plan.widths[-2::-1]
        kernels, strides, ones = plan.kernels[-2::-1], plan.strides[:0:-1], (1,) * plan.dims
        widths_in = [2 * width for width in here]
        if self.without_finest_skip:
            widths_in[-1] = here[-1]
        self.upsample_layers = nn.ModuleList(make_upsampling(plan, *each) for each in zip(below, here, strides))
        self.stages = nn.ModuleList(
            make_stage(plan, *each, ones) for each in zip(plan.decoder_blocks, widths_in, here, kernels)
        )
        conv = convert_dim_to_conv_op(plan.dims)
        self.seg_layers = nn.ModuleList(conv(width, num_classes, 1) for width in here)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Maps (B, C, *S), finest first -> logits, finest first."""
        x, outputs = maps[-1], []
        for step, (upsample, stage) in enumerate(zip(self.upsample_layers, self.stages)):
            x = upsample(x)
            if not (self.without_finest_skip and step == len(self.stages) - 1):
                x = cat((x, maps[-2 - step]), dim=1)
            x = self.run(stage, x)
            outputs.append(x)
        return segment(self.seg_layers, outputs, self.deep_supervision)
