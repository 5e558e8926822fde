"""The control without scans: what is gone, what is kept, and that it trains as the original does."""

import functools

import pytest
import torch

from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD, SwinUMambaDV2, SwinUMambaV2
from tests.messages import raises

# what training needs of a network, run here on the controls (the fixture below takes the place of conftest's)
from tests.networks.test_training import (  # noqa: F401
    autocasts,
    check_autocast,
    test_exports,
    test_same_seed_same_gradients,
    test_whole_network_in_another_dtype,
)

NETWORKS = [SwinUMamba, SwinUMambaD, SwinUMambaV2, SwinUMambaDV2]
ONLY_THE_SCAN_READS = {"x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs"}


@pytest.fixture(params=[SwinUMamba, SwinUMambaD], ids=lambda cls: cls.__name__)
def network_class(request):
    return functools.partial(request.param, mixing="skip")


def small(cls, mixing):
    torch.manual_seed(0)
    return cls(1, 3, True, depths=(1, 1, 1, 1), width=16, d_state=2, mixing=mixing)


def pair(**settings):
    """A block, and its control with the same weights."""
    torch.manual_seed(0)
    block, control = SS2D(8, d_state=4, **settings), SS2D(8, d_state=4, mixing="skip", **settings)
    with torch.no_grad():
        block.Ds.copy_(torch.randn_like(block.Ds))
    control.load_state_dict(block.state_dict())
    return block, control


@pytest.mark.parametrize("gate", [True, False])
def test_it_is_the_block_whose_states_stay_empty(gate):
    """With step sizes of zero nothing enters a state, and the real scan is its skip term alone."""
    block, control = pair(gate=gate)
    with torch.no_grad():
        block.dt_projs_weight.zero_()
        block.dt_projs_bias.fill_(-1e4)
    x, cotangent = torch.randn(2, 2, 5, 7, 8).unbind()
    torch.testing.assert_close(control(x), block(x))
    for each in (block, control):
        (each(x) * cotangent).sum().backward()
    of_block = dict(block.named_parameters())
    for name, parameter in control.named_parameters():
        torch.testing.assert_close(parameter.grad, of_block[name].grad, msg=name)


def test_the_skip_term_is_in_float32_at_least():
    _, control = pair()
    x = torch.randn(1, 2, 3, 16)
    assert control.scan(x.half()).dtype == torch.float32
    assert control.scan(x.double()).dtype == torch.float64


@pytest.mark.parametrize("cls", NETWORKS)
def test_it_begins_as_the_original_and_trains_all_but_what_the_scan_alone_reads(cls):
    scans, control = small(cls, "scan"), small(cls, "skip")
    before, after = scans.state_dict(), control.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    gone = {name for name, _ in scans.named_parameters()} - {name for name, _ in control.named_parameters()}
    assert gone == {name for name, _ in control.named_buffers()}
    blocks = {name: module.mixing for name, module in control.named_modules() if isinstance(module, SS2D)}
    assert gone == {f"{block}.{leaf}" for block in blocks for leaf in ONLY_THE_SCAN_READS}
    assert {*blocks.values()} == {"skip"}


@autocasts
def test_autocast(tiny_network, dtype, tolerance):
    check_autocast(tiny_network(deep_supervision=True).eval(), dtype, tolerance, factor=10)


def test_another_mixing_is_refused():
    with raises(ValueError, "mixing is 'none'; choose one of scan, skip"):
        SS2D(8, mixing="none")
