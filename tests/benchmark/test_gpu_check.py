import json

import pytest
import torch

from swin_umamba_nnunet.benchmark import gpu_check
from swin_umamba_nnunet.benchmark.materialised import materialised_2d, materialised_networks
from swin_umamba_nnunet.blocks import SS2D
from swin_umamba_nnunet.ops import selective_scan_2d


def arguments():
    torch.manual_seed(0)
    return [
        torch.randn(2, 3, 5, 4), torch.randn(4, 7, 4) / 2, torch.randn(4, 4, 3), torch.randn(4, 4), torch.rand(16, 2),
        torch.randn(16),
    ]  # fmt: skip


def test_materialised_form_is_the_same_function():
    results = []
    for function in (selective_scan_2d, materialised_2d):
        leaves = [t.requires_grad_() for t in arguments()]
        y = function(*leaves, backend="reference")
        results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for fused, materialised in zip(*results, strict=True):
        torch.testing.assert_close(materialised, fused, rtol=1e-4, atol=1e-4)


def test_materialised_networks_and_back():
    torch.manual_seed(0)
    block = SS2D(8, d_state=2, backend="reference")
    x = torch.randn(1, 4, 3, 8)
    fused = block(x)
    with materialised_networks():
        from swin_umamba_nnunet.blocks import ss2d

        assert ss2d.selective_scan_2d is materialised_2d
        torch.testing.assert_close(block(x), fused, rtol=1e-4, atol=1e-4)
    assert ss2d.selective_scan_2d is selective_scan_2d


def test_rehearsal_writes_every_kind_of_figure(tmp_path):
    assert gpu_check.main(["--rehearse", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    document = json.loads(file.read_text())
    assert {"date", "device", "torch", "triton", "backends"} <= set(document)
    figures = document["figures"]
    assert not [f for f in figures if "not_measured" in f]
    assert {f["what"] for f in figures} == {"scan", "ss2d core", "SwinUMambaD"}
    assert {f["passes"] for f in figures} == {"forward", "backward", "forward+backward", "step"}
    assert all(f["milliseconds"] > 0 for f in figures)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device_is_said_and_nothing_is_written(tmp_path, caplog):
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in caplog.text
    assert not list(tmp_path.iterdir())


def test_the_plan_begins_with_the_stages_of_the_networks():
    plan = gpu_check.plan(clock=None, tiny=False, sweep=True)
    assert len(plan) == 32 + 8 + 6
