"""Which slices are shown and which way up, what they score, and what is drawn of them."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal
from skimage import io
from skimage.color import rgb2lab

from swin_umamba_nnunet.evaluation import Image, LabelSet
from swin_umamba_nnunet.evaluation.surfaces import dice
from swin_umamba_nnunet.pictures import PLANES, SLICES, drawing, looks, overlay
from swin_umamba_nnunet.pictures.drawing import draw_panel, kinds_of_error, legend_handles
from swin_umamba_nnunet.pictures.looks import choose_slices, slice_axis
from swin_umamba_nnunet.pictures.overlay import draw_case, draw_sheet, overview
from tests.evaluation.files import write_folders, write_volume

ORGANS = {"liver": (1,), "kidney": (2, 3)}
ONE = {"a": (1,)}


def look_at(truth, prediction=None, classes=ORGANS, image=None, direction=None, name="case_1", **how):
    truth, spacing, ignore = np.asarray(truth), how.pop("spacing", (1.0, 1.0, 1.0)), how.pop("ignore", None)
    image = Image(truth.astype(np.float32) if image is None else image, spacing, direction)
    prediction = truth if prediction is None else np.asarray(prediction)
    return looks.look_at(name, image, truth, prediction, LabelSet(classes, ignore), **how)


def shown_of(image):
    """(1, H, W) values as they are shown."""
    return look_at(np.zeros(image.shape, int), image=image).views[0].image


@pytest.fixture
def axes():
    return Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))


# ------------------------------------------------------------------------------------------------------- orientation


ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "IS")) for letters in itertools.product(*axes)
]


@pytest.mark.parametrize("plane", PLANES)
def test_a_volume_stored_any_way_round_looks_the_same(plane):
    """All 48 ways, made by SimpleITK; compared with slices cut by hand from the volume in S, P, L order."""
    volume = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    original = sitk.GetImageFromArray(volume)
    original.SetSpacing((1.0, 1.5, 2.0))
    axis = PLANES.index(plane)
    for orientation in ORIENTATIONS:
        stored = sitk.DICOMOrient(original, orientation)
        array = sitk.GetArrayFromImage(stored)
        # the letters name where the x, y and z axes run to, which are the array's axes 2, 1 and 0
        along, letter = next((2 - i, one) for i, one in enumerate(orientation) if one in ("IS", "AP", "RL")[axis])
        truth = np.zeros(array.shape, np.uint8)
        truth[tuple(1 if i == along else slice(None) for i in range(3))] = 1  # the second slice is the one to show
        direction = np.array(stored.GetDirection()).reshape(3, 3)
        stored_as = {"spacing": stored.GetSpacing()[::-1], "direction": direction}
        (view,) = look_at(truth, image=array, classes=ONE, plane=plane, **stored_as).views
        position = 1 if letter in "SPL" else volume.shape[axis] - 2
        expected = np.take(volume, position, axis)
        if plane != "axial":
            expected = expected[::-1]  # the head at the top
        np.testing.assert_allclose(view.image, _as_displayed(volume, expected), atol=1e-6)
        assert view.truth.all()
        assert view.aspect == pytest.approx({"axial": 1.5 / 1.0, "coronal": 2.0 / 1.0, "sagittal": 2.0 / 1.5}[plane])
        assert view.edges == {"axial": ("R", "A"), "coronal": ("R", "S"), "sagittal": ("A", "S")}[plane]
        assert f"{plane} slice 2 of {volume.shape[axis]}" in view.caption
    assert len(set(ORIENTATIONS)) == 48


def _as_displayed(volume, part):
    low, high = np.percentile(volume, (2, 98))
    return np.clip((part - low) / (high - low), 0, 1)


@pytest.mark.parametrize(
    ("spacing", "axis"), [((5, 1, 1), 0), ((1, 1, 1), 0), ((1, 4, 1), 1), ((1, 1, 3), 2), ((1.0, 1.1, 1.0), 0)]
)
def test_the_plane_is_the_one_the_slices_were_taken_in(spacing, axis):
    assert slice_axis(spacing) == axis


def test_a_picture_is_shown_as_it_is_stored():
    truth = np.arange(12).reshape(1, 3, 4) % 3
    (view,) = look_at(truth, spacing=(999, 1, 1)).views
    assert_array_equal(view.truth, truth[0])
    assert (view.aspect, view.caption, view.edges) == (1, (), None)


# ----------------------------------------------------------------------------------------------------- slices, scores


def test_dice_agrees_with_masks():
    """Labels of a region are one class, 3 and 4 those of none; one that is in neither mask stays out of the mean."""
    truth, prediction = np.random.default_rng(1).integers(0, 6, (2, 4, 9, 7))
    classes = {"one": (1,), "region": (2, 5)}
    found = look_at(truth, prediction, {**classes, "absent": (7,)})
    expected = [dice(*(np.isin(each, values) for each in (truth, prediction))) for values in classes.values()]
    assert [*found.dice.values()] == pytest.approx([*expected, np.nan], nan_ok=True)
    assert found.mean_dice == pytest.approx(np.mean(expected))


def test_what_is_to_be_ignored_is_neither_scored_nor_drawn_as_an_error():
    found = look_at([[[1, 9, 9, 0]]], [[[1, 1, 0, 0]]], classes={"liver": (1,)}, ignore=9)
    assert found.dice["liver"] == 1
    (view,) = found.views
    assert view.ignored.tolist() == [[False, True, True, False]]
    assert view.prediction.tolist() == [[1, 0, 0, 0]]
    assert "not scored" in kinds_of_error(found.views, {"liver": (1,)})


@pytest.mark.parametrize(
    ("scores", "sizes", "wanted", "expected"),
    [
        ([np.nan, 0.5, 0.9, 0.1, 0.7, np.nan], [1] * 6, SLICES, {"best": 2, "median": 1, "worst": 3}),
        # of equal slices the fullest, and then the first
        ([0, 0, 0, 1, 1, 1], [1, 5, 5, 1, 7, 7], SLICES, {"best": 4, "median": 0, "worst": 1}),
        # none twice
        ([0.5], [1], SLICES, {"best and median and worst": 0}),
        ([0.5, 0.7], [1, 1], SLICES, {"best": 1, "median and worst": 0}),
        ([0.5], [1], ["worst"], {"worst": 0}),
    ],
)
def test_which_slices_are_shown(scores, sizes, wanted, expected):
    assert choose_slices(np.array(scores), np.array(sizes), wanted) == expected


def test_a_volume_without_any_label_shows_its_middle():
    found = look_at(np.zeros((5, 3, 3), int))
    assert [view.caption[:2] for view in found.views] == [("middle slice", "slice 3 of 5")]
    assert np.isnan(found.mean_dice)


def test_without_a_truth_the_fullest_and_the_median_slice_and_no_score(tmp_path, monkeypatch):
    prediction = np.zeros((6, 30, 40), np.uint8)
    for index, width in enumerate((0, 5, 30, 10, 0, 20)):
        prediction[index, 5:20, :width] = 1
    found = [
        looks.look_at(
            "a", Image(each.astype(float), (1.0, 1.0, 1.0), None), None, each, LabelSet(ORGANS), wanted=["worst"]
        )
        for each in (prediction, prediction[2:3], prediction * 0)
    ]
    captions = [[view.caption for view in look.views] for look in found]
    assert captions == [
        [("fullest slice", "slice 3 of 6", ""), ("median slice", "slice 6 of 6", "")],
        [()],
        [("middle slice", "slice 4 of 6", "nothing predicted")],
    ]
    drawn = []
    monkeypatch.setattr(overlay, "draw_panel", lambda axes, name, view, classes: drawn.append(name))
    for look in found[:2]:
        assert not look.dice
        draw_case(look, ORGANS, tmp_path / "a.png")
    assert drawn == ["image", "prediction"] * 3


def test_the_caption_scores_the_slice_and_not_the_case():
    truth = np.zeros((3, 4, 4), int)
    truth[:, :2] = 1
    prediction = truth.copy()
    prediction[2] = 0
    found = look_at(truth, prediction, classes=ONE)
    assert [view.caption[-1] for view in found.views] == ["Dice of the slice 1.000", "Dice of the slice 0.000"]
    assert found.dice["a"] == pytest.approx(0.8)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_an_image_of_one_value_or_none_can_be_shown(value):
    assert np.isfinite(shown_of(np.full((1, 3, 3), value, np.float32))).all()


def test_a_few_bright_pixels_are_not_lost():
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 3, 4] = 5
    assert shown_of(image)[3, 4] == 1


# ------------------------------------------------------------------------------------------------------------ drawing


def test_twenty_eight_classes_look_different_and_neighbours_differ_in_colour_and_line():
    styles = [drawing.style_of(i, 28) for i in range(28)]
    assert len({(style.colour, str(style.dashes)) for style in styles}) == 28
    assert len({style.number for style in styles}) == 28
    for one, other in itertools.pairwise(styles):
        assert one.colour != other.colour
        assert one.dashes != other.dashes


def test_errors_have_colours_that_no_class_has_and_survive_a_greyscale_print():
    """In CIELAB, where a difference of 2 can be seen and neighbours in a picture want some 30."""

    def lab(colour):
        return rgb2lab([[to_rgb(colour)]])[0, 0]

    classes = [lab(drawing.style_of(i, 7).colour) for i in range(7)]
    errors = [lab(drawing.ERRORS[name]) for name in ("missed", "extra", "wrong class")]
    assert min(np.linalg.norm(error - each) for error in errors for each in classes) > 30
    assert min(np.diff(sorted(error[0] for error in errors))) > 14
    assert min(each[0] for each in classes) > 45  # on the black halo


def test_a_class_is_lightly_filled_so_that_its_inside_is_known(axes):
    """One that fills the image but for a hole has only edges otherwise, and a line around the hole."""
    truth = np.ones((1, 20, 20), np.uint8)
    truth[0, 5:10, 5:10] = 0
    truth[0, 12:15, 12:15] = 2
    regions = {"all": (1, 2), "core": (2,)}
    draw_panel(axes, "ground truth", look_at(truth, classes=regions).views[0], regions)
    fill = np.asarray(axes.images[-1].get_array())
    assert fill[7, 7, 3] == 0
    assert 0.1 < fill[0, 0, 3] < 0.4
    for (row, column), position in (((0, 0), 0), ((13, 13), 1)):  # the nested region on top
        assert fill[row, column, :3] == pytest.approx(to_rgb(drawing.style_of(position, 2).colour))


def test_an_outline_runs_along_the_mask_at_the_images_edge_too(axes):
    truth = np.zeros((1, 10, 12), np.uint8)
    truth[0, 0:4, 5:12] = 1
    (view,) = look_at(truth, classes=ONE).views
    draw_panel(axes, "ground truth", view, ONE)
    corners = [path.vertices for drawn in axes.collections for path in drawn.get_paths()]
    for vertices in corners:
        assert vertices.min(axis=0).tolist() == [4.5, -0.5]
        assert vertices.max(axis=0).tolist() == [11.5, 3.5]
    assert len(corners) == 2  # the line, and the dark one below it
    assert axes.get_xlim() == (-0.5, 11.5)
    assert axes.get_ylim() == (9.5, -0.5)


def test_a_number_lies_inside_its_class_and_outside_nested_ones(axes):
    """Not at the centre of mass, that is, which is the other class's."""
    truth, classes = np.zeros((1, 40, 40), np.uint8), {"all": (1, 2), "core": (2,)}
    truth[0, 5:35, 5:35], truth[0, 12:28, 12:28] = 1, 2
    draw_panel(axes, "ground truth", look_at(truth, classes=classes).views[0], classes)
    places = {text.get_text(): tuple(map(round, reversed(text.get_position()))) for text in axes.texts}
    assert {number: str(truth[0][place]) for number, place in places.items()} == {"1": "1", "2": "2"}


def test_pixels_keep_their_proportions(axes):
    (view, *_) = look_at(np.ones((4, 5, 6), int), spacing=(3.0, 1.0, 2.0), classes=ONE, plane="coronal").views
    draw_panel(axes, "image", view, ONE)
    assert axes.get_aspect() == pytest.approx(1.5)


def test_differences_are_painted_by_kind(axes):
    truth, prediction = np.array([[[1, 1, 2, 0, 0]]]), np.array([[[1, 0, 1, 1, 0]]])
    (view,) = look_at(truth, prediction).views
    draw_panel(axes, "differences", view, ORGANS)
    painted = sum(image.get_array()[0] for image in axes.images[1:])
    assert (painted[:, 3] > 0).tolist() == [False, True, True, True, False]
    assert_array_equal(painted[1:4, :3], [to_rgb(drawing.ERRORS[kind]) for kind in ("missed", "wrong class", "extra")])


def test_the_labels_of_a_region_are_one_class_unless_another_tells_them_apart(axes):
    (view,) = look_at([[[2, 3]]], [[[2, 2]]]).views
    draw_panel(axes, "differences", view, ORGANS)
    assert len(axes.images) == 1
    draw_panel(axes, "differences", view, {**ORGANS, "cortex": (3,)})
    assert axes.images[-1].get_array()[0, :, 3].tolist() == [0, 0.85]


def test_the_legend_names_every_class_with_an_underscore_too():
    labels = [handle.get_label() for handle in legend_handles(["_a", "b"], ["missed"])]
    assert labels == ["1  _a", "2  b", "missed"]
    assert [handle.get_label() for handle in legend_handles(["_a"], [])] == [" _a"]
    assert kinds_of_error([], ONE) == ["missed", "extra"]


@pytest.mark.parametrize("shape", [(40, 30), (300, 20), (20, 300), (1, 200), (200, 1), (1, 1)])
def test_a_picture_of_any_proportions(tmp_path, shape):
    truth = np.zeros((1, *shape), np.uint8)
    truth[0, : shape[0] // 2 + 1] = 1
    draw_case(look_at(truth), ORGANS, tmp_path / "a.png")
    picture = io.imread(tmp_path / "a.png")
    assert picture.shape[0] < 2000
    assert 900 <= picture.shape[1] < 3000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_wide_images_stand_two_by_two(tmp_path):
    sizes = {}
    for width in (100, 600):
        draw_case(look_at(np.ones((1, 100, width), int), classes=ONE), ONE, tmp_path / "a.png")
        sizes[width] = io.imread(tmp_path / "a.png").shape
    assert sizes[600][1] < 1.4 * sizes[100][1]


def test_colours_reach_the_picture(tmp_path):
    image = np.zeros((1, 30, 30, 3), np.float32)
    image[..., 1] = 255
    truth = np.zeros((1, 30, 30), np.uint8)
    draw_case(look_at(truth, image=image), ORGANS, tmp_path / "a.png")
    picture = io.imread(tmp_path / "a.png")[..., :3]
    assert (picture == (0, 255, 0)).all(axis=-1).mean() > 0.3


def test_odd_names_and_many_classes(tmp_path):
    classes = {f"${i}_{{^": (i,) for i in range(1, 41)}
    truth = np.arange(1600).reshape(1, 40, 40) // 40 + 1
    look = look_at(truth, name="$a_{b" + "x" * 300, classes=classes)
    draw_case(look, classes, tmp_path / "a.png")
    draw_sheet([look], classes, tmp_path / "b.png", "$sheet")
    assert io.imread(tmp_path / "a.png").size
    assert io.imread(tmp_path / "b.png").size


def test_an_overview_of_a_prediction_folder_and_its_training(tmp_path):
    write_folders(tmp_path, 2, (4, 9, 12), ".nii.gz")
    for name in ("case_0", "case_1"):
        write_volume(tmp_path / f"images/{name}_0000.nii.gz", np.random.default_rng(0).random((4, 9, 12)))
    log = {"train_losses": [0.5, -0.2], "val_losses": [0.6, -0.1], "mean_fg_dice": [0.3, 0.8]}
    sizes = []
    for curve in (None, log):
        folders = (tmp_path / name for name in ("images", "gt", "pred"))
        overview(*folders, tmp_path / "a.png", "mean Dice 0.8", log=curve)
        sizes.append(io.imread(tmp_path / "a.png").shape)
    assert sizes[0][1] == sizes[1][1]
    assert sizes[1][0] > sizes[0][0] + 300


def test_an_interrupted_picture_leaves_the_old_one(tmp_path, monkeypatch):
    look = look_at(np.ones((1, 5, 5), int))
    draw_case(look, ORGANS, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def interrupted(self, path, **settings):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_case(look, ORGANS, tmp_path / "a.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.png": before}
