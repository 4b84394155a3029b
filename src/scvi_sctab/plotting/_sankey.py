"""Flows of cells between two annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from scvi_sctab.plotting._axes import (
    LINE,
    MIN_SIZE,
    POINTS_PER_INCH,
    names_inches,
    new_axes,
    settle,
)
from scvi_sctab.plotting._colors import panel_colors
from scvi_sctab.plotting._names import fit, widest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_BAR = 0.03
# Share of the height that gaps between names take.
_GAPS = 0.2
_SIZE = 8
# Inches: width of the flows, height of a name, and limits of the height.
_WIDTH, _ROW, _HEIGHT = 4.0, 0.24, (2.5, 14.0)


def plot_sankey(
    left: pd.Series,
    right: pd.Series,
    ax: Axes | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draw how the cells of one annotation are spread over another one.

    Parameters
    ----------
    left, right
        Label of each cell, ``(n_cells,)``, aligned by the names of cells; their names are the
        titles of the sides. Cells without one of the two are left out.
    ax
        Axes to draw on; a new figure that fits the names if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.
    colors
        Colour of each label of the left side; as in other panels of the figure if not given.

    Returns
    -------
    The axes. Heights are numbers of cells. The right side is ordered so that few flows cross.

    Raises
    ------
    ValueError
        If there is no cell with both labels, or a label has no colour.
    """
    pairs = pd.concat([pd.Series(left).rename(0), pd.Series(right).rename(1)], axis=1).dropna()
    if pairs.empty:
        raise ValueError(
            "No cell has both labels, so that there is nothing to draw. Pass two columns of the same "
            "cells, e.g. plot_sankey(obs['leiden'], obs['sctab_label'])."
        )
    table = pd.crosstab(pairs[0].astype(str), pairs[1].astype(str))
    counts = table.to_numpy()
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    table, counts = table.iloc[order], counts[order]
    # By the mean place of their cells on the other side.
    place = (counts * np.arange(len(counts))[:, None]).sum(axis=0) / counts.sum(axis=0)
    order = np.argsort(place, kind="stable")
    table, counts = table.iloc[:, order], counts[:, order]
    names = [str(name) for name in table.index], [str(name) for name in table.columns]
    if ax is None:
        width = _WIDTH + sum(names_inches(side) for side in names)
        height = np.clip(_ROW * max(map(len, names)) + 0.8, *_HEIGHT)
        ax = new_axes(width, float(height))
    colors_of = panel_colors(ax, names[0], colors)
    ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    tops = _stack(counts.sum(axis=1)), _stack(counts.sum(axis=0))
    _draw_flows(ax, counts, tops, [colors_of[name] for name in names[0]])
    titles = [getattr(side, "name", None) for side in (left, right)]
    for x, title, align in ((0, titles[0], "left"), (1, titles[1], "right")):
        if title is not None:
            ax.text(x, -0.02, str(title), ha=align, va="bottom", fontsize=9, parse_math=False)
    for side, sizes, is_left in ((0, counts.sum(axis=1), True), (1, counts.sum(axis=0), False)):
        fills = [colors_of[name] for name in names[0]] if is_left else ["0.45"] * len(names[1])
        _draw_side(ax, names[side], tops[side], sizes / counts.sum() * (1 - _GAPS), fills, is_left)
    settle(ax)
    return ax


def _stack(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the top of each name, with equal gaps between."""
    heights = sizes / sizes.sum() * (1 - _GAPS)
    gap = _GAPS / max(len(sizes) - 1, 1)
    return np.concatenate([[0], np.cumsum(heights + gap)[:-1]])


def _draw_flows(
    ax: Axes,
    counts: NDArray[np.int64],
    tops: tuple[NDArray[np.float64], NDArray[np.float64]],
    fills: Sequence[str],
) -> None:
    """Draw a band for each pair of labels with cells."""
    heights = counts / counts.sum() * (1 - _GAPS)
    start, stop = tops[0].copy(), tops[1].copy()
    x0, x1 = _BAR, 1 - _BAR
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    for i, j in np.argwhere(counts):
        a, b, h = start[i], stop[j], heights[i, j]
        corners = [
            (x0, a), (0.5, a), (0.5, b), (x1, b), (x1, b + h), (0.5, b + h), (0.5, a + h), (x0, a + h),
            (x0, a),
        ]  # fmt: skip
        ax.add_patch(PathPatch(Path(corners, codes), facecolor=fills[i], alpha=0.45, linewidth=0))
        start[i] += h
        stop[j] += h


def _draw_side(
    ax: Axes,
    names: Sequence[str],
    tops: NDArray[np.float64],
    heights: NDArray[np.float64],
    fills: Sequence[str],
    is_left: bool,
) -> None:
    """Draw the bars of a side, and beside them as many names as fit."""
    room = widest(fit(names, _SIZE, np.inf), _SIZE)
    texts = fit(names, _SIZE, room)
    settle(ax)
    line = LINE * MIN_SIZE / (ax.bbox.height * POINTS_PER_INCH / ax.figure.dpi)
    last = -np.inf
    for name, top, height, fill in zip(texts, tops, heights, fills, strict=True):
        x = 0.0 if is_left else 1 - _BAR
        ax.add_patch(Rectangle((x, top), _BAR, height, facecolor=fill, linewidth=0))
        middle = top + height / 2
        if middle - last < line:
            continue  # under another name
        last = middle
        ax.text(
            -0.01 if is_left else 1.01, middle, name, ha="right" if is_left else "left", va="center",
            fontsize=_SIZE, parse_math=False,
        )  # fmt: skip
