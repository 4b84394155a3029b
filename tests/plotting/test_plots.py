"""Plots show what the frame holds."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from scvi_sctab.metrics import confusion, reliability
from scvi_sctab.plotting import plot_confusion, plot_embedding, plot_reliability

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    matplotlib.pyplot.close("all")


def test_the_confusion_matrix_writes_its_shares():
    ax = plot_confusion(confusion(["B", "B", "T"], ["B", "T", "T"]))
    assert sorted(text.get_text() for text in ax.texts) == ["100%", "50%", "50%"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["B", "T"]


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
