"""What the operator tests share beside `cases.py`."""

import pytest
import torch

from swin_umamba_nnunet.ops import _select, _triton


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    monkeypatch.delenv("SWIN_UMAMBA_BACKEND", raising=False)
    monkeypatch.delenv("SWIN_UMAMBA_FUSED_GLUE", raising=False)
    for cached in (_select._automatic, _select._log_once):
        cached.cache_clear()


@pytest.fixture
def poisoned(monkeypatch):
    """Every buffer that a Triton kernel has to fill starts as NaN."""

    def nan(like, *shape, dtype=torch.float32):
        return torch.full(shape, float("nan"), dtype=dtype, device=like.device)

    monkeypatch.setattr(_triton, "_empty", nan)
