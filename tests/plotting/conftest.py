"""Figures that close, names that are long, and what geometry a readable plot has."""

import itertools

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    matplotlib.pyplot.close("all")


KINDS = [
    "CD8-positive, alpha-beta memory T cell, CD45RO-positive",
    "CD4-positive, alpha-beta memory T cell, CD45RO-positive",
    "CD8-positive, alpha-beta T cell",
    "naive thymus-derived CD4-positive, alpha-beta T cell",
    "effector memory CD8-positive, alpha-beta T cell, terminally differentiated",
    "CD16-negative, CD56-bright natural killer cell, human",
    "kidney loop of Henle thick ascending limb epithelial cell",
    "B cell",
]


@pytest.fixture
def long_labels():
    """Make n labels as long as those of the Cell Ontology, some of which differ in the middle."""

    def make(n):
        numbers = itertools.count()
        every = (f"{kind}, state {next(numbers)} of tissue" for kind in itertools.cycle(KINDS))
        return [*KINDS, *itertools.islice(every, max(0, n - len(KINDS)))][:n]

    return make


def written(axes):
    """Texts that one sees, inset panels and legends among them, with their boxes."""
    ticks = [
        text
        for i, axis in enumerate((axes.xaxis, axes.yaxis))
        for text in axis.get_ticklabels()
        if np.ptp([*axis.get_view_interval(), text.get_position()[i]])
        == np.ptp(axis.get_view_interval())
    ]
    legend = axes.get_legend()
    texts = [*ticks, *axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
    texts += legend.get_texts() if legend else []
    own = [(t, t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]
    return own + [pair for child in axes.child_axes for pair in written(child)]


@pytest.fixture
def assert_readable():
    """Texts of at least 7 points, within the figure, none over another; legends beside axes."""

    def check(figure):
        figure.canvas.draw()
        texts = [pair for axes in figure.axes for pair in written(axes)]
        assert texts
        names = [text.get_text() for text, _ in texts]
        assert all(text.get_fontsize() >= 7 for text, _ in texts)
        boxes = np.array([box.extents for _, box in texts])
        low, high = boxes[:, :2], boxes[:, 2:]
        cut = ((low < figure.bbox.min - 1) | (high > figure.bbox.max + 1)).any(axis=1)
        assert [names[i] for i in np.flatnonzero(cut)] == []
        shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        over = np.argwhere(np.triu((shared > 0.6).all(axis=-1), k=1))
        assert [(names[i], names[j]) for i, j in over] == []
        for axes in figure.axes:
            if axes.get_legend():
                assert axes.get_legend().get_window_extent().x0 >= axes.bbox.x1
        assert max(figure.get_size_inches()) <= 18

    return check
