"""What tests of conversions share."""

import json
from pathlib import Path

import pytest

from swin_umamba_nnunet.datasets import conversion
from swin_umamba_nnunet.datasets._write import write_dataset
from tests.datasets.trees import integrity_here_and_now


class Converted:
    """A written dataset."""

    def __init__(self, folder: Path, report: str, verdict: conversion.Verdict):
        self.folder, self.report, self.verdict = folder, report, verdict
        self.json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        self.record = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))

    def names(self, part: str) -> list[str]:
        """File names in imagesTr and so on."""
        return sorted(path.name for path in (self.folder / part).iterdir())


@pytest.fixture
def convert(tmp_path):
    """A function (plan, skip_bad=False, **settings of write_dataset) -> Converted, checked by nnU-Net."""

    def run(plan, skip_bad=False, name="Dataset001_Test", **settings):
        inspection = conversion.inspect(plan, skip_bad=skip_bad, progress=False)
        report = conversion.format_report(inspection)
        target = tmp_path / "raw" / name
        settings = {"check": integrity_here_and_now, "progress": False} | settings
        verdict = write_dataset(inspection, target, **settings)
        assert verdict.passed
        assert [path.name for path in target.parent.iterdir()] == [name], "something half-written is left"
        return Converted(target, report, verdict)

    return run


@pytest.fixture
def inspected():
    """A function (plan, skip_bad=False) -> Inspection."""
    return lambda plan, skip_bad=False: conversion.inspect(plan, skip_bad=skip_bad, progress=False)
