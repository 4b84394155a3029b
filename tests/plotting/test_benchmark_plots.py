"""Plots of a benchmark show its table."""

import numpy as np
import pandas as pd
import pytest

from scvi_sctab.plotting import plot_benchmark, plot_scaling


def rows(method, task, values, **more):
    return [
        {"method": method, "task": task, "seed": i, "macro_f1": v, **more}
        for i, v in enumerate(values)
    ]


@pytest.fixture
def results():
    return pd.DataFrame(
        rows("low", "one", [0.2, 0.4], seconds=2.0)
        + rows("low", "two", [0.3, 0.3], seconds=2.0)
        + rows("high", "one", [0.9, 0.7], seconds=9.0)
        + rows("high", "two", [0.5, np.nan], seconds=9.0)
        + rows("none", "one", [np.nan])
    )


def tick_labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_methods_are_ordered_by_their_mean_and_failures_are_told(results):
    ax = plot_benchmark(results)
    assert tick_labels(ax) == ["none (all failed)", "low", "high (1 failed)"]
    assert tick_labels(plot_benchmark(results.dropna(), "seconds")) == ["high", "low"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_points_are_means_over_seeds_and_lines_reach_the_extremes(results):
    ax = plot_benchmark(results)
    lines, points = ax.collections[0], ax.collections[1]
    x, y = points.get_offsets().T
    np.testing.assert_allclose(x[1:], [0.3, 0.8])
    assert (np.abs(y - [0, 1, 2]) < 0.5).all()
    np.testing.assert_allclose(
        [s[:, 0] for s in lines.get_segments()[-2:]], [[0.2, 0.4], [0.7, 0.9]]
    )
    bars = [segment[0, 0] for segment in ax.collections[-1].get_segments()[-2:]]
    np.testing.assert_allclose(bars[-2:], [0.3, (0.8 + 0.5) / 2])


def test_scaling_draws_a_curve_per_method_over_shares():
    table = pd.DataFrame(
        rows("a", "1", [0.2, 0.4], by="cells", fraction=0.3)
        + rows("a", "2", [0.8], by="cells", fraction=1.0)
        + rows("b", "2", [0.5], by="cells", fraction=1.0)
        + rows("a", "3", [0.9], by="donors", fraction=1.0)
    )
    ax = plot_scaling(table, by="cells")
    line = ax.lines[0]
    np.testing.assert_allclose(line.get_xdata().astype(float), [0.3, 1.0])
    np.testing.assert_allclose(line.get_ydata().astype(float), [0.3, 0.8])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["30%", "100%"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match=r"no shares of 'genes'; it has \['cells', 'donors'\]"):
        plot_scaling(table, by="genes")


def test_a_metric_that_is_not_there_is_named(results):
    with pytest.raises(ValueError, match=r"no column 'ece'; it has \['method'.*benchmark\.run"):
        plot_benchmark(results, "ece")


def test_what_a_method_does_not_state_is_no_failure(results):
    results["error"] = np.where(results["method"] == "none", "RuntimeError: no luck", "")
    ece = results["macro_f1"].where(results["method"] == "high")
    ax = plot_benchmark(results.assign(ece=ece), "ece")
    assert tick_labels(ax) == ["none (all failed)", "high"]


def test_a_table_whose_names_are_categories_shows_those_with_runs(results):
    results = results.astype({"method": "category", "task": "category"})
    results = results[results["method"] != "low"]
    assert tick_labels(plot_benchmark(results)) == ["none (all failed)", "high (1 failed)"]
