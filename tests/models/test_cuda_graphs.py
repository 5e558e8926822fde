"""Calls through recorded graphs: the same logits, what is recorded anew, and what goes straight through.

On a CPU the recorder traces the call to torch's own operations and replays these: as a CUDA graph it runs no Python of
the network again, and reads the weights where they were when it was recorded.
"""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from swin_umamba_nnunet.models.cuda_graphs import GraphedNetwork, record_on_cuda
from swin_umamba_nnunet.networks import SwinUMambaD

SHAPE = (2, 1, 6, 8)
TINY = {"depths": (1, 1), "width": 16, "d_state": 2, "decoder_depth": 1}


class Small(nn.Module):
    """A network that counts its calls in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.register_buffer("offset", torch.zeros(1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.conv(x) + self.offset


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Small().eval()


class Recorder:
    """Records as described above, and counts."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def __call__(self, run, device):
        self.recordings += 1
        output = run().clone()
        traced = make_fx(run)()

        def replay():
            self.replays += 1
            output.copy_(traced())

        return replay, output


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def graphed(network, recorder):
    return GraphedNetwork(network, record=recorder, device_type="cpu")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_replays_give_the_networks_own_logits(mode, dtype, graphed, network, recorder):
    with mode(), torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        found = []
        for _ in range(3):
            x = torch.randn(SHAPE)
            found.append((graphed(x), network(x)))
        for logits, expected in found:  # after all calls: an output that were overwritten would show
            assert logits.dtype == expected.dtype
            assert torch.equal(logits, expected)
    assert (recorder.recordings, recorder.replays) == (1, 3)
    assert network.calls == 2 + 3  # once to warm up, once to record, and our own three


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_weights_loaded_in_place_are_seen_under_autocast_too(dtype, graphed, network, recorder):
    other = Small().eval()
    x = torch.randn(SHAPE)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype or torch.float16, enabled=dtype is not None):
        network(x)  # now autocast's cache holds half-precision weights
        first = graphed(x)
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype or torch.float16, enabled=dtype is not None):
        network.load_state_dict(other.state_dict())  # as nnU-Net between folds
        assert torch.equal(graphed(x), other(x))
        assert not torch.equal(first, other(x))
    assert recorder.recordings == 1


def test_autocasts_cache_is_off_in_a_recording_and_as_it_was_after(network):
    """What it holds would be recorded: half-precision copies of these weights, whatever is loaded later."""
    seen = []

    def record(run, device):
        network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_cache_enabled()))
        return lambda: None, run()

    graphed = GraphedNetwork(network, record=record, device_type="cpu")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.float16):
        graphed(torch.randn(SHAPE))
        assert seen == [False]
        assert torch.is_autocast_cache_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.float16
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda network: network.load_state_dict(Small().state_dict(), assign=True),
        lambda network: setattr(network.conv.weight, "data", torch.ones_like(network.conv.weight)),
        lambda network: setattr(network, "offset", torch.ones(1)),
        lambda network: setattr(network.conv, "bias", None),
    ],
    ids=["assigned", "moved", "buffer", "removed"],
)
def test_weights_elsewhere_are_recorded_anew(change, graphed, network, recorder):
    x = torch.randn(SHAPE)
    with torch.no_grad():
        graphed(x)
        change(network)
        assert torch.equal(graphed(x), network(x))
        graphed(x)
    assert recorder.recordings == 2


def test_one_graph_for_each_kind_of_call(network, recorder):
    graphed = GraphedNetwork(network, record=recorder, device_type="cpu", limit=9)
    for _ in range(2):
        for mode in (torch.no_grad, torch.inference_mode):
            for dtype in (None, torch.float16, torch.bfloat16):
                with mode(), torch.autocast("cpu", dtype=dtype or torch.float16, enabled=dtype is not None):
                    assert torch.equal(graphed(torch.ones(SHAPE)), network(torch.ones(SHAPE)))
        with torch.no_grad():
            graphed(torch.ones(2, 1, 7, 8))
            graphed(torch.ones(1, 1, 6, 8))
    assert (recorder.recordings, recorder.replays) == (8, 16)


def test_beyond_the_limit_calls_are_ordinary_ones(network, recorder, caplog):
    graphed = GraphedNetwork(network, record=recorder, device_type="cpu", limit=2)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for size in (4, 5, 6, 7, 4):
            x = torch.randn(1, 1, size, 8)
            assert torch.equal(graphed(x), network(x))
    assert (recorder.recordings, recorder.replays) == (2, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "2 CUDA graphs are recorded already; images of shape (1, 1, 6, 8) and other new ones are predicted without"
    ]
    graphed.clear()
    with torch.no_grad():
        graphed(torch.randn(1, 1, 7, 8))
    assert recorder.recordings == 3


def test_what_cannot_be_recorded_is_called_as_it_is_after_one_line(network, caplog):
    tried = []

    def record(run, device):
        tried.append(device)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    graphed = GraphedNetwork(network, record=record, device_type="cpu")
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            x = torch.randn(SHAPE)
            assert torch.equal(graphed(x), network(x))
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"no CUDA graph for an image of shape {SHAPE}, predicting without (RuntimeError: operation not permitted when "
        "stream is capturing)"
    ]


def test_an_error_of_the_network_reaches_the_caller(graphed):
    with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
        graphed(torch.randn(1, 2, 6, 8))


def test_straight_through_in_training_with_gradients_and_elsewhere(network, recorder):
    graphed = GraphedNetwork(network, record=recorder, device_type="cpu")
    x = torch.randn(SHAPE)
    graphed(x).sum().backward()
    assert network.conv.weight.grad is not None
    network.train()
    with torch.no_grad():
        graphed(x)
        network.eval()
        GraphedNetwork(network, record=recorder)(x)  # records on CUDA only
    assert recorder.recordings == 0
    assert network.calls == 3


def test_one_of_our_networks_and_its_heads(recorder):
    torch.manual_seed(0)
    network = SwinUMambaD(1, 3, **TINY).eval()
    other = copy.deepcopy(network)
    nn.init.normal_(other.encoder.layers[0].blocks[0].self_attention.A_logs)
    graphed = GraphedNetwork(network, record=recorder, device_type="cpu")
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.float16):
        for _ in range(2):
            x = torch.randn(2, 1, 20, 24)
            assert torch.equal(graphed(x), network(x))
        network.load_state_dict(other.state_dict())
        assert torch.equal(graphed(x), other(x))
        network.decoder.deep_supervision = True
        assert len(graphed(x)) == 2  # heads: not recorded
    assert recorder.replays == 3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_on_a_gpu(dtype, caplog):
    """Unverified until it has run on one."""
    torch.manual_seed(0)
    network, other = (SwinUMambaD(1, 3, **TINY).eval().cuda() for _ in range(2))
    graphed = GraphedNetwork(network)
    with torch.inference_mode(), torch.autocast("cuda", dtype=dtype or torch.float16, enabled=dtype is not None):
        with caplog.at_level(logging.WARNING):
            for batch in (4, 8, 4):
                x = torch.randn(batch, 1, 36, 40, device="cuda")
                torch.testing.assert_close(graphed(x), network(x))
        assert not caplog.records  # recorded, not fallen back
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(graphed(x), other(x))


@pytest.mark.gpu
def test_a_failed_recording_leaves_the_gpu_usable():
    """Unverified until it has run on one."""
    device = torch.device("cuda", torch.cuda.current_device())
    x, before = torch.ones(4, device=device), torch.cuda.current_stream()
    with pytest.raises(Exception, match="."):  # torch words it differently in every version
        record_on_cuda(lambda: x * x.sum().item(), device)
    assert torch.cuda.current_stream() == before
    assert float((x + 1).sum()) == 8
