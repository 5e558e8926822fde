"""Four steps of the authors' training, repeated by the trainer: loss, heads' weights, freezing, clip, AdamW."""

import json

import numpy as np
import pytest
import torch

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden

CLASSES = 3


@pytest.fixture(scope="module")
def recipe():
    return golden.recipe()


def golden_weights(recipe, network: str) -> dict[str, torch.Tensor]:
    """The authors' weights at one channel and `CLASSES` classes, under our names."""
    shapes = json.loads((golden.FOLDER / "manifest.json").read_text())[network]["state_dict"]
    tensors = {key: torch.empty(shape) for key, shape in shapes.items()}
    heads = [id(tensor) for key, tensor in remap_authors_state_dict(network, tensors).items() if "seg_layers" in key]
    for key, tensor in tensors.items():
        if id(tensor) in heads:  # another number of classes than in the manifest
            shapes[key] = (CLASSES, *shapes[key][1:])
    theirs = recipe.golden_state_dict(shapes, seed=0)
    return remap_authors_state_dict(network, {key: torch.from_numpy(value) for key, value in theirs.items()})


def golden_batch(recipe, step: int, scales) -> dict:
    coarse = recipe.golden_input(f"label{step}", (2, 1, 8, 8))
    labels = np.clip(np.round(np.kron(coarse, np.ones((8, 8), np.float32)) + 1), 0, 2)
    strides = [round(1 / rows) for rows, _ in scales]
    targets = [torch.from_numpy(np.ascontiguousarray(labels[..., ::s, ::s])) for s in strides]
    return {"data": torch.from_numpy(recipe.golden_input(f"traj{step}", (2, 1, 64, 64))), "target": targets}


@pytest.mark.parametrize(
    ("network", "name"), [("swin_umamba", "nnUNetTrainerSwinUMamba"), ("swin_umamba_d", "nnUNetTrainerSwinUMambaD")]
)
def test_trajectory(network, name, recipe, make_trainer, monkeypatch):
    expected = np.load(golden.FOLDER / f"trajectory_{network}.npz")
    norms = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils, "clip_grad_norm_", lambda *given, **settings: norms.append(clip(*given, **settings))
    )

    trainer = make_trainer(getattr(trainers, name), (64, 64))
    trainer.initialize()
    trainer.network.load_state_dict(golden_weights(recipe, network))
    trainer.network.eval()  # as the golden steps: no DropPath
    held = trainer.encoder_frozen_until()
    scales = trainer._get_deep_supervision_scales()
    losses = []
    for step in range(4):
        trainer.current_epoch = 0 if step < 2 else held  # the learning rate is not stepped
        losses.append(float(trainer.train_step(golden_batch(recipe, step, scales))["loss"]))
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-3)
    np.testing.assert_allclose(norms, expected["grad_norms"], rtol=1e-2)
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        output = trainer.network(torch.from_numpy(recipe.golden_input("traj_final", (2, 1, 64, 64)))).numpy()
    error = np.linalg.norm(output - expected["final_output"]) / np.linalg.norm(expected["final_output"])
    assert error < 1e-2
