"""Plots of many long names are read as easily as those of a few short ones."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scvi_sctab import plotting
from scvi_sctab.metrics import confusion, reliability

GENES = ["CD79A", "HLA-DQA1", "MS4A1", "ENSG00000211592", "LYZ", "S100A9", "FCGR3A", "GNLY"]


def embedding(labels, ax):
    codes = np.arange(300) % len(labels)
    coordinates = np.random.default_rng(0).normal(size=(300, 2))
    values = pd.Series(pd.Categorical.from_codes(codes, labels), name="predicted label")
    values[:5] = None
    return plotting.plot_embedding(coordinates, values, ax)


def confusion_matrix(labels, ax):
    truth = np.repeat(labels, np.arange(1, len(labels) + 1) ** 2)
    return plotting.plot_confusion(confusion(truth, np.roll(truth, 20)), ax)


def benchmark(labels, ax):
    rows = [
        {"method": m, "task": s, "seed": 0, "fit_seconds": 1 + i * j % 7}
        for i, m in enumerate(labels)
        for j, s in enumerate(labels[:3])
    ]
    rows[0]["fit_seconds"] = np.nan
    return plotting.plot_benchmark(pd.DataFrame(rows), "fit_seconds", ax)


def scaling(labels, ax):
    rows = [
        {"method": m, "task": str(f), "seed": s, "macro_f1": f * s / 2, "by": "donors",
         "fraction": f}
        for m in labels for f in (0.01, 0.02, 0.05, 0.1, 0.5, 1) for s in (1, 2)
    ]  # fmt: skip
    rows[0]["macro_f1"] = np.nan
    return plotting.plot_scaling(pd.DataFrame(rows), ax=ax)


def deletion(labels, ax):
    rows = [
        {"ranking": r, "n_genes": n, "drop": n / 1000}
        for r in [*labels, "random"]
        for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 500, 501, 1000)
    ]
    return plotting.plot_deletion(pd.DataFrame(rows), ax)


def markers(labels, ax):
    rows = [
        {"group": label, "gene": gene, "score": i, "expression": i}
        for label in labels
        for i, gene in enumerate(GENES)
    ]
    return plotting.plot_markers(pd.DataFrame(rows), ax=ax)


def reliability_of_some(labels, ax):
    stated = np.linspace(0, 1, 60)
    for label in labels[:: max(1, len(labels) // 2)]:
        bins = reliability(stated, np.arange(60) % 3 > 0)
        ax = plotting.plot_reliability(bins, ax, label=label, ece=0.123)
    return ax


PLOTS = [
    embedding, confusion_matrix, benchmark, scaling, deletion, markers, reliability_of_some
]  # fmt: skip
every_plot = pytest.mark.parametrize("draw", PLOTS)


@every_plot
@pytest.mark.parametrize("n_labels", [1, 40])
def test_a_plot_of_long_labels_is_readable(draw, n_labels, long_labels, assert_readable):
    assert_readable(draw(long_labels(n_labels), None).figure)


@every_plot
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="of_the_usual_size"),
        pytest.param(
            {"ncols": 2, "figsize": (12, 5), "layout": "constrained"}, id="beside_another"
        ),
    ],
)
def test_forty_long_labels_are_readable_on_given_axes(draw, given, long_labels, assert_readable):
    figure, axes = plt.subplots(squeeze=False, **given)
    for ax in axes.flat:
        assert draw(long_labels(40), ax) is ax
    assert_readable(figure)


@every_plot
def test_a_figure_that_is_laid_out_by_hand_can_be_laid_out_again(draw, long_labels):
    figure, ax = plt.subplots()
    draw(long_labels(3), ax)
    figure.tight_layout()
    figure.subplots_adjust(left=0.4)


def test_all_of_forty_methods_are_named_where_the_figure_is_ours(long_labels):
    ax = benchmark(long_labels(40), None)
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(set(names)) == 40
    assert all(names)
    assert ax.get_ylabel() == ""


def test_axes_that_are_too_low_for_all_names_say_how_many_they_name(long_labels):
    ax = confusion_matrix(long_labels(40), plt.subplots(figsize=(8, 4))[1])
    n_named = sum(bool(text.get_text()) for text in ax.get_yticklabels())
    assert 5 < n_named < 40
    assert ax.get_ylabel() == f"true ({n_named} of 40 named)"


def test_a_legend_without_room_for_all_counts_the_rest(long_labels):
    ax = embedding(long_labels(100), plt.subplots(figsize=(3, 2))[1])
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown[-1] == f"+ {101 - (len(shown) - 1)} more"


def test_names_are_written_as_they_are_whatever_matplotlib_makes_of_them():
    names = ["_hidden", "a $x_1$ b$", "two\nlines"]
    ax = plotting.plot_embedding(np.zeros((3, 2)), pd.Series(names, dtype="category"))
    texts = ax.get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["_hidden", "a $x_1$ b$", "two lines"]
    assert not any(text.get_parse_math() for text in texts)


EMPTY = {
    "plot_confusion": r"The table is empty.*metrics\.confusion\(truth, predicted\)",
    "plot_reliability": r"no column 'probability'.*Draw a table of metrics\.reliability",
    "plot_deletion": r"no column 'ranking'.*Draw a table of SCTAB\.deletion_test",
    "plot_markers": r"no column 'group'.*Draw a table of SCTAB\.get_markers",
    "plot_benchmark": r"no column 'method'.*Draw a table of benchmark\.run",
    "plot_scaling": r"no column 'by'.*Draw a table of benchmark\.paper_protocol",
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_frame_without_anything_is_refused_with_what_makes_one(name):
    with pytest.raises(ValueError, match=EMPTY[name]):
        getattr(plotting, name)(pd.DataFrame())
    assert plt.get_fignums() == []


WITHOUT_ROWS = {
    "plot_reliability": (["probability", "accuracy", "n_cells"], "of at least one cell"),
    "plot_deletion": (["ranking", "n_genes", "drop"], "SCTAB.deletion_test"),
    "plot_markers": (["group", "gene", "score", "expression"], "SCTAB.get_markers"),
    "plot_benchmark": (["method", "task", "macro_f1"], "benchmark.run"),
}


@pytest.mark.parametrize("name", WITHOUT_ROWS)
def test_a_frame_without_rows_is_refused_with_what_makes_one(name):
    columns, source = WITHOUT_ROWS[name]
    with pytest.raises(ValueError, match=rf"the frame is empty\. Draw a table of .*{source}"):
        getattr(plotting, name)(pd.DataFrame(columns=columns))


def test_no_cells_are_refused_before_a_figure_is_made():
    with pytest.raises(ValueError, match=r"no cells to draw.*print\(adata\.n_obs\)"):
        plotting.plot_embedding(np.zeros((0, 2)), pd.Series([], dtype="category"))
    assert plt.get_fignums() == []
