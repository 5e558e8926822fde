import contextlib
import copy
import os
import sys
import types
import zipfile

import pytest
import torch

from swin_umamba_nnunet.pretrained import CheckpointError, get_record, read_checkpoint
from swin_umamba_nnunet.pretrained.checkpoint import examine_checkpoint

TINY = get_record("vmamba_tiny_v0")
WANTED = rf"; expected VMamba-Tiny \(first release\), {TINY.file_name} from https://"


def refused(path, message):
    with pytest.raises(CheckpointError, match=message + r"(?s:.*)" + WANTED) as caught:
        read_checkpoint(path, TINY)
    assert str(caught.value).startswith(f"{path} ")


def test_the_format_before_zip_archives_is_read(tmp_path, state_dict):
    torch.save({"model": state_dict()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert len(read_checkpoint(tmp_path / "old.pth", TINY).state_dict) == 212


def test_a_yacs_configuration_beside_the_weights_does_no_harm_and_needs_no_yacs(save, state_dict, monkeypatch):
    module = types.ModuleType("yacs.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    config = module.CfgNode(MODEL=module.CfgNode(DEPTHS=[2, 2, 9, 2], NAME="vssm"))
    config.__immutable__ = True  # as yacs freezes one
    path = save({"model": state_dict(), "config": config})
    monkeypatch.delitem(sys.modules, "yacs.config")
    allowed = set(torch.serialization.get_safe_globals())
    assert len(read_checkpoint(path, TINY).state_dict) == 212
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_told(tmp_path, state_dict, zipped, share):
    path = tmp_path / "file.pth"
    torch.save({"model": state_dict()}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "damaged")


def test_a_folder_a_missing_and_an_unreadable_file(tmp_path, save, state_dict, monkeypatch):
    refused(tmp_path, "is a folder")
    refused(tmp_path / "absent.pth", "does not exist")
    path = save(state_dict())

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("swin_umamba_nnunet.pretrained.checkpoint._why_not_a_checkpoint", denied)
    refused(path, r"cannot be read \(Permission denied\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "a list"),
        ({}, "no state dict"),
        ({"model": {}}, "no state dict"),
        ({"epoch": 3, "weights": {"a": torch.zeros(1)}}, "epoch, weights"),
        ({"a.weight": torch.zeros(1)}, "VMamba.* a.weight"),
    ],
)
def test_checkpoints_of_something_else(save, content, message):
    refused(save(content), message)


@pytest.mark.filterwarnings("ignore")  # PyTorch's about sparse, nested and quantised tensors
def test_a_nested_tensor_is_none(save, state_dict):
    nested = torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])
    refused(save(state_dict() | {"norm.bias": nested}), "no tensors: norm.bias|nested_tensor")  # 2.15 does not load it


# Tensors of a shape that can be saved and read again, and are no weights.
ODD_TENSORS = {
    "complex": lambda shape: torch.zeros(shape, dtype=torch.complex64),
    "bool": lambda shape: torch.zeros(shape, dtype=torch.bool),
    "int64": lambda shape: torch.zeros(shape, dtype=torch.int64),
    "float8": lambda shape: torch.zeros(shape).to(torch.float8_e4m3fn),
    "sparse": lambda shape: torch.zeros(shape).to_sparse(),
    "quantised": lambda shape: torch.quantize_per_tensor(torch.zeros(shape), 1.0, 0, torch.qint8),
    "meta": lambda shape: torch.zeros(shape, device="meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD_TENSORS)
@pytest.mark.parametrize("key", ["layers.3.blocks.1.ln_1.bias", "layers.0.blocks.0.self_attention.A_logs"])
def test_what_cannot_be_a_weight_is_refused(save, state_dict, kind, key):
    odd = ODD_TENSORS[kind](state_dict()[key].shape)
    refused(save(state_dict() | {key: odd}), rf"holds {key} as .*expected dense tensors of floating-point numbers")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_taken(save, state_dict, dtype):
    path = save({key: value.to(dtype) for key, value in state_dict().items()})
    assert len(read_checkpoint(path, TINY).state_dict) == 212


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({5: torch.zeros(1)}, "state dict.* type int"),
        ({b"a": torch.zeros(1)}, "state dict.* type bytes|_codecs.encode"),  # torch 2.4 does not even load them
        ({"a": {"b": torch.zeros(1)}}, "no tensors: a"),
        ({"a": ["b"]}, "no tensors: a"),
        ({"layers.0.blocks.0.self_attention.out_proj.weight": torch.zeros(0, 192)}, "width is 0"),
    ],
    ids=str,
)
def test_odd_keys_and_entries_are_told(save, state_dict, change, message):
    refused(save(state_dict() | change), message)


@pytest.mark.parametrize("key", ["head.weight", "extra", "layers.0.blocks.0.self_attention.A_logs", "norm.bias"])
def test_no_value_is_looked_at_whose_shape_is_not_the_networks(save, state_dict, monkeypatch, key):
    """A file of kilobytes can declare terabytes."""
    path = save(state_dict() | {key: torch.ones(()).expand(10**6, 10**6)})
    is_finite = torch.isfinite

    def look(tensor):
        assert tensor.numel() < 10**8
        return is_finite(tensor)

    monkeypatch.setattr(torch, "isfinite", look)
    examine_checkpoint(path)
    with contextlib.suppress(CheckpointError):
        read_checkpoint(path, TINY)


def test_an_archive_that_would_unpack_to_more_than_it_has_is_not_read(tmp_path, monkeypatch, saved):
    with zipfile.ZipFile(saved()) as stored:
        entries = {name: stored.read(name) for name in stored.namelist()}
    monkeypatch.setattr(torch, "load", None)
    with zipfile.ZipFile(tmp_path / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    refused(tmp_path / "deflated.pth", r"is a zip archive with compressed entries \(weights/")
    with zipfile.ZipFile(tmp_path / "overlapping.pth", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        archive.filelist += [copy.copy(archive.filelist[0]) for _ in range(1000)]  # all at the same place
    refused(tmp_path / "overlapping.pth", "is a zip archive that declares [0-9,]+ bytes of content in a file of")


def test_a_flipped_bit_is_told(saved):
    path = saved()
    good = path.read_bytes()
    value, folder = good.rindex(torch.tensor(1.0).numpy().tobytes()), good.rindex(b"PK\x01\x02") + 38
    for at, bit, message in ((value, 1, "the check sum of .* is wrong"), (folder, 16, "is marked as a folder")):
        path.write_bytes(good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :])
        refused(path, rf"is damaged \(.*{message}")


def test_an_archive_that_was_unpacked_and_zipped_again(state_dict, tmp_path, saved):
    with zipfile.ZipFile(saved()) as archive:
        archive.extractall(tmp_path / "unpacked")
    again = tmp_path / "again.pth"
    with zipfile.ZipFile(again, "w") as archive:
        for path in sorted((tmp_path / "unpacked").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "unpacked"))  # folders too, as "NAME/"
        assert any(entry.is_dir() for entry in archive.infolist())
    assert len(read_checkpoint(again, TINY).state_dict) == len(state_dict())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    refused(tmp_path / "pipe.pth", "is a pipe or a device")
