"""Reliability diagram: observed accuracy against stated probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from matplotlib.ticker import LogLocator, NullLocator

from scvi_sctab.plotting._axes import settle
from scvi_sctab.plotting._colors import panel_colors
from scvi_sctab.plotting._frames import require
from scvi_sctab.plotting._legend import axes_with_legend, legend_beside

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_INCHES = 4.4, 5.0
_SHIFT = 0.012
_PANEL, _CURVE = "sizes of bins", "curve:"


def plot_reliability(
    bins: pd.DataFrame,
    ax: Axes | None = None,
    label: str | None = None,
    ece: float | None = None,
) -> Axes:
    """Draw bins of :func:`scvi_sctab.metrics.reliability`, with the diagonal of calibration.

    Parameters
    ----------
    bins
        Columns ``probability``, ``accuracy``, ``n_cells``, and ``low``, ``high`` for intervals.
    ax
        Axes to draw on; a new figure if not given. Call again with the same axes to compare. A
        figure without a layout engine is laid out by
        :meth:`~matplotlib.figure.Figure.tight_layout`.
    label
        Name in the legend.
    ece
        Expected calibration error, for the legend.

    Returns
    -------
    The axes. Lines at the points are the intervals of the accuracy; the panel below,
    ``ax.child_axes[-1]``, shows the number of cells of each point.

    Raises
    ------
    ValueError
        If a column is missing, or there are no bins.
    """
    require(
        bins, ("probability", "accuracy", "n_cells"), "metrics.reliability, of at least one cell"
    )
    note = "" if ece is None else f" (ECE {ece:.3f})"
    if ax is None:
        ax = axes_with_legend(_INCHES, [label or ""], [note])
    below = _panel_below(ax)
    n_before = len(_curves(ax))
    name = label or f"curve {n_before + 1}"
    color = panel_colors(ax, [name])[name]
    bins = bins.sort_values("probability")
    stated = bins["probability"]
    (line,) = ax.plot(
        stated, bins["accuracy"], color=color, linewidth=1.2, marker="o", markersize=4,
        gid=f"{_CURVE}{note}",
    )  # fmt: skip
    # `plot` replaces an empty label by one of its own.
    line.set_label(label or "")
    if {"low", "high"} <= {*bins}:
        ax.vlines(stated, bins["low"], bins["high"], color=color, linewidth=1.4, alpha=0.6)
    # Shifted from those of earlier curves, which often have the same bins.
    below.vlines(stated + n_before * _SHIFT, 0.5, bins["n_cells"], color=color, linewidth=2.2)
    top = max(below.get_ylim()[1], 10 ** math.ceil(math.log10(bins["n_cells"].max() + 1)))
    below.set_ylim(0.5, top)
    _write_legend(ax)
    return ax


def _write_legend(ax: Axes) -> None:
    """Write a legend of the curves that have a name or an error."""
    notes = {curve: str(curve.get_gid()).removeprefix(_CURVE) for curve in _curves(ax)}
    notes = {curve: note for curve, note in notes.items() if note or curve.get_label()}
    if notes:
        names = [str(curve.get_label()) for curve in notes]
        legend_beside(ax, list(notes), names, list(notes.values()))
    else:
        settle(ax)


def _curves(ax: Axes) -> list[Line2D]:
    return [line for line in ax.lines if str(line.get_gid()).startswith(_CURVE)]


def _panel_below(ax: Axes) -> Axes:
    """Return the panel of the sizes of bins; the first call makes it, and the diagonal."""
    for child in ax.child_axes:
        if child.get_gid() == _PANEL:
            return cast("Axes", child)  # made by `inset_axes`
    ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, zorder=0)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", anchor="W")
    ax.set_ylabel("share of cells that were right")
    ax.tick_params(axis="x", labelbottom=False)
    below = ax.inset_axes((0, -0.28, 1, 0.22), sharex=ax, gid=_PANEL)
    below.set(yscale="log", ylim=(0.5, 10), xlabel="stated probability", ylabel="cells")
    below.yaxis.set_major_locator(LogLocator(numticks=4))
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.yaxis.set_minor_locator(NullLocator())
    for panel in (ax, below):
        panel.spines[["top", "right"]].set_visible(False)
    return below
