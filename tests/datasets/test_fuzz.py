"""Trees of every layout, damaged at random: one clear error, or a dataset that nnU-Net accepts; nothing else."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from swin_umamba_nnunet.datasets import ConversionError, Images, Isic, Synapse, UMamba, Volumes, umamba
from swin_umamba_nnunet.datasets._checks import inspect
from swin_umamba_nnunet.datasets._report import format_report
from swin_umamba_nnunet.datasets._write import write_dataset
from tests.datasets.trees import (
    integrity_here_and_now,
    snapshot,
    write_images,
    write_isic,
    write_synapse,
    write_umamba_703,
    write_volumes,
)

FIRST = int(os.environ.get("FUZZ_FIRST", "0"))  # more of them: FUZZ_FIRST=12 FUZZ_SEEDS=100 pytest ...
SEEDS = int(os.environ.get("FUZZ_SEEDS", "12"))

LAYOUTS = {
    "images": (lambda folder: write_images(folder, 5), Images()),
    "grouped": (
        lambda folder: write_images(folder, 6),
        Images(group_pattern=r"([^/]*)\.[^.]*$", test_fraction=0.3, folds=2),
    ),
    "isic": (write_isic, Isic()),
    "synapse": (write_synapse, Synapse()),
    "umamba": (write_umamba_703, UMamba(published=703, allow_incomplete=True)),
    "volumes": (write_volumes, Volumes()),
}


def _damage(source, random) -> str:
    """Do one bad thing to one file of a tree."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    path, other = (files[int(index)] for index in random.integers(0, len(files), 2))
    kind = int(random.integers(0, 11))
    renamed = path.with_name("Ünïcode name 图" + path.suffix)
    content = path.read_bytes()
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        path.write_bytes(random.bytes(int(random.integers(1, 500))))
    elif kind == 3:
        path.write_bytes(content[: int(random.integers(0, max(1, len(content))))])
    elif kind == 4:
        changed = bytearray(content or b"?")
        for place in random.integers(0, len(changed), 5):
            changed[int(place)] = int(random.integers(256))
        path.write_bytes(bytes(changed))
    elif kind == 5:
        path.rename(path.with_name(path.name.upper()))
    elif kind == 6 and not renamed.exists():
        path.rename(renamed)
    elif kind == 7:
        path.rename(path.with_name("." + path.name))
    elif kind == 8 and path != other:
        shutil.copyfile(path, other)
    elif kind == 9:
        path.unlink()
        path.mkdir()
        (path / "x").write_bytes(b"x")
    else:
        shutil.copyfile(path, path.with_name("copy of " + path.name))
    return f"kind {kind}, {path.relative_to(source)}, {other.name}"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore")  # decoders complain about damaged files in many ways
def test_damaged_trees(tmp_path, monkeypatch, layout, seed):
    pytest.importorskip("h5py", reason="needs the synapse extra")
    small = replace(umamba.PUBLISHED[703], training=(3,), test=2)
    monkeypatch.setattr(umamba, "PUBLISHED", {**umamba.PUBLISHED, 703: small})
    make, way = LAYOUTS[layout]
    random = np.random.default_rng([seed, len(layout)])
    source = make(tmp_path / "source")
    done = [_damage(source, random) for _ in range(int(random.integers(1, 5)))]
    before = snapshot(source)
    target = tmp_path / "raw" / "Dataset001_Fuzz"
    verdict, refusal = None, ""
    try:
        inspection = inspect(way.conversion(source), skip_bad=bool(seed % 2), progress=False)
        assert format_report(inspection)
        verdict = write_dataset(inspection, target, check=integrity_here_and_now, progress=False)
    except ConversionError as error:
        refusal = str(error)
    left = [path.name for path in target.parent.iterdir()] if target.parent.exists() else []
    assert left == (["Dataset001_Fuzz"] if verdict else []), done
    assert verdict is None or verdict.passed, done
    assert "\n" not in refusal, done
    assert "integrity check" not in refusal, (done, refusal)  # what nnU-Net refuses, we had to see before
    assert snapshot(source) == before
