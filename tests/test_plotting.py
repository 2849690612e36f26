"""Labels that do not overlap, bands and dots that show the numbers they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import lrlib
from lrlib import plotting


@pytest.fixture
def ax():
    plotting.use_style()
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_labels_stand_at_the_line_ends_in_their_colours_and_apart(ax):
    for k in range(6):
        ax.plot([0, 1], [0, 0.001 * k], label=f"line {k}")
    ax.plot([0, 1], [1, 1])
    lrlib.label_lines(ax)
    assert [text.get_text() for text in ax.texts] == [f"line {k}" for k in range(6)]
    assert [text.get_color() for text in ax.texts] == [line.get_color() for line in ax.get_lines()[:6]]
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in zip(boxes, boxes[1:], strict=False))


def test_labels_stay_inside_of_the_axes_and_beside_the_last_finite_point(ax):
    for k in range(4):
        ax.plot([0, 1, 2], [0, 1 + 0.001 * k, np.nan], label=f"line {k}")
    ax.set_ylim(-1, 1.001)
    lrlib.label_lines(ax)
    assert [tuple(map(float, text.xy)) for text in ax.texts] == [(1.0, 1 + 0.001 * k) for k in range(4)]
    ax.figure.canvas.draw()
    centres = [(text.get_window_extent().y0 + text.get_window_extent().y1) / 2 for text in ax.texts]
    assert np.diff(centres).min() > 10 and centres[-1] <= ax.bbox.y1 + 1


def test_no_lines_no_labels(ax):
    lrlib.label_lines(ax)
    assert not ax.texts


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_line_of_a_run_that_diverged_at_once_has_no_label_and_disturbs_no_other(ax, scale):
    ax.plot([0, 1], [np.nan, np.nan], label="gone")
    ax.plot([0, 1], [np.inf, 2.0], label="there")
    ax.set_yscale(scale)
    lrlib.label_lines(ax)
    assert [text.get_text() for text in ax.texts] == ["there"]


def test_colours_and_dashes_both_differ_between_lines(ax):
    lines = [ax.plot([0, 1])[0] for _ in plotting.COLORS]
    assert len({line.get_color() for line in lines}) == len({str(line._dash_pattern) for line in lines}) == len(lines)


def test_a_band_shows_mean_and_deviation(ax):
    runs = np.array([[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]])
    lrlib.band(ax, [0, 1], runs, "runs")
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [2, 4])
    vertices = ax.collections[0].get_paths()[0].vertices
    assert {(0.0, 1.0), (0.0, 3.0), (1.0, 2.0), (1.0, 6.0)} <= {tuple(map(float, v)) for v in vertices}
    with pytest.raises(ValueError, match="runs"):
        lrlib.band(ax, [0, 1], runs[0], "one run")


def test_dots_show_every_seed_and_the_names_from_top_to_bottom(ax):
    lrlib.dot_intervals(ax, {"a": [1.0, 2.0], "b": [3.0, 5.0]}, "unit")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    low, high = ax.get_ylim()
    assert low > high and ax.get_xlabel() == "unit"
    assert ax.get_lines()[0].get_xdata().tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"values\['c'\].*at least 2 seeds"):
        lrlib.dot_intervals(ax, {"a": [1.0, 2.0], "c": [1.0]}, "unit")


def test_a_line_across_the_axes_is_labelled_at_its_right_end(ax):
    ax.plot([100, 200], [1, 2], label="a")
    ax.axhline(1.5, label="edge")
    lrlib.label_lines(ax)
    ax.figure.canvas.draw()
    left = {text.get_text(): text.get_window_extent().x0 for text in ax.texts}
    assert left["edge"] > ax.bbox.x1 and left["edge"] > left["a"]


def test_labels_stand_at_categories_and_not_at_masked_points(ax):
    ax.plot(["u", "v"], [1, 2], label="categories")
    ax.plot(["u", "v"], np.ma.masked_equal([3, 9], 9), label="masked")
    lrlib.label_lines(ax)
    assert {text.get_text(): tuple(map(float, text.xy)) for text in ax.texts} == {
        "categories": (1.0, 2.0),
        "masked": (0.0, 3.0),
    }


@pytest.mark.parametrize("wrong", [[1.0], [1.0, float("nan")], [[1.0, 2.0]]])
def test_dots_of_treatments_that_do_not_fit_are_refused_before_any_is_drawn(ax, wrong):
    with pytest.raises(ValueError, match=r"values\['second'\].*must be one finite value per seed"):
        lrlib.dot_intervals(ax, {"first": [1.0, 2.0], "second": wrong}, "loss")
    assert not ax.lines and not ax.containers
