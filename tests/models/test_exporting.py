"""Exported networks: loaded where neither this package nor nnU-Net is, and compared."""

import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from swin_umamba_nnunet import cli
from swin_umamba_nnunet.models import export_model
from swin_umamba_nnunet.models.checkpoints import ModelError
from tests.messages import assert_names, raises

pytestmark = [
    pytest.mark.usefixtures("small_networks"),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",
        "ignore:.*isinstance.treespec",
        "ignore:You are using `torch.load`:FutureWarning",  # torch 2.4's own archive reader
    ),
]

ELSEWHERE = """
import sys
for name in ("swin_umamba_nnunet", "nnunetv2", "numba"):
    sys.modules[name] = None  # as if not installed
import numpy, torch
image = torch.from_numpy(numpy.load("image.npy"))
numpy.save("logits.npy", torch.export.load("exported/network.pt2").module()(image).detach().numpy())
"""


def test_runs_where_this_package_is_not(trained, tmp_path, caplog):
    name = "nnUNetTrainerUMambaBot"
    network, folder = trained(name)
    done = export_model(folder, tmp_path / "exported")
    assert "Expect archive file" not in caplog.text  # torch's warning of what it is to refuse
    assert done.input_shape == (1, 1, 32, 40)
    assert done.largest_difference["torch"] < 1e-4
    image = torch.randn(1, 1, 32, 40)
    np.save(tmp_path / "image.npy", image.numpy())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True, env=environment)
    with torch.no_grad():
        expected = network(image)
    found = torch.from_numpy(np.load(tmp_path / "logits.npy"))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    description = json.loads((tmp_path / "exported" / "network.json").read_text())
    assert description["input"]["patch_size_px"] == [32, 40]
    assert description["preprocessing"]["normalization_schemes"] == ["ZScoreNormalization"]
    assert description["network"]["trainer"] == name


def test_onnx_runs_in_onnxruntime(trained, tmp_path, capsys):
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    network, folder = trained("nnUNetTrainerUMambaBot")
    status = cli.main(["model", "export", "-m", str(folder), "-o", str(tmp_path / "exported"), "--onnx"])
    if "external_data" not in inspect.signature(torch.onnx.export).parameters:
        assert status == 2
        assert_names(capsys.readouterr().err, torch.__version__, "ONNX", "2.6")
        assert not (tmp_path / "exported").exists()
        pytest.skip(f"PyTorch {torch.__version__} writes no ONNX from an exported program, and said so")
    assert status == 0
    image = torch.randn(1, 1, 32, 40)
    session = onnxruntime.InferenceSession(str(tmp_path / "exported" / "network.onnx"))
    (logits,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), network(image), rtol=1e-3, atol=1e-4)


def test_refusals_leave_nothing_behind(trained, tmp_path, capsys):
    _, folder = trained("nnUNetTrainerSwinUMambaD")
    with raises(ModelError, "'tflite'", "torch, onnx"):
        export_model(folder, tmp_path / "exported", formats=("tflite",))
    with raises(ModelError, "model ", " fold_3/checkpoint_final.pth"):
        export_model(folder, tmp_path / "exported", fold=3)
    with raises(ModelError, "nowhere ", " plans.json, dataset.json"):
        export_model(tmp_path / "nowhere", tmp_path / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert cli.main(["model", "export", "-m", str(folder), "-o", str(folder)]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(trained, tmp_path, full_disk):
    _, folder = trained("nnUNetTrainerUMambaBot")
    with full_disk(1 << 20), raises(ModelError, tmp_path / "exported", "File too large", "-o"):
        export_model(folder, tmp_path / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_torch_that_cannot_export_is_named(trained, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("Node.meta _enter_autocast is missing val field.")

    _, folder = trained("nnUNetTrainerSwinUMambaDScratch")
    monkeypatch.setattr(torch.export, "export", refuse)
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.4.0"))
    with raises(ModelError, "PyTorch 2.4.0", "PyTorch 2.5 or newer"):
        export_model(folder, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
