"""Agreement with the authors' networks: outputs, gradients, four optimiser steps."""

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.networks import SwinUMamba, SwinUMambaD
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden

NETWORKS = {"swin_umamba": SwinUMamba, "swin_umamba_d": SwinUMambaD}
TRAJECTORY_CLASSES = 3


def build(network: str, state_dict: dict, *arguments):
    """Our network in eval mode with the authors' weights."""
    ours = NETWORKS[network](*arguments).eval()
    ours.load_state_dict(remap_authors_state_dict(network, state_dict))
    return ours


@pytest.mark.parametrize("name", ["swin_umamba", "swin_umamba_rgb", "swin_umamba_d", "swin_umamba_d_rgb"])
def test_outputs_and_gradients(name):
    case = golden.case(name)
    network = name.removesuffix("_rgb")
    settings = case.settings
    ours = build(
        network, case.state_dict, settings["in_channels"], settings["num_classes"], settings["deep_supervision"]
    )
    with torch.set_grad_enabled(bool(case.gradients)):
        outputs = ours(case.image)
    outputs = outputs if settings["deep_supervision"] else [outputs]
    assert len(outputs) == len(case.outputs)
    for found, expected in zip(outputs, case.outputs):
        assert golden.relative_error(found, expected) < golden.OUTPUT
    if not case.gradients:
        return
    sum((y * cotangent).sum() for y, cotangent in zip(outputs, case.cotangents)).backward()
    parameters = dict(ours.named_parameters())
    our_name = dict(zip(case.state_dict, remap_authors_state_dict(network, case.state_dict)))
    errors = {key: golden.relative_error(parameters[our_name[key]].grad, case.gradients[key]) for key in case.gradients}
    if max(errors.values()) < golden.GRADIENT:
        return
    # Swin-UMamba's bottleneck is 2x3 positions between InstanceNorms and LeakyReLUs here, and a sum taken in another
    # order (another number of threads) can tip one of them over its kink: the stored float32 gradients are themselves
    # 8e-3 from float64.  Then ours must be no farther from float64 than they are.
    exact = gradients_in_float64(network, case)
    for key, expected in case.gradients.items():
        allowed = max(golden.GRADIENT, golden.relative_error(expected, exact[our_name[key]]))
        assert golden.relative_error(parameters[our_name[key]].grad, exact[our_name[key]]) < allowed, (key, errors[key])


def gradients_in_float64(network: str, case: golden.GoldenCase) -> dict[str, torch.Tensor]:
    """Gradients of the same case, by our names, with the plain loop."""
    settings = case.settings
    ours = NETWORKS[network](
        settings["in_channels"], settings["num_classes"], settings["deep_supervision"], backend="reference"
    )
    ours.load_state_dict(remap_authors_state_dict(network, case.state_dict))
    outputs = ours.eval().double()(case.image.double())
    sum((y * cotangent).sum() for y, cotangent in zip(outputs, case.cotangents)).backward()
    return {name: parameter.grad for name, parameter in ours.named_parameters()}


@pytest.mark.parametrize("network", list(NETWORKS))
def test_four_steps_of_training(network):
    """nnU-Net's loss, AdamW, clipping and the frozen encoder, as golden/README.md describes them."""
    pytest.importorskip("nnunetv2")
    expected = golden.stored(f"trajectory_{network}")
    ours = build(network, golden.weights(trajectory_shapes(network)), 1, TRAJECTORY_CLASSES, True)
    loss_function = nnunet_loss()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-4, eps=1e-5, weight_decay=0.05)
    losses, norms = [], []
    for step in range(4):
        for parameter in ours.freezable_parameters():
            parameter.requires_grad_(step >= 2)
        optimizer.zero_grad(set_to_none=True)
        outputs = ours(golden.array(f"traj{step}", (2, 1, 64, 64)))
        loss = loss_function(outputs, targets(step, outputs))
        loss.backward()
        losses.append(loss.detach())
        norms.append(torch.nn.utils.clip_grad_norm_(ours.parameters(), 12))
        optimizer.step()
    ours.decoder.deep_supervision = False
    with torch.no_grad():
        output = ours(golden.array("traj_final", (2, 1, 64, 64)))
    np.testing.assert_allclose(torch.stack(losses), expected["losses"], rtol=golden.TRAJECTORY_LOSS)
    np.testing.assert_allclose(torch.stack(norms), expected["grad_norms"], rtol=golden.TRAJECTORY_NORM)
    assert golden.relative_error(output, expected["final_output"]) < golden.TRAJECTORY_OUTPUT


def trajectory_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """The manifest's inventory with the trajectory's number of classes."""
    heads = ("out_layers.", "decoder.seg_layers.")
    return {
        key: (TRAJECTORY_CLASSES, *shape[1:]) if key.startswith(heads) else shape
        for key, shape in golden.shapes(network).items()
    }


def nnunet_loss():
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    return DeepSupervisionWrapper(loss, (4 / 7, 2 / 7, 1 / 7, 0.0))


def targets(step: int, outputs) -> list[torch.Tensor]:
    coarse = golden.array(f"label{step}", (2, 1, 8, 8)).numpy()
    labels = np.clip(np.round(np.kron(coarse, np.ones((8, 8), np.float32)) + 1), 0, 2)
    strides = [labels.shape[-1] // y.shape[-1] for y in outputs]
    return [torch.from_numpy(np.ascontiguousarray(labels[:, :, ::s, ::s])) for s in strides]
