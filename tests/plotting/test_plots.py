"""Plots show what the frame holds."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scvi_sctab.metrics import confusion, reliability
from scvi_sctab.plotting import (
    plot_confusion,
    plot_deletion,
    plot_embedding,
    plot_markers,
    plot_reliability,
)


def test_the_confusion_matrix_writes_its_shares():
    ax = plot_confusion(confusion(["B", "B", "T"], ["B", "T", "T"]))
    assert sorted(text.get_text() for text in ax.texts) == ["100%", "50%", "50%"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B (n = 2)", "T (n = 1)"]


def row_names(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_counts_of_the_rows_come_from_the_table_its_sums_or_the_argument():
    truth, predicted = ["B"] * 1203 + ["T"], ["B"] * 1200 + ["T"] * 4
    table = confusion(truth, predicted)
    assert row_names(plot_confusion(table)) == ["B (n = 1,203)", "T (n = 1)"]
    assert row_names(plot_confusion(table.loc[["T"]])) == ["T (n = 1)"]
    assert row_names(plot_confusion(table, n_cells={"B": 7})) == ["B (n = 7)", "T"]
    counts = pd.Series(truth).value_counts()
    assert row_names(plot_confusion(table, n_cells=counts)) == ["B (n = 1,203)", "T (n = 1)"]
    table.attrs.clear()
    assert row_names(plot_confusion(table)) == ["B", "T"]


def test_counts_are_drawn_as_shares_of_their_row_and_rows_without_cells_are_grey():
    counts = pd.DataFrame([[3, 1, 0], [0, 0, 0]], index=["B", "T"], columns=["B", "T", "NK"])
    ax = plot_confusion(counts)
    assert row_names(ax) == ["B (n = 4)", "T (n = 0)"]
    np.testing.assert_array_equal(
        np.ma.filled(ax.images[0].get_array(), np.nan), [[0.75, 0.25, 0], [np.nan] * 3]
    )
    assert to_hex(ax.get_facecolor()) == "#e6e6e6"
    assert sorted(text.get_text() for text in ax.texts) == ["25%", "75%"]


def test_numbers_in_a_confusion_matrix_shrink_and_vanish_where_cells_are_small():
    tables = {n: pd.DataFrame(np.eye(n)) for n in (5, 35, 90)}
    few, some, many = (plot_confusion(table) for table in tables.values())
    assert {text.get_text() for text in few.texts} == {"100%"}
    assert {text.get_text() for text in some.texts} == {"100"}
    assert some.get_xlabel() == "predicted (numbers: % of the row)"
    assert len(many.texts) == 0
    assert [len(ax.figure.axes) for ax in (few, some, many)] == [1, 1, 2]


def test_reliability_curves_share_axes_and_one_diagonal():
    bins = reliability(np.linspace(0, 1, 50), np.arange(50) % 2 == 0)
    ax = plot_reliability(bins, label="one")
    plot_reliability(bins, ax, label="two")
    assert len(ax.lines) == 3
    np.testing.assert_allclose(ax.lines[1].get_ydata(), bins["accuracy"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["one", "two"]
    assert len(ax.child_axes) == 1
    assert ax.lines[1].get_color() != ax.lines[2].get_color()


def heights(collection):
    return np.array([segment[:, 1] for segment in collection.get_segments()])


def test_reliability_shows_intervals_and_how_many_cells_a_point_stands_for():
    bins = reliability([0.05, 0.05, 0.05, 0.95], [False, True, False, True])
    ax = plot_reliability(bins)
    np.testing.assert_allclose(heights(ax.collections[0]), bins[["low", "high"]])
    (below,) = ax.child_axes
    np.testing.assert_allclose(heights(below.collections[0])[:, 1], [3, 1])
    low, high = below.get_ylim()
    assert low < 1
    assert high > 3
    assert ax.get_legend() is None
    without = plot_reliability(bins.drop(columns=["low", "high"]))
    assert len(without.collections) == 0


def test_the_calibration_error_stands_behind_the_name():
    bins = reliability([0.2, 0.9], [False, True])
    ax = plot_reliability(bins, label="unseen donors", ece=0.0321)
    plot_reliability(bins, ax, ece=0.5)
    plot_reliability(bins, ax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["unseen donors (ECE 0.032)", "(ECE 0.500)"]
    assert len({line.get_color() for line in ax.lines[1:]}) == 3


def test_embeddings_show_categories_in_a_legend_and_numbers_in_a_bar():
    coordinates = np.random.default_rng(0).normal(size=(9, 2))
    ax = plot_embedding(coordinates, pd.Series(list("abc") * 3, name="label", dtype="category"))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert ax.get_title() == "label"
    ax = plot_embedding(coordinates, pd.Series(np.arange(9.0), name="uncertainty"))
    assert len(ax.figure.axes) == 2
    shown = np.sort(ax.collections[0].get_array())
    np.testing.assert_array_equal(shown, np.arange(9.0))


def test_coordinates_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"does not give two for each"):
        plot_embedding(np.zeros((3, 2)), pd.Series([1.0]))


def test_markers_stand_in_their_row_best_first():
    markers = pd.DataFrame(
        {
            "group": ["B", "B", "B", "T", "T", "T"],
            "gene": ["CD79A", "MS4A1", "CD74", "CD3D", "CD3E", "IL7R"],
            "score": [2.0, 1.0, 0.1, 4.0, 3.0, 1.0],
            "expression": [1.0, 2.0, 3.0, 0.5, 0.0, 2.5],
        }
    )
    ax = plot_markers(markers, n_genes=2)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B", "T"]
    written = {t.get_text(): (t.get_position()[0], round(t.get_position()[1])) for t in ax.texts}
    assert written == {"CD79A": (0, 0), "MS4A1": (1, 0), "CD3D": (0, 1), "CD3E": (1, 1)}
    (dots,) = ax.collections
    shown = {tuple(xy): (area, value) for xy, area, value in
             zip(dots.get_offsets(), dots.get_sizes(), dots.get_array(), strict=True)}  # fmt: skip
    assert shown[1, 0][0] == pytest.approx(shown[0, 0][0] / 2)
    assert shown[1, 1][0] == pytest.approx(shown[0, 1][0] * 3 / 4)
    assert [shown[0, 0][1], shown[1, 1][1]] == [1.0, 0.0]
    with pytest.raises(ValueError, match="the frame is empty"):
        plot_markers(markers.iloc[:0])


def test_deletion_curves_have_a_line_per_ranking_and_random_dashed():
    table = pd.DataFrame(
        {
            "ranking": ["markers", "markers", "random", "random"],
            "n_genes": [20, 5, 5, 20],
            "drop": [0.6, 0.3, 0.01, 0.05],
        }
    )
    ax = plot_deletion(table)
    assert [line.get_label() for line in ax.lines] == ["markers", "random"]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [5, 20])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.3, 0.6])
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--"]


def test_markers_without_a_group_or_a_score_are_left_out_and_without_expression_white():
    markers = pd.DataFrame(
        {
            "group": pd.Categorical(["B", None, "B", "B"], categories=["B", "T"]),
            "gene": ["CD79A", "MS4A1", "CD74", "CD3D"],
            "score": [2.0, 1.0, np.nan, 1.0],
            "expression": [1.0, 2.0, 3.0, np.nan],
        }
    )
    ax = plot_markers(markers)
    assert row_names(ax) == ["B"]
    assert [text.get_text() for text in ax.texts] == ["CD79A", "CD3D"]
    (dots,) = ax.collections
    ax.figure.canvas.draw()
    assert [to_hex(color) for color in dots.get_facecolors()][1] == "#ffffff"
    with pytest.raises(ValueError, match="with a group, a gene and a score in each row"):
        plot_markers(markers.assign(score=np.nan))
    with pytest.raises(ValueError, match=r"n_genes=0 draws nothing; pass at least 1"):
        plot_markers(markers, n_genes=0)
