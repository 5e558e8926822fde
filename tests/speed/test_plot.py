"""The picture of made-up figures."""

import pytest
from PIL import Image

from tests.speed import made_up, plot


def test_png(tmp_path):
    file = tmp_path / "all.png"
    plot.draw([made_up.everything()], file, "png")
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 900
        assert len(image.convert("L").getcolors(256)) > 20


def test_more_files_more_panels(tmp_path):
    for name, documents in (("one", [made_up.everything()]), ("two", [made_up.everything()] * 2)):
        plot.draw(documents, tmp_path / f"{name}.svg", "svg")
    one, two = ((tmp_path / f"{name}.svg").read_text().count("<!-- Made-up device") for name in ("one", "two"))
    assert one == 4
    assert two == 8


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="hold no figure that could be drawn"):
        plot.draw([made_up.document(made_up.networks()[-1:])], tmp_path / "none.png", "png")
    assert not list(tmp_path.iterdir())


def test_bars_are_told_apart_without_colour():
    def grey(colour):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return (299 * red + 587 * green + 114 * blue) / 1000

    looks = [(grey(colour), hatch) for colour, hatch in plot._STYLES.values()]
    for i, (one, hatch) in enumerate(looks):
        assert all(hatch != other_hatch or abs(one - other) > 40 for other, other_hatch in looks[i + 1 :])


def test_groups_that_have_no_room_are_owned_up_to():
    panel = plot._Panel("title", "unit")
    for row in range(plot._MOST_ROWS):
        panel.add(str(row), "bar", 1.0, ("#000000", ""))
    assert not panel.left_out
    panel.add("0", "another bar", 1.0, ("#000000", ""))
    panel.add("without a number", "bar", None, ("#000000", ""))
    assert not panel.left_out
    panel.add("one more", "bar", 1.0, ("#000000", ""))
    assert panel.left_out
    assert len(panel.rows) == plot._MOST_ROWS


def test_times_of_a_cpu_are_drawn_as_ratios():
    (panel,) = plot._panels(made_up.document([f for f in made_up.networks() if f.passes == "training step"], "cpu"))
    assert "over PlainConvUNet's" in panel.unit
    assert panel.rows["SwinUMambaD\n12 x 320x320, float16"]["fused"][0] == 2.0
    assert "no scan" in panel.rows["PlainConvUNet\n12 x 320x320, float16"]
