"""What the scan costs on a CPU: by stage of a network, beside what else runs there, and of a whole network.

What is compared with each other takes turns, call by call, so that whatever else the machine does meets all alike.
"""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from swin_umamba_nnunet.ops import resolve_backend, selective_scan, selective_scan_2d
from tests.speed.clock import interleaved_milliseconds
from tests.speed.models import CHANNELS, CLASSES
from tests.speed.networks import inference, training_step
from tests.speed.record import CORE, EAGER, FUSED, INFERENCE, STEP, Figure
from tests.speed.scans import STAGES, STATES, core_weights

IMAGE = (160, 160)  # pixels of the networks' images; the stages are theirs
SMALLEST = (1, 2, 2, 192)  # an image without work: what a call costs
SEQUENCE = (1, 384, 400, STATES)  # batch, channels, steps, states of the comparison with other code
CONTROLS = ("SwinUMambaD", "SwinUMamba")
BATCH = 2


def stages(seconds: float, say: Callable[[str], None]) -> Iterator[Figure]:
    """The scan with its projections at the shapes of a network's stages, forward, and forward and backward."""
    say(f"\nThe scan with its projections by stage of a network ({IMAGE[0]}x{IMAGE[1]} pixels, the first stage also of "
        "256x256 and 320x320),\nbatch 1, G state-steps/s:\n")  # fmt: skip
    say(f"  {'H x W x D':14s} {'forward':>10s} {'forward+backward':>18s}")
    shapes = [(1, size // 4, size // 4, STAGES[0][1]) for size in (320, 256)]
    shapes += [(1, IMAGE[0] // stride, IMAGE[1] // stride, channels) for stride, channels in STAGES]
    for shape in shapes:
        times = interleaved_milliseconds(_both_passes(shape), seconds)
        rates = []
        for passes, milliseconds in times.items():
            steps = 4 * STATES * torch.Size(shape).numel()
            rates.append(steps / milliseconds / 1e6)
            yield Figure(CORE, FUSED, EAGER, passes, "float32", 1, shape[1:3], 1, shape[3],
                         resolve_backend(None, "cpu"), milliseconds, giga_state_steps=rates[-1])  # fmt: skip
        say(f"  {'x'.join(map(str, shape[1:])):14s} {rates[0]:10.2f} {rates[1]:18.2f}")
    times = interleaved_milliseconds(_both_passes(SMALLEST), seconds)
    say("  a call for {}x{}x{}, where there is nothing to do: {:.2f} ms, and with backward {:.2f} ms".format(
        *SMALLEST[1:], *times.values()))  # fmt: skip


def _both_passes(shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    arguments = [torch.randn(shape), *core_weights(shape[-1])]
    leaves = [a.clone().requires_grad_() for a in arguments]
    cotangent = torch.randn(shape)

    @torch.no_grad()
    def forward() -> Tensor:
        return selective_scan_2d(*arguments)

    return {
        "forward": forward,
        "forward+backward": lambda: torch.autograd.grad(selective_scan_2d(*leaves), leaves, cotangent),
    }


def plain_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Tensor:
    """The form of mamba_ssm's `selective_scan_ref`: decays of all steps at once, then a loop over the steps."""
    delta = softplus(delta + delta_bias[:, None])
    decays = torch.exp(delta[..., None] * A[:, None])  # (batch, dim, L, N)
    inputs = (delta * u)[..., None] * B.transpose(1, 2)[:, None]
    state = torch.zeros_like(decays[:, :, 0])
    outputs = []
    for step in range(u.shape[2]):
        state = decays[:, :, step] * state + inputs[:, :, step]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, step]))
    return torch.stack(outputs, dim=2) + D[:, None] * u


def parallel_scan(pscan: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The same function around mambapy's `pscan(decays, inputs)`, both (batch, L, dim, N), as mambapy calls it."""

    def scan(u, delta, A, B, C, D, delta_bias):  # type: ignore[no-untyped-def]
        u, delta, B, C = (t.transpose(1, 2) for t in (u, delta, B, C))
        delta = softplus(delta + delta_bias)
        states = pscan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None])
        return ((states @ C[..., None]).squeeze(3) + D * u).transpose(1, 2)

    return scan


def others(seconds: float, say: Callable[[str], None]) -> None:
    """What people run on a CPU, on the same sequence: how many times longer it takes than the scan here."""
    batch, channels, length, states = SEQUENCE

    def here(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor) -> Any:
        return selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=True)

    functions: dict[str, Callable[..., Any]] = {"here": here, "plain loop": plain_loop}
    missing = ""
    try:
        functions["mambapy's parallel scan"] = parallel_scan(importlib.import_module("mambapy.pscan").pscan)
    except ImportError:
        missing = "  mambapy's parallel scan: skipped, mambapy is not installed (pip install --no-deps mambapy)"
    leaves = [
        torch.randn(batch, channels, length), torch.randn(batch, channels, length),
        -torch.arange(1.0, states + 1).expand(channels, states).contiguous(), torch.randn(batch, states, length),
        torch.randn(batch, states, length), torch.ones(channels), torch.randn(channels) - 4,
    ]  # fmt: skip
    leaves = [leaf.requires_grad_() for leaf in leaves]
    cotangent = torch.randn(batch, channels, length)
    calls: dict[str, Callable[[], Any]] = {}
    for name, function in functions.items():

        def forward(function: Callable[..., Any] = function) -> Any:
            with torch.no_grad():
                return function(*leaves)

        def both(function: Callable[..., Any] = function) -> Any:
            return torch.autograd.grad(function(*leaves), leaves, cotangent)

        calls |= {f"{name}, forward": forward, f"{name}, both": both}
    times = interleaved_milliseconds(calls, seconds)
    say(f"\nBeside other code, one sequence of {length} steps with {channels} channels and {states} states, float32:\n")
    say(f"  {'':24s} {'forward':>12s} {'forward+backward':>18s}")
    ratios = [{n: times[f"{n}, {p}"] / times[f"here, {p}"] for n in functions} for p in ("forward", "both")]
    say(f"  {'here':24s} {times['here, forward']:9.3g} ms {times['here, both']:15.3g} ms")
    for name in list(functions)[1:]:
        say(f"  {name:24s} {ratios[0][name]:6.1f} times {ratios[1][name]:12.1f} times as long")
    if missing:
        say(missing)


def controls(seconds: float, say: Callable[[str], None]) -> Iterator[Figure]:
    """Whole networks beside themselves without scans (`mixing="skip"`): a training step, and inference."""
    from swin_umamba_nnunet import networks

    say(f"\nWhole networks beside their controls without scans, batch {BATCH} of {IMAGE[0]}x{IMAGE[1]}, float32, ms:\n")
    say(f"  {'':13s} {'passes':14s} {'with scans':>11s} {'control':>9s} {'ratio':>6s}")
    images = torch.randn(BATCH, CHANNELS, *IMAGE)
    for name in CONTROLS:
        calls: dict[str, Callable[[], Any]] = {}
        for mixing in ("scan", "skip"):
            torch.manual_seed(0)
            network = getattr(networks, name)(CHANNELS, CLASSES, True, mixing=mixing)
            step = training_step(network, network, images, "cpu", torch.float32)
            predict = inference(network, images, "cpu", torch.float32)
            calls[f"{STEP} {mixing}"] = _switched(network, True, step)
            calls[f"{INFERENCE} {mixing}"] = _switched(network, False, predict)
        times = interleaved_milliseconds(calls, 4 * seconds)
        for passes in (STEP, INFERENCE):
            with_scans, control = times[f"{passes} scan"], times[f"{passes} skip"]
            say(f"  {name:13s} {passes:14s} {with_scans:11.0f} {control:9.0f} {with_scans / control:6.2f}")
            for what, milliseconds in ((name, with_scans), (f"{name} without scans", control)):
                yield Figure(what, FUSED, EAGER, passes, "float32", BATCH, IMAGE, milliseconds=milliseconds)


def _switched(network: Any, training: bool, call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, with the network set up for training with deep supervision or for inference."""

    def run() -> None:
        network.train(training)
        network.decoder.deep_supervision = training
        call()

    return run
