"""The generated dataset: what it promises about distances, classes and nnU-Net's augmentation."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from swin_umamba_nnunet.datasets import long_range
from swin_umamba_nnunet.datasets.long_range import draw, write_long_range_dataset


# the last ones draw a second square that leaves no place for a third
@pytest.mark.parametrize("seed", [*range(20), 118, 203, 308, 515, 518])
def test_no_square_is_near_the_mark_and_all_agree_with_it(seed):
    picture, again = draw(seed), draw(seed)
    np.testing.assert_array_equal(picture.image, again.image)
    labels, squares = ndimage.label(picture.labels)
    assert squares in (2, 3)
    assert set(np.unique(picture.labels)) == {0, 1 if picture.ring else 2}
    rows, columns = np.nonzero(picture.labels)
    distances = np.hypot(rows - picture.mark[0], columns - picture.mark[1])
    assert distances.min() >= long_range.MIN_DISTANCE + long_range.MARK_RADIUS
    from_centre = np.hypot(rows - 47.5, columns - 47.5)
    assert from_centre.max() <= long_range.SIZE / 2 / 1.4  # what is left of the image after nnU-Net's largest zoom
    centre = tuple(round(each) for each in picture.mark)
    assert (picture.image[centre] < 130) == picture.ring  # a ring has a hole


def test_the_squares_themselves_do_not_tell():
    """The mean brightness of a square is the same in both classes, within what noise allows."""
    means = {1: [], 2: []}
    for seed in range(100):
        picture = draw(seed)
        value = int(picture.labels.max())
        means[value].append(picture.image[picture.labels > 0].mean())
    difference = np.mean(means[1]) - np.mean(means[2])
    assert abs(difference) < 4 * np.hypot(*(np.std(each) / len(each) ** 0.5 for each in means.values()))


def test_written_as_nnunet_wants_it_and_the_same_every_time(tmp_path):
    first = write_long_range_dataset(tmp_path / "a", training=4, held_out=2)
    second = write_long_range_dataset(tmp_path / "b", training=4, held_out=2)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    description = json.loads((first / "dataset.json").read_text())
    assert description["numTraining"] == len(list((first / "imagesTr").iterdir())) == 4
    assert len(list((first / "labelsTs").iterdir())) == 2
    labels = [np.asarray(Image.open(path)).max() for path in sorted((first / "labelsTr").iterdir())]
    assert sorted(labels) == [1, 1, 2, 2]
    with pytest.raises(FileExistsError, match="already exists"):
        write_long_range_dataset(tmp_path / "a")
