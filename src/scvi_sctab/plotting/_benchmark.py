"""Plots of benchmarks: comparison of methods, and scaling with the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import LogFormatter

from scvi_sctab.plotting._axes import (
    lay_out,
    name_rows,
    name_values,
    names_inches,
    new_axes,
)
from scvi_sctab.plotting._colors import panel_colors
from scvi_sctab.plotting._frames import require
from scvi_sctab.plotting._legend import axes_with_legend, legend_beside, legend_inches

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection

_NAMES = {
    "macro_f1": "macro F1",
    "ece": "expected calibration error",
    "seconds": "seconds",
    "fit_seconds": "seconds to fit",
    "predict_seconds": "seconds to predict",
}
_LESS_IS_BETTER = {"ece", "seconds", "fit_seconds", "predict_seconds"}
_MARKERS = "osD^vPX*"
_INCHES = 5.0, 3.6
# Inches: limit of all rows together, and least height of a row with a name.
_ALL_ROWS, _MIN_ROW = 10.0, 0.15


def plot_benchmark(
    results: pd.DataFrame, metric: str = "macro_f1", ax: Axes | None = None
) -> Axes:
    """Draw a row per method, best on top, and a point per task.

    Parameters
    ----------
    results
        A table of :func:`scvi_sctab.benchmark.run`.
    metric
        Metric of the table.
    ax
        Axes to draw on; a new figure that fits the table if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.

    Returns
    -------
    The axes. A point is the mean over seeds, its line reaches from the smallest to the largest
    value, a bar is the mean over tasks. The number of failed runs is written beside the method.

    Raises
    ------
    ValueError
        If the table is empty, or lacks a column or the metric.
    """
    runs = _runs(results, metric)
    means = runs.groupby(["method", "task"], sort=False)[metric].mean().groupby("method").mean()
    methods = means.sort_values(ascending=metric not in _LESS_IS_BETTER, na_position="first").index
    tasks = list(dict.fromkeys(runs["task"]))
    notes = [_failures(method, runs) for method in methods]
    if ax is None:
        row = min(0.3 + 0.09 * len(tasks), max(_MIN_ROW, _ALL_ROWS / len(methods)))
        height = 1.3 + len(methods) * row
        width, needed = legend_inches(tasks, height - 0.6)
        left = names_inches(methods, notes)
        ax = new_axes(3.8 + left + width, max(height, needed + 0.6))
    ax.set_xlabel(_NAMES.get(metric, metric))
    if metric.endswith("_seconds"):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(LogFormatter())
    points = _draw_tasks(ax, runs, metric, methods, tasks)
    rows = np.arange(len(methods))
    ax.vlines(means[methods], rows - 0.36, rows + 0.36, color="0.25", linewidth=1.5, zorder=1)
    ax.set_ylim(-0.6, len(methods) - 0.4)
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    name_rows(ax, methods, notes=notes)
    _, height = lay_out(ax)
    across = np.clip(height / len(methods) / len(tasks), 2.5, 5.3)
    for own in points:
        own.set_sizes([across**2])
    legend_beside(ax, points, tasks)
    return ax


def _draw_tasks(
    ax: Axes, runs: pd.DataFrame, metric: str, methods: pd.Index, tasks: list[str]
) -> list[PathCollection]:
    """Draw the mean, minimum and maximum of each task, with vertical offsets."""
    heights = np.linspace(0.3, -0.3, len(tasks) + 2)[1:-1]
    colors = panel_colors(ax, tasks)
    points = []
    for i, task in enumerate(tasks):
        values = runs[runs["task"] == task].groupby("method")[metric]
        values = values.agg(["mean", "min", "max"]).reindex(methods)
        y = np.arange(len(methods)) + heights[i]
        ax.hlines(y, values["min"], values["max"], color=colors[task], linewidth=1.5)
        points.append(
            ax.scatter(
                values["mean"], y, color=colors[task], marker=_MARKERS[i % len(_MARKERS)],
                label=task, zorder=3,
            )
        )  # fmt: skip
    return points


def plot_scaling(
    results: pd.DataFrame, metric: str = "macro_f1", by: str = "donors", ax: Axes | None = None
) -> Axes:
    """Draw a metric against the share of the training data, as the scTab paper does.

    Parameters
    ----------
    results
        A table of :func:`scvi_sctab.benchmark.paper_protocol`.
    metric
        Metric of the table.
    by
        ``"donors"`` or ``"cells"``: unit of the share.
    ax
        Axes to draw on; a new figure that fits the legend if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.

    Returns
    -------
    The axes. A point is the mean over seeds, its line reaches from the smallest to the largest
    value.

    Raises
    ------
    ValueError
        If the table is empty, lacks a column or the metric, or has no shares of ``by``.
    """
    require(results, ("by", "fraction"), "benchmark.paper_protocol")
    runs = _runs(results, metric)
    runs = runs[runs["by"] == by]
    if runs.empty:
        raise ValueError(
            f"The table has no shares of {by!r}; it has {sorted(set(results['by']))}."
        )
    # Colours by the order of the table, so that they are the same for every `by` and metric.
    methods = [str(method) for method in dict.fromkeys(results["method"])]
    notes = [_failures(method, runs) for method in methods]
    if ax is None:
        ax = axes_with_legend(_INCHES, methods, notes)
    colors = panel_colors(ax, methods)
    curves = []
    for i, method in enumerate(methods):
        values = runs[runs["method"] == method].groupby("fraction")[metric]
        values = values.agg(["mean", "min", "max"])
        spread = np.abs(values[["min", "max"]].sub(values["mean"], axis=0)).to_numpy().T
        curves.append(
            ax.errorbar(
                values.index, values["mean"], spread, marker=_MARKERS[i % len(_MARKERS)],
                markersize=5, linewidth=1.3, capsize=2, color=colors[method], label=method,
            )
        )  # fmt: skip
    ax.set_xlabel(f"share of the {by} to learn from")
    ax.set_ylabel(_NAMES.get(metric, metric))
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax, curves, methods, notes)
    shares = sorted(set(runs["fraction"]))
    name_values(ax, shares, [f"{share:.0%}" for share in shares])
    return ax


def _runs(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Select the runs that have a metric or failed, with names as text."""
    require(results, ("method", "task", metric), "benchmark.run")
    runs = results.astype({"method": str, "task": str})
    if "error" not in runs:
        return runs.assign(failed=runs[metric].isna())
    # What a method does not state, such as a probability, is no failure.
    runs["failed"] = runs["error"].fillna("").ne("")
    return runs[runs["failed"] | runs[metric].notna()]


def _failures(method: str, runs: pd.DataFrame) -> str:
    failed = runs.loc[runs["method"] == method, "failed"]
    if not failed.any():
        return ""
    return f" ({'all' if failed.all() else failed.sum()} failed)"
