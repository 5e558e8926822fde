"""What holds for every network at any size, number of channels and classes, batch and dtype; drawn with fixed seeds."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from swin_umamba_nnunet import networks
from swin_umamba_nnunet.networks import (
    SwinUMamba,
    SwinUMambaD,
    SwinUMambaDV2,
    SwinUMambaV2,
    UMambaBot,
    UMambaEnc,
    VMUNet,
)
from tests import golden
from tests.messages import raises
from tests.plans import planned

# Not narrower: with fewer than 8 channels, torch 2.15's backward of strided 1x1 convolutions corrupts the heap on CPUs.
SMALL = {"depths": (1, 1, 1), "width": 16}
SCANS = {"d_state": 2, **SMALL}
VMAMBA = {
    "SwinUMamba": (SwinUMamba, SCANS),
    "SwinUMambaD": (SwinUMambaD, {"decoder_depth": 1, **SCANS}),
    "SwinUMambaV2": (SwinUMambaV2, SMALL),
    "SwinUMambaDV2": (SwinUMambaDV2, {"decoder_depth": 1, "expand": 2, **SMALL}),
    "VMUNet": (VMUNet, {"depths_decoder": (1, 1, 1), **SCANS}),
}
VMAMBA |= {f"{name}-no-scan": (cls, {**kw, "mixing": "skip"}) for name, (cls, kw) in VMAMBA.items() if "Swin" in name}
UMAMBA = {
    f"{cls.__name__}-{release}{'' if mamba else '-no-mamba'}": (cls, {"release": release, "mamba": mamba})
    for cls in (UMambaBot, UMambaEnc)
    for release in ("2024-03", "2024-01")
    for mamba in (True, False)
}
DIMS = dict.fromkeys((*VMAMBA, *UMAMBA), 2) | {f"{name}-3D": 3 for name in UMAMBA if "no-mamba" not in name}


def test_every_network_is_in_here():
    """A network that is added later has to hold to these properties too."""
    public = [getattr(networks, name) for name in networks.__all__ if not name.startswith("VSSM")]
    here = {cls for cls, _ in (*VMAMBA.values(), *UMAMBA.values())}
    assert {each for each in public if isinstance(each, type)} == here


@dataclass(frozen=True)
class Draw:
    """One network and one batch.

    Attributes:
        name: of the network.
        size: (H, W) or (D, H, W) of the images in pixels.
    """

    name: str
    size: tuple[int, ...]
    channels: int
    classes: int
    batch: int

    def network(self, deep_supervision=False, **more):
        torch.manual_seed(0)
        cls, settings = (VMAMBA | UMAMBA)[self.name.removesuffix("-3D")]
        plans = {} if "depths" in settings else planned(self.size, (8, 12, 16))
        settings = {**plans, **settings, **more}
        return cls(self.channels, self.classes, deep_supervision, **settings)

    def images(self):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, self.channels, *self.size, generator=generator)

    def __str__(self):
        return f"{self.name}: {self.batch}x{self.channels}x{'x'.join(map(str, self.size))}, {self.classes} classes"


EDGES = ((20, 200, 1), (1, 2, 2))  # channels, classes, batch: the largest anybody has asked for, and the usual


def draws(name):
    """The edges first: one pixel in every direction, one in a single direction; then whatever comes."""
    axes = DIMS[name]
    random = np.random.default_rng(list(name.encode()))
    for i in range(3):
        size = random.integers(1, 14 if axes == 3 else 40, axes)
        if i < 2:
            size[random.integers(axes) if i else slice(None)] = 1
        channels, classes, batch = EDGES[i] if i < 2 else (*random.integers((1, 2), (6, 7)), random.integers(2, 4))
        yield Draw(name, tuple(map(int, size)), int(channels), int(classes), int(batch))


every_draw = pytest.mark.parametrize("draw", [draw for name in DIMS for draw in draws(name)], ids=str)
of_every_network = pytest.mark.parametrize("draw", [next(draws(name)) for name in DIMS], ids=str)


def strides_of(network, axes):
    return [(stride,) * axes if isinstance(stride, int) else tuple(stride) for stride in network.head_strides]


@every_draw
def test_shapes_values_and_gradients_in_training(draw):
    """In float32, then under autocast: the gradients are those of the float32 parameters."""
    network, images = draw.network(deep_supervision=True), draw.images()
    kept = images.clone()
    images.requires_grad_()
    strides = strides_of(network, len(draw.size))
    sizes = [tuple(-(-side // step) for side, step in zip(draw.size, stride)) for stride in strides]
    # PyTorch's own bfloat16 convolution in 3D now and then leaves weights of so small an image without a gradient
    for dtype in (None, torch.float16, torch.bfloat16)[: 2 if len(draw.size) == 3 else 3]:
        network.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            outputs = network(images)
        assert [tuple(y.shape) for y in outputs] == [(draw.batch, draw.classes, *size) for size in sizes]
        assert all(y.isfinite().all() for y in outputs)
        sum(y.float().square().mean() for y in outputs).backward()
        gradients = {name: p.grad for name, p in network.named_parameters()}
        assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
        assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert images.grad.isfinite().all()
    assert torch.equal(images, kept)  # nothing writes into its input


@every_draw
def test_what_changes_no_output(draw, tmp_path):
    """Inference: the same again, for each image alone, in other strides of memory, padded, precise, from a file."""
    network, images = draw.network(deep_supervision=True).eval(), draw.images()
    stride = network.stride
    strides = (stride,) * len(draw.size) if isinstance(stride, int) else stride
    size = tuple(-(-side // step) * step for side, step in zip(draw.size, strides))
    padded = torch.zeros(draw.batch, draw.channels, *size)  # what the network pads itself
    inside = (..., *(slice(side) for side in draw.size))
    padded[inside] = images
    same = [network]
    if draw == next(draws(draw.name)):  # once per network: what a file holds does not depend on the image
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        torch.save(network, tmp_path / "network.pt")  # nnU-Net copies networks and sends them to processes
        loaded = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.normal_()
        loaded.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))  # a reader that runs no code
        same += [loaded, torch.load(tmp_path / "network.pt", weights_only=False)]
    strided = images.transpose(2, -1).contiguous().transpose(2, -1)
    with torch.inference_mode():
        finest = network(images)[0]
        for each in same:
            each.decoder.deep_supervision = False
            assert torch.equal(each(images), finest)
        assert torch.equal(network(padded)[inside], finest)
        others = network(images + torch.randn_like(images))
        assert not any(torch.equal(*pair) for pair in zip(others, finest))
        assert golden.relative_error(network(strided), finest) < 1e-3
        assert golden.relative_error(network(images[-1:]), finest[-1:]) < 1e-3
        precise = network.double()(images.double())
        assert precise.dtype == torch.float64
        assert golden.relative_error(finest, precise) < 1e-3


@of_every_network
def test_what_is_no_image_of_its_kind_is_refused(draw):
    network, channels, axes = draw.network(), draw.channels, len(draw.size)
    for shape, facts in (
        ((1, channels, *draw.size, 4), (f"{axes + 3} axes", f"{axes}D network")),
        ((1, channels + 1, *draw.size), (f"{channels + 1} channels",)),
        ((1, channels, *draw.size[:-1], 0), ("empty axis",)),
        ((0, channels, *draw.size), ("empty axis",)),
    ):
        with raises(ValueError, "the image has ", shape, f"expected (B, {channels}, ", *facts):
            network(torch.zeros(shape))


@of_every_network
def test_names_that_nnunet_understands(draw):
    with torch.device("meta"):
        network, other = draw.network(deep_supervision=True), draw.network()
    names = list(network.state_dict())
    assert names == list(other.state_dict())  # heads exist with and without deep supervision
    assert all(name.startswith(("encoder.", "decoder.")) for name in names)
    heads = network.decoder.seg_layers
    assert [name for name in names if ".seg_layers." in name] == [
        f"decoder.seg_layers.{i}.{leaf}" for i in range(len(network.head_strides)) for leaf in ("weight", "bias")
    ]
    assert {head.out_channels for head in heads} == {draw.classes}
    widths = [head.in_channels for head in heads]
    assert widths == sorted(widths, reverse=True)  # coarsest first, as in nnU-Net's decoders
    strides = strides_of(network, len(draw.size))
    for scale, stride in zip(network.deep_supervision_scales, strides, strict=True):
        assert np.array_equal(np.broadcast_to(scale, len(stride)), 1 / np.array(stride))


@of_every_network
def test_the_backend_is_passed_down(draw):
    network = draw.network(backend="no_such_backend")
    scans = [part for part in network.modules() if hasattr(part, "backend")]
    assert {part.backend for part in scans} <= {"no_such_backend"}
    if draw.name.removesuffix("-3D").endswith(("-no-scan", "-no-mamba")):  # the controls ask for none
        network.eval()(draw.images())
    else:
        assert scans
        with raises(ValueError, "no_such_backend"):
            network(draw.images())
