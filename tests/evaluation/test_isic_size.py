"""Resizing of masks before the ISIC protocol counts pixels."""

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.evaluation import Isic
from swin_umamba_nnunet.evaluation.protocols.isic import _foreground
from tests.evaluation.files import blobs, evaluated, write_twice


@pytest.mark.parametrize("shape", [(90, 130), (40, 33), (64, 64)])
def test_as_pytorch_resizes(shape):
    mask = (blobs(0, shape) > 0).astype(np.uint8)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(mask).float()[None, None], size=(64, 64), mode="bilinear", align_corners=False
    )
    sure = (resized - 0.5).abs() > 1e-5  # apart from ties, which rounding decides
    assert sure.float().mean() > 0.95
    found = torch.from_numpy(_foreground(mask, 64))[None, None]
    assert torch.equal(found[sure], (resized >= 0.5)[sure])


def test_size_decides_how_many_pixels_there_are(tmp_path):
    mask = (blobs(0, (50, 70)) > 0).astype(np.uint8)
    write_twice(tmp_path, mask)
    for options, pixels in (({}, 256 * 256), ({"isic_size": 32}, 32 * 32), ({"isic_size": 0}, 50 * 70)):
        result = evaluated(tmp_path, Isic(**options))
        assert sum(result.value("a", "lesion", name) for name in ("TP", "FP", "FN", "TN")) == pixels
        assert result.statistic("DSC", "lesion", "isic").mean == 1.0


def test_no_lesion_anywhere(tmp_path):
    result = evaluated(write_twice(tmp_path, np.zeros((8, 8), np.uint8)), Isic(0))
    assert result.statistic("DSC", "lesion", "isic").mean == 0.0
    assert result.statistic("Dice", "lesion").n_undefined == 1
    assert any("IndexError" in note for note in result.notes)
