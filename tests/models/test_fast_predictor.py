"""The predictor that calls the network less often gives what nnU-Net's own gives."""

import functools
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import interpolate

from swin_umamba_nnunet.models.fast_predictor import FastPredictor
from swin_umamba_nnunet.networks import SwinUMambaD, UMambaEnc
from tests.messages import raises
from tests.plans import planned

HEADS = 3
CPU = torch.device("cpu")


class Lopsided(nn.Module):
    """A small network of which no output is the mirror image of another, and which notes the batches it is given.

    It is float64 inside, so that the batch size does not change what it returns.
    """

    def __init__(self, channels=1, dims=2, at_most=math.inf):
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = convolution(channels, HEADS, 3, padding=1)
        self.batches: list[int] = []
        self.at_most = at_most

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.at_most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        y = self.conv.double()(x.double())
        return (y + torch.arange(y.shape[-1]) * y.abs().mean(dim=(1, 2), keepdim=True)).float()


def load(cls, network, patch=(16, 20), axes=(0, 1), weights=None, **settings):
    """A predictor with the network in it, as nnU-Net's trainer fills it."""
    predictor = cls(device=CPU, perform_everything_on_device=False, allow_tqdm=False, **settings)
    plans = SimpleNamespace(get_label_manager=lambda _: SimpleNamespace(num_segmentation_heads=HEADS))
    weights = weights or [network.state_dict()]
    predictor.manual_initialization(network, plans, SimpleNamespace(patch_size=list(patch)), weights, {}, "Any", axes)
    network.eval()
    return predictor


def volume(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def assert_same(network, image, *where, images_per_call=8, **settings):
    """nnU-Net's logits, which are ours too, from the same number of images in fewer calls."""
    network.batches = []
    expected = load(nnUNetPredictor, network, *where, **settings).predict_logits_from_preprocessed_data(image)
    images, network.batches = sum(network.batches), []
    found = load(FastPredictor, network, *where, images_per_call=images_per_call, **settings)
    assert torch.equal(found.predict_logits_from_preprocessed_data(image), expected)
    assert sum(network.batches) == images
    return expected


@pytest.mark.parametrize("images_per_call", [None, 1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("axes", [(0, 1), (0,), (1,), None])
def test_volumes_in_2d(images_per_call, axes):
    """Odd sizes, two channels, as many slices as do not fill the last call."""
    network = Lopsided(channels=2)
    logits = assert_same(network, volume(2, 5, 37, 29), axes=axes, images_per_call=images_per_call)
    assert logits.shape == (HEADS, 5, 37, 29)
    at_most = 1 << ((images_per_call or 1).bit_length() - 1)
    assert max(network.batches) == min(at_most, 5 * 2 ** len(axes or ()))


@pytest.mark.parametrize("images_per_call", [1, 4, 8])
def test_volumes_in_3d(images_per_call):
    network = Lopsided(dims=3)
    assert_same(network, volume(1, 11, 18, 22), (8, 16, 20), (0, 1, 2), images_per_call=images_per_call)
    assert set(network.batches) == {images_per_call}


@pytest.mark.parametrize(
    ("shape", "settings"),
    [((1, 1, 40, 50), {"use_mirroring": False}), ((1, 3, 7, 9), {"use_gaussian": False})],  # smaller than a patch
)
def test_nnunets_settings(shape, settings):
    assert_same(Lopsided(), volume(*shape), **settings)


def test_folds_are_averaged():
    torch.manual_seed(0)
    network, image = Lopsided(), volume(1, 3, 20, 24)
    weights = [Lopsided().state_dict() for _ in range(3)]
    assert not torch.equal(*(assert_same(network, image, weights=each) for each in (weights, weights[:1])))


SMALL = {"depths": (1, 1), "width": 16, "d_state": 2, "decoder_depth": 1}
UMAMBA = planned((32, 40), (8, 12, 16))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [(SwinUMambaD, SMALL), (UMambaEnc, UMAMBA)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_our_networks_to_float_rounding(cls, settings):
    """Before nnU-Net adds windows up in float16: one mirrored window, and three slices of one."""
    torch.manual_seed(0)
    network = cls(2, HEADS, **settings)
    windows = torch.randn(3, 2, 32, 40)
    plain = load(nnUNetPredictor, network, (32, 40))
    expected = torch.cat([plain._internal_maybe_mirror_and_predict(window[None]) for window in windows])
    fast = load(FastPredictor, network, (32, 40), images_per_call=8)
    one = fast._internal_maybe_mirror_and_predict(windows[:1])
    together = fast._internal_maybe_mirror_and_predict(windows.transpose(0, 1)[None])
    scale = float(expected.abs().max())
    torch.testing.assert_close(one, expected[:1], rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(together[0].transpose(0, 1), expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(("at_most", "batches"), [(4, [16, 8, 4]), (3, [16, 8, 4, 2]), (1, [16, 8, 4, 2, 1])])
def test_half_as_many_where_memory_runs_out(at_most, batches, caplog):
    network, image = Lopsided(), volume(1, 6, 16, 20)
    expected = load(nnUNetPredictor, network).predict_logits_from_preprocessed_data(image)
    network.batches, network.at_most = [], at_most
    predictor = load(FastPredictor, network, images_per_call=16)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    assert network.batches[: len(batches)] == batches
    assert set(network.batches[len(batches) :]) == {batches[-1]}  # and it stays so
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"out of GPU memory with {more} images in one call of the network; going on with {less}"
        for more, less in zip(batches, batches[1:])
    ]


def test_one_image_that_does_not_fit_is_an_error():
    predictor = load(FastPredictor, Lopsided(at_most=0), images_per_call=4)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        predictor.predict_logits_from_preprocessed_data(volume(1, 2, 16, 20))


def test_how_many_images_go_together(monkeypatch):
    predictor = load(FastPredictor, Lopsided())
    assert predictor.images_per_call == 1
    predictor.device = torch.device("cuda")
    found = []
    for patch in ((320, 320), (512, 512), (512, 640), (1024, 1024), (64, 128, 128), (128, 128, 128), (2000, 2000)):
        predictor.configuration_manager.patch_size = patch
        found.append(predictor.images_per_call)
    assert found == [8, 8, 4, 2, 2, 1, 1]
    with raises(ValueError, "images_per_call is 0"):
        load(FastPredictor, Lopsided(), images_per_call=0)


@pytest.mark.parametrize("cls", [nnUNetPredictor, FastPredictor])
def test_compiled_as_nnunet_does_it_no_image_size_needs_compiling_again(cls, monkeypatch):
    """All windows have the patch's size.  Still two graphs: of nnU-Net's calls the window itself is no tensor of
    inference mode but its mirror images are; of ours the last slices of a volume may be fewer.
    """
    counting = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counting))
    monkeypatch.setenv("nnUNet_compile", "1")
    torch.compiler.reset()
    torch.manual_seed(0)
    network = SwinUMambaD(1, HEADS, **SMALL)
    settings = {"images_per_call": 8} if cls is FastPredictor else {}
    predictor = load(cls, network, (16, 20), weights=[network.state_dict()] * 2, **settings)
    assert isinstance(predictor.network, torch._dynamo.OptimizedModule)
    for depth, height, width in ((3, 16, 20), (5, 18, 33), (1, 9, 9)):
        predictor.predict_logits_from_preprocessed_data(volume(1, depth, height, width))
    assert counting.frame_count == 2


def test_a_compiled_network_needs_no_compiling_for_each_new_size():
    """Without windows: torch compiles for the first size, then once for any, and is done."""
    counting = CompileCounter()
    torch.compiler.reset()
    torch.manual_seed(0)
    network = SwinUMambaD(1, HEADS, **SMALL).eval()
    compiled = torch.compile(network, backend=counting)
    with torch.inference_mode():
        for size in ((24, 32), (41, 57), (64, 40), (33, 95)):
            x = interpolate(volume(1, 1, 8, 8), size)
            torch.testing.assert_close(compiled(x), network(x))
    assert counting.frame_count == 2
