"""Methods beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_NAMES = {
    "f1_macro": "macro F1",
    "ece": "expected calibration error",
    "fit_seconds": "seconds to fit",
    "predict_seconds": "seconds to predict",
}
_LESS_IS_BETTER = {"ece", "fit_seconds", "predict_seconds"}
_MARKERS = "osD^vPX*"


def plot_benchmark(
    results: pd.DataFrame, metric: str = "f1_macro", ax: Axes | None = None
) -> Axes:
    """Draw a row per method, best on top, and a point per split.

    Parameters
    ----------
    results
        A table of :func:`scvi_sctab.metrics.benchmark`.
    metric
        Which of its metrics.
    ax
        Where to draw; a figure that fits the table if not given.

    Returns
    -------
    The axes. A point is the mean over seeds, its line reaches from the smallest to the largest, a
    bar is the mean over splits. Runs that failed are counted beside the
    method.

    Raises
    ------
    ValueError
        If the table lacks the metric.
    """
    runs = _runs(results, metric)
    means = runs.groupby(["method", "split"], sort=False)["value"].mean().groupby("method").mean()
    methods = means.sort_values(ascending=metric not in _LESS_IS_BETTER, na_position="first").index
    splits = list(dict.fromkeys(runs["split"]))
    if ax is None:
        size = 6.4, 1.3 + len(methods) * (0.3 + 0.09 * len(splits))
        _, ax = plt.subplots(figsize=size, layout="constrained")
    heights = dict(zip(splits, np.linspace(0.3, -0.3, len(splits) + 2)[1:-1], strict=True))
    palette = plt.get_cmap("tab10")
    for i, split in enumerate(splits):
        values = runs[runs["split"] == split].groupby("method")["value"]
        values = values.agg(["mean", "min", "max"]).reindex(methods)
        y = np.arange(len(methods)) + heights[split]
        color, marker = palette(i % 10), _MARKERS[i % len(_MARKERS)]
        ax.hlines(y, values["min"], values["max"], color=color, linewidth=1.5)
        ax.scatter(values["mean"], y, color=color, marker=marker, s=28, label=split, zorder=3)
    rows = np.arange(len(methods))
    ax.vlines(means[methods], rows - 0.36, rows + 0.36, color="0.25", linewidth=1.5, zorder=1)
    ax.set_yticks(rows, [_with_failures(method, runs) for method in methods])
    ax.set_ylim(-0.6, len(methods) - 0.4)
    ax.set_xlabel(_NAMES.get(metric, metric))
    if metric.endswith("_seconds"):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def plot_scaling(
    results: pd.DataFrame, metric: str = "f1_macro", by: str = "donors", ax: Axes | None = None
) -> Axes:
    """Draw how methods do with more to learn from, as the scTab paper does.

    Parameters
    ----------
    results
        A table of :func:`scvi_sctab.metrics.paper_protocol`.
    metric
        Which of its metrics.
    by
        ``"donors"`` or ``"cells"``: of what the share grows.
    ax
        Where to draw; a new figure if not given.

    Returns
    -------
    The axes. A point is the mean over seeds, its line reaches from the smallest to the largest.

    Raises
    ------
    ValueError
        If the table lacks the metric, or has no shares of ``by``.
    """
    runs = _runs(results, metric)
    runs = runs[runs["by"] == by]
    if runs.empty:
        raise ValueError(
            f"The table has no shares of {by!r}; it has {sorted(set(results['by']))}."
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    # The order of the table gives colours, so that they are the same for every `by` and metric.
    for i, method in enumerate(dict.fromkeys(results["method"])):
        values = runs[runs["method"] == method].groupby("fraction")["value"]
        values = values.agg(["mean", "min", "max"])
        spread = np.abs(values[["min", "max"]].sub(values["mean"], axis=0)).to_numpy().T
        ax.errorbar(
            values.index,
            values["mean"],
            spread,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=5,
            linewidth=1.3,
            capsize=2,
            color=f"C{i}",
            label=_with_failures(method, runs),
        )
    shares = sorted(set(runs["fraction"]))
    ax.set_xticks(shares, [f"{share:.0%}" for share in shares])
    ax.set_xlabel(f"share of the {by} to learn from")
    ax.set_ylabel(_NAMES.get(metric, metric))
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def _runs(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    runs = results[results["metric"] == metric]
    if runs.empty:
        raise ValueError(f"The table has no {metric!r}; it has {sorted(set(results['metric']))}.")
    return runs


def _with_failures(method: str, runs: pd.DataFrame) -> str:
    values = runs.loc[runs["method"] == method, "value"]
    n_failed = values.isna().sum()
    if not n_failed:
        return method
    return f"{method}\n({'all' if n_failed == len(values) else n_failed} failed)"
