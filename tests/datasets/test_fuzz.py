"""Trees of every layout, damaged at random: one clear error, or a dataset that nnU-Net accepts; nothing else."""

import os
import shutil

import numpy as np
import pytest

from swin_umamba_nnunet.datasets import ConversionError, Images, Isic, MedSegBench, Synapse, UMamba, Volumes
from tests.datasets.trees import MAKERS, publish_703_small, snapshot

FIRST = int(os.environ.get("FUZZ_FIRST", "0"))  # more of them: FUZZ_FIRST=12 FUZZ_SEEDS=100 pytest ...
SEEDS = int(os.environ.get("FUZZ_SEEDS", "12"))

LAYOUTS = (
    Images(),
    Images(group_pattern=r"([^/]*)\.[^.]*$", test_fraction=0.3, folds=2),
    Isic(),
    MedSegBench(),
    Synapse(),
    UMamba(published=703, allow_incomplete=True),
    Volumes(),
)


def _damage(source, random):
    """Do one bad thing to one file of a tree."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files:
        return "nothing left to damage"
    path, other = (files[int(index)] for index in random.integers(0, len(files), 2))
    kind, content = int(random.integers(0, 11)), path.read_bytes()
    damaged = {
        1: b"",
        2: random.bytes(int(random.integers(1, 500))),
        3: content[: int(random.integers(0, max(1, len(content))))],
        4: bytes(byte if random.random() < 0.99 else int(random.integers(256)) for byte in content),
    }
    names = {
        5: path.name.upper(),
        6: "Ünïcode name 图" + path.suffix,
        7: "." + path.name,
        9: "a folder/" + path.name,
        10: "copy of " + path.name,
    }
    if kind in damaged:
        path.write_bytes(damaged[kind])
    elif kind in names:
        target = path.parent / names[kind]
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            (shutil.copyfile if kind == 10 else shutil.move)(path, target)
    elif kind == 8 and path != other:
        shutil.copyfile(path, other)
    else:
        path.unlink()
    return f"kind {kind}, {path.relative_to(source)}, {other.name}"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.filterwarnings("ignore")  # decoders complain about damaged files in many ways
def test_damaged_trees(tmp_path, monkeypatch, convert, layout, seed):
    pytest.importorskip("h5py", reason="needs the synapse extra")
    publish_703_small(monkeypatch)
    random = np.random.default_rng([seed, LAYOUTS.index(layout)])
    source = MAKERS[layout.name](tmp_path / "source")
    done = [_damage(source, random) for _ in range(int(random.integers(1, 5)))]
    before = snapshot(source)
    refusal = ""
    try:
        convert(layout, source, skip_bad=bool(seed % 2))
    except ConversionError as error:
        refusal = str(error)
        assert not list(tmp_path.glob("raw/*")), done
    assert "\n" not in refusal, done
    assert "integrity check" not in refusal, (done, refusal)  # what nnU-Net refuses, we had to see before
    assert snapshot(source) == before, done
