"""Four steps of the authors' training, repeated by the trainer: loss, heads' weights, freezing, clip, AdamW."""

import numpy as np
import pytest
import torch

from swin_umamba_nnunet import trainers
from swin_umamba_nnunet.pretrained import remap_authors_state_dict
from tests import golden

CLASSES = 3


def golden_weights(network):
    """The authors' weights at one channel and `CLASSES` classes, under our names."""
    shapes, heads = golden.shapes(network), ("out_layers.", "decoder.seg_layers.")
    theirs = {key: (CLASSES, *shape[1:]) if key.startswith(heads) else shape for key, shape in shapes.items()}
    return remap_authors_state_dict(network, golden.weights(theirs))


def golden_batch(step, scales):
    coarse = golden.array(f"label{step}", (2, 1, 8, 8)).numpy()
    labels = np.clip(np.round(np.kron(coarse, np.ones((8, 8), np.float32)) + 1), 0, 2)
    strides = [round(1 / rows) for rows, _ in scales]
    targets = [torch.from_numpy(np.ascontiguousarray(labels[..., ::s, ::s])) for s in strides]
    return {"data": golden.array(f"traj{step}", (2, 1, 64, 64)), "target": targets}


@pytest.mark.parametrize(
    ("network", "name"), [("swin_umamba", "nnUNetTrainerSwinUMamba"), ("swin_umamba_d", "nnUNetTrainerSwinUMambaD")]
)
def test_trajectory(network, name, make_trainer, monkeypatch):
    expected = golden.stored(f"trajectory_{network}")
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit, **settings):
        assert limit == 12
        norms.append(clip(parameters, limit, **settings))

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    trainer = make_trainer(getattr(trainers, name), (64, 64))
    trainer.initialize()
    trainer.network.load_state_dict(golden_weights(network))
    trainer.network.eval()  # as the golden steps: no DropPath
    held = trainer.encoder_frozen_until()
    scales = trainer._get_deep_supervision_scales()
    losses = []
    for step in range(4):
        trainer.current_epoch = 0 if step < 2 else held  # the learning rate is not stepped
        losses.append(float(trainer.train_step(golden_batch(step, scales))["loss"]))
    np.testing.assert_allclose(losses, expected["losses"], rtol=golden.TRAJECTORY_LOSS)
    np.testing.assert_allclose(norms, expected["grad_norms"], rtol=golden.TRAJECTORY_NORM)
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        output = trainer.network(golden.array("traj_final", (2, 1, 64, 64)))
    assert golden.relative_error(output, expected["final_output"]) < golden.TRAJECTORY_OUTPUT
