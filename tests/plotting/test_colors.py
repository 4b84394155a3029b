"""A label has one colour in all panels, and a colour has one label."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from scvi_sctab.plotting import label_colors, plot_embedding
from scvi_sctab.plotting._colors import BOOLEANS, MISSING


def draw(values, ax=None, **options):
    values = pd.Series(values)
    return plot_embedding(np.arange(2 * len(values)).reshape(-1, 2), values, ax, **options)


def legend_of(ax):
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    colors = [to_hex(handle.get_facecolor()[0]) for handle in legend.legend_handles]
    return dict(zip(names, colors, strict=True))


def drawn(ax, at):
    """Colour of the cell with this number."""
    for points in ax.collections:
        for (x, _), color in zip(points.get_offsets(), points.get_facecolors(), strict=False):
            if x == 2 * at:
                return to_hex(color)
    raise AssertionError(f"cell {at} is not drawn")


def test_panels_of_a_figure_give_a_label_one_colour_whatever_else_they_show():
    _, axes = plt.subplots(1, 3)
    truth = legend_of(draw(["B", "NK", "T"], axes[0]))
    predicted = legend_of(draw(["DC", "NK", "T", "B"], axes[1]))
    study = legend_of(draw(["new", "old"], axes[2]))
    assert truth == {name: predicted[name] for name in truth}
    assert len({*truth.values(), *predicted.values(), *study.values()}) == 6


def test_figures_start_with_the_same_colours():
    assert [*legend_of(draw(["B", "NK"])).values()] == [*legend_of(draw(["x", "y"])).values()]


def test_given_colours_hold_in_every_figure_and_the_cells_have_those_of_the_legend():
    colors = label_colors(["B", "NK"], ["T", "B"])
    ax = draw(["T", "B"], colors=colors)
    assert legend_of(ax) == {"B": colors["B"], "T": colors["T"]}
    assert [drawn(ax, 0), drawn(ax, 1)] == [colors["T"], colors["B"]]
    assert legend_of(draw(["T", "B"], colors={"T": "red", "B": (0, 0, 1)})) == {
        "B": "#0000ff",
        "T": "#ff0000",
    }


def test_a_label_without_a_given_colour_is_named_with_the_cure():
    with pytest.raises(ValueError, match=r"has none for 'NK'.*colors=plotting\.label_colors"):
        draw(["NK", "B"], colors={"B": "red"})


def test_categories_without_cells_are_not_named_and_shift_no_colour():
    some = pd.Categorical(["a", "c"], categories=["a", "b", "c"])
    every = pd.Categorical(["a", "b", "c"])
    assert [*legend_of(draw(some))] == ["a", "c"]
    assert legend_of(draw(some)).items() <= legend_of(draw(every)).items()
    assert label_colors(some) == label_colors(every)


def test_a_hundred_categories_without_cells_leave_the_clear_colours_to_those_with_cells():
    values = pd.Categorical(["98", "99"], categories=[*map(str, range(100))])
    assert [*legend_of(draw(values)).values()] == [*legend_of(draw(["a", "b"])).values()]


@pytest.mark.parametrize("n_labels", [21, 40, 64, 256])
def test_colours_of_many_labels_differ(n_labels):
    colors = [*label_colors([f"{i:03}" for i in range(n_labels)]).values()]
    assert len({*colors, MISSING, "#ffffff", "#000000"}) == n_labels + 3
    rgb = np.array([to_rgb(color) for color in colors[:64]])
    gaps = np.linalg.norm(rgb[:, None] - rgb, axis=-1) + 9 * np.eye(len(rgb))
    assert gaps.min() > 0.1


def test_the_first_colours_do_not_depend_on_how_many_there_are():
    few, many = label_colors(list("abc")), label_colors(list("abcdefghijklmnopqrstuvwxyz"))
    assert few.items() <= many.items()


def test_after_the_last_colour_they_start_again():
    colors = [*label_colors(range(300)).values()]
    assert len(set(colors)) == 256
    assert colors[256:] == colors[:44]


def test_missing_labels_are_grey_below_the_others_and_named_last():
    ax = draw(["a", None, "b"])
    assert [*legend_of(ax)] == ["a", "b", "missing"]
    assert legend_of(ax)["missing"] == drawn(ax, 1) == MISSING
    assert ax.collections[0].get_offsets().tolist() == [[2, 3]]
    assert [*legend_of(draw(pd.Series([None, None], dtype=object)))] == ["missing"]


def test_infinite_and_missing_numbers_are_grey_and_counted():
    ax = draw([1.0, np.nan, np.inf, 3.0])
    assert drawn(ax, 1) == drawn(ax, 2) == MISSING
    assert ax.get_xlabel() == "grey: 2 of 4 cells without a number"
    assert ax.collections[1].norm.vmax == 3
    ax = draw(pd.array([1, None, 2], dtype="Int64"))
    assert ax.get_xlabel() == "grey: 1 of 3 cells without a number"
    assert len(draw([np.nan, np.nan]).figure.axes) == 1


@pytest.mark.parametrize(
    "values",
    [
        [True, False],
        pd.array([True, False], dtype="boolean"),
        pd.Categorical([True, False]),
        np.array([True, False], dtype=object),
        ["True", "False"],
    ],
    ids=["bool", "nullable", "category", "object", "text"],
)
def test_booleans_are_two_categories_with_colours_of_their_own(values):
    ax = draw(values)
    assert legend_of(ax) == BOOLEANS
    assert len(ax.figure.axes) == 1
    assert [drawn(ax, 0), drawn(ax, 1)] == [BOOLEANS["True"], BOOLEANS["False"]]


def test_zeros_and_ones_are_no_booleans():
    assert [*legend_of(draw(pd.Categorical([0, 1])))] == ["0", "1"]
    assert len(draw([0, 1]).figure.axes) == 2
