"""Plots show what the frame holds."""

import numpy as np
import pandas as pd
import pytest

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


def test_reliability_curves_share_axes_and_one_diagonal():
    bins = reliability(np.linspace(0, 1, 50), np.arange(50) % 2 == 0)
    ax = plot_reliability(bins, label="one")
    plot_reliability(bins, ax, label="two")
    assert len(ax.lines) == 3
    np.testing.assert_allclose(ax.lines[1].get_ydata(), bins["accuracy"])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["one", "two"]


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
