"""What tests of conversions share."""

import pytest
import SimpleITK as sitk
from skimage import io

from swin_umamba_nnunet.datasets._checks import inspect
from swin_umamba_nnunet.datasets._report import format_report
from swin_umamba_nnunet.datasets._write import write_dataset
from tests.datasets.trees import integrity_here_and_now
from tests.jsons import load


class Converted:
    """A written dataset that nnU-Net accepts: it has counted the cases and seen that labels are 0, 1, 2 and so on."""

    def __init__(self, folder, report):
        self.folder, self.report = folder, report
        self.json, self.record = (load(folder / name) for name in ("dataset.json", "conversion.json"))
        self.labels = sorted(self.json["labels"], key=self.json["labels"].get)
        self.channels = [*self.json["channel_names"].values()]
        splits = folder / "splits_final.json"
        self.splits = load(splits) if splits.exists() else None

    def names(self, part):
        """File names in imagesTr and so on."""
        return sorted(path.name for path in (self.folder / part).iterdir())

    def read(self, name):
        """The array in a file, by another library than ours where there is one."""
        path = self.folder / name
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path))) if name.endswith(".gz") else io.imread(path)


@pytest.fixture
def inspected():
    """A function (layout, source, skip_bad=False) -> Inspection."""
    return lambda layout, source, skip_bad=False: inspect(layout.conversion(source), skip_bad=skip_bad)


@pytest.fixture
def reported(inspected):
    """A function (layout, source) -> the report."""
    return lambda *what: format_report(inspected(*what))


@pytest.fixture
def refused(inspected):
    """A function (layout, source) -> the one error of a case; there may be others that name none."""

    def run(layout, source):
        (error,) = [error for error in inspected(layout, source).errors if error.case]
        return error

    return run


@pytest.fixture
def convert(tmp_path, inspected):
    """A function (layout, source, skip_bad=False, **settings of write_dataset) -> Converted, checked by nnU-Net."""

    def run(layout, source, skip_bad=False, name="Dataset001_Test", **settings):
        inspection = inspected(layout, source, skip_bad)
        report, target = format_report(inspection), tmp_path / "raw" / name
        settings = {"check": integrity_here_and_now, "overwrite": True} | settings
        assert write_dataset(inspection, target, **settings).passed
        assert [path.name for path in target.parent.iterdir()] == [name], "something half-written is left"
        return Converted(target, report)

    return run
