"""The reader of segmentation checkpoints on whatever may lie under such a name: read, or refused in a sentence."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from swin_umamba_nnunet.models import adapt_checkpoint
from swin_umamba_nnunet.models.checkpoints import ModelError, read_segmentation_checkpoint, write_checkpoint
from swin_umamba_nnunet.pretrained.checkpoint import why_not_written
from tests.messages import assert_names, raises
from tests.models.conftest import checkpoint_of, old_plans

JUNK = [
    None,
    True,
    0,
    -1,
    2**70,
    float("nan"),
    "",
    "module.",
    "\x00",
    [],
    (),
    {},
    [1, "a"],
    {"a": {}},
    {1: 2},
    {1: torch.zeros(1)},
    {None: torch.zeros(2, 2)},
    {"a": torch.zeros(1)},
    torch.zeros(0),
    torch.zeros(3),
    torch.zeros(2, 2, dtype=torch.complex64),
    np.float64(1),
    torch.device("cuda", 7),
    torch.Size([1]),
    torch.float16,
]


def content():
    """What nnU-Net saves, small."""
    weights = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "module.decoder.seg_layers.0.bias": torch.ones(2)}
    return checkpoint_of(weights, old_plans((32, 32), 4), "nnUNetTrainerSwinUMambaDScratch")


def read_or_refuse(path, read=read_segmentation_checkpoint):
    """What was read, or None after a refusal; any other error is raised and fails the test."""
    try:
        return read(path)
    except ModelError:
        return None


def assert_weights(found):
    assert found["network_weights"]
    for key, value in found["network_weights"].items():
        assert isinstance(key, str)
        assert not key.startswith("module.")
        assert isinstance(value, torch.Tensor)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")  # what torch remarks about a file it then refuses
def test_damaged_bytes(tmp_path, zipped):
    """Flipped, cut out, doubled and overwritten bytes, in both of PyTorch's formats."""
    file, random = tmp_path / "checkpoint_final.pth", np.random.default_rng(int(zipped))
    torch.save(content(), file, _use_new_zipfile_serialization=zipped)
    good = file.read_bytes()
    assert_weights(read_segmentation_checkpoint(file))
    refused = 0
    for round_ in range(300):
        bad, at, length = bytearray(good), int(random.integers(len(good))), int(random.integers(1, 40))
        match round_ % 5:
            case 0:
                bad[at] ^= 1 << int(random.integers(8))
            case 1:
                del bad[at : at + length]
            case 2:
                bad[at:at] = bad[at : at + length]
            case 3:
                bad[at : at + length] = random.bytes(length)
            case _:
                del bad[at:]
        file.write_bytes(bad)
        found = read_or_refuse(file)
        refused += found is None
        if found is not None:
            assert_weights(found)
    assert refused > 100


def places(node, path=()):
    """Where something can be replaced in nested dictionaries and lists."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans format")
@pytest.mark.parametrize("verb", ["read", "adapt"])
def test_unexpected_content(tmp_path, verb):
    """Any part of a checkpoint replaced by something else, or gone."""
    file, random = tmp_path / "checkpoint_final.pth", np.random.default_rng(0)
    output = tmp_path / "adapted.pth"

    def adapt(path):
        return adapt_checkpoint(path, 3, output)

    every = list(places(content()))
    if verb == "adapt":  # builds a network for each
        every = [path for path in every if path[0] in ("init_args", "trainer_name")][::5]
    for path in every:
        for what in random.permutation(len(JUNK) + 1)[: 1 if verb == "adapt" else 5]:
            bad = copy.deepcopy(content())
            node = bad
            for key in path[:-1]:
                node = node[key]
            if what == len(JUNK):
                del node[path[-1]]
            else:
                node[path[-1]] = JUNK[what]
            torch.save(bad, file)
            found = read_or_refuse(file, adapt if verb == "adapt" else read_segmentation_checkpoint)
            if found is not None and verb == "read":
                assert_weights(found)
            assert not output.exists()  # its weights fit no network


@pytest.mark.parametrize("value", JUNK, ids=lambda value: f"{type(value).__name__} {value}"[:30])
def test_anything_else_under_the_name(tmp_path, value):
    file = tmp_path / "checkpoint_final.pth"
    torch.save(value, file)
    found = read_or_refuse(file)
    if found is not None:
        assert_weights(found)
    file.write_bytes(pickle.dumps(value))
    with raises(ModelError, "checkpoint_final.pth"):
        read_segmentation_checkpoint(file)


def test_a_tensor_that_is_there_under_two_names_is_not_chosen_silently(tmp_path):
    torch.save({"network_weights": {"a": torch.zeros(1), "module.a": torch.ones(1)}}, tmp_path / "file.pth")
    with raises(ModelError, "holds tensors twice"):
        read_segmentation_checkpoint(tmp_path / "file.pth")


def test_a_pickle_runs_nothing(tmp_path):
    """Every way in which a pickle calls a function, in both formats, and bare."""
    file, trace = tmp_path / "checkpoint_final.pth", tmp_path / "it ran"

    class Call:
        def __reduce__(self):
            return type(tmp_path).touch, (trace,)

    class State:
        def __reduce__(self):
            return eval, (f"open({str(trace)!r}, 'w').close()",)

    for evil in (Call(), State()):
        for put in (lambda x: x, lambda x: {"network_weights": {"a": x}}, lambda x: {**content(), "logging": [x]}):
            for zipped in (True, False):
                torch.save(put(evil), file, _use_new_zipfile_serialization=zipped)
                with raises(ModelError, "holds Python objects besides tensors ", "could run code"):
                    read_segmentation_checkpoint(file)
            file.write_bytes(pickle.dumps(put(evil)))
            with raises(ModelError, "checkpoint_final.pth"):
                read_segmentation_checkpoint(file)
    assert not trace.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_writing_is_all_or_nothing(tmp_path, monkeypatch, error):
    def write_half(path, content):
        path.write_text("half")
        raise error

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises((ModelError, KeyboardInterrupt)) as refused:
        write_checkpoint(content(), tmp_path / "folder" / "new.pth")
    assert list((tmp_path / "folder").iterdir()) == []
    if isinstance(error, OSError):
        assert_names(refused.value, "new.pth", "No space left on device", "-o")


def test_a_disk_that_is_full_is_named(tmp_path, full_disk):
    for said in ("unexpected pos 768 vs 662", "file write failed"):  # by PyTorch, which names a line of its sources
        assert "disk is full" in why_not_written(RuntimeError(f"[enforce fail at inline_container.cc:672] . {said}"))
    path = tmp_path / "new.pth"
    with full_disk(1 << 16), raises(ModelError, path, "File too large", "-o"):
        write_checkpoint({"network_weights": {"a": torch.zeros(1 << 16)}}, path)
    assert list(tmp_path.iterdir()) == []
