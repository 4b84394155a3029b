"""Axes with room for the names of ticks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from scvi_sctab.plotting._names import fit, shorten, widest, with_notes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

POINTS_PER_INCH = 72
MIN_SIZE = 7
# Height of a line over the size of its font, with a gap to the next.
LINE = 1.3
_SIZES = (9, 8, MIN_SIZE)
_MAX_INCHES = 18.0
_MAX_TIGHTENED = 10
# Names beside or below the axes may take this share of these.
_NAMES_SHARE = 0.45


def new_axes(width: float, height: float) -> Axes:
    """Axes in a figure of their own, in inches, that is never larger than a poster."""
    size = min(width, _MAX_INCHES), min(height, _MAX_INCHES)
    return plt.subplots(figsize=size, layout="constrained")[1]


def settle(ax: Axes) -> None:
    """Give the texts of the axes room, where nobody does when the figure is drawn."""
    figure = ax.figure.canvas.figure
    engine = figure.get_layout_engine()
    # `tight_layout` leaves a placeholder behind, as does whoever switches another engine off.
    left_by_tight = isinstance(engine, PlaceHolderLayoutEngine) and engine.colorbar_gridspec
    if (engine is None or left_by_tight) and ax.get_subplotspec() is not None:
        with warnings.catch_warnings():
            # Axes that somebody else placed by hand stay where they are.
            warnings.filterwarnings("ignore", message=".*not compatible with tight_layout")
            # Where the aspect is fixed, the axes change with the room that they are given.
            for _ in range(1 if ax.get_aspect() == "auto" else _MAX_TIGHTENED):
                before = ax.get_position(original=True)
                figure.tight_layout()
                if np.allclose(before, ax.get_position(original=True), atol=0.001):
                    break
    elif engine is not None:
        engine.execute(figure)


def lay_out(ax: Axes, bar: Axes | None = None) -> tuple[float, float]:
    """Lay out the figure; return the axes' width and height in points, as far as they are sure.

    Texts of panels that come later may take as much room as those of this one, with its bar.
    """
    settle(ax)
    points = POINTS_PER_INCH / ax.figure.dpi
    width, height = ax.bbox.width * points, ax.bbox.height * points
    place = ax.get_subplotspec()
    if place is None:
        return width, height
    # A colour bar may have divided the place of its axes.
    place = place.get_topmost_subplotspec()
    around, figure = ax.get_tightbbox(), ax.figure.bbox
    beside = around.width - ax.bbox.width + (0 if bar is None else 1.2 * bar.get_tightbbox().width)
    above = around.height - ax.bbox.height
    grid = place.get_gridspec()
    column = _share(grid.get_width_ratios(), place.colspan) * figure.width - beside
    row = _share(grid.get_height_ratios(), place.rowspan) * figure.height - above
    return min(width, max(column * points, 1)), min(height, max(row * points, 1))


def _share(ratios: Sequence[float], span: range) -> float:
    return sum(ratios[i] for i in span) / sum(ratios)


def room(ax: Axes) -> tuple[float, float]:
    """Width and height in points that the axes would have without the texts of other panels."""
    width, height = lay_out(ax)
    place = ax.get_subplotspec()
    if place is None:
        return width, height
    box = place.get_position(ax.figure).transformed(ax.figure.transSubfigure)
    points = POINTS_PER_INCH / ax.figure.dpi
    return max(width, box.width * points), max(height, box.height * points)


def names_inches(names: Sequence[object], notes: Sequence[str] = ()) -> float:
    """Width that names take beside axes."""
    return widest(with_notes(names, notes), _SIZES[0]) / POINTS_PER_INCH + 0.2


def name_rows(
    ax: Axes, names: Sequence[object], label: str = "", notes: Sequence[str] = ()
) -> None:
    """Write a name, and a note that is never shortened, at each of the rows 0, 1, ...

    Where rows are lower than a line of text, as many are named as fit, and the axis says so.
    """
    ax.set_ylabel(label)
    width, _ = room(ax)
    for size in _SIZES:
        _write(ax.yaxis, fit(names, size, _NAMES_SHARE * width, notes), size)
        _, height = lay_out(ax)
        if height / _span(ax.yaxis) >= LINE * size:
            return
    _leave_out(ax, ax.yaxis, LINE * size, label)


def name_columns(ax: Axes, names: Sequence[object], label: str = "") -> None:
    """Write a name at each of the columns 0, 1, ...: level if they fit, else upright."""
    ax.set_xlabel(label)
    width, _ = lay_out(ax)
    if widest(shorten(names), _SIZES[0]) <= 0.9 * width / _span(ax.xaxis):
        _write(ax.xaxis, shorten(names), _SIZES[0])
        lay_out(ax)
        return
    ax.tick_params(axis="x", rotation=90)
    _, height = room(ax)
    for size in _SIZES:
        _write(ax.xaxis, fit(names, size, _NAMES_SHARE * height), size)
        width, _ = lay_out(ax)
        if width / _span(ax.xaxis) >= LINE * size:
            return
    _leave_out(ax, ax.xaxis, LINE * size, label)


def name_values(ax: Axes, values: Sequence[float], texts: Sequence[str]) -> None:
    """Write texts at values of the horizontal axis, as far as there is room."""
    size = _SIZES[0]
    ax.set_xticks(values, texts, fontsize=size, parse_math=False)
    lay_out(ax)
    _leave_out(ax, ax.xaxis, widest(texts, size) + size / 2)


def _write(axis: Axis, texts: Sequence[str], size: float) -> None:
    axis.set_ticks(range(len(texts)), texts, fontsize=size, parse_math=False)


def _span(axis: Axis) -> float:
    """Rows or columns that the axes show."""
    low, high = axis.get_view_interval()
    return abs(high - low)


def _leave_out(ax: Axes, axis: Axis, length: float, label: str | None = None) -> None:
    """Erase the texts of ticks that are nearer than ``length`` points to one that stays."""
    which = 0 if axis is ax.xaxis else 1
    # On the other axis, which may be logarithmic, any place will do.
    places = np.tile(ax.viewLim.min, (len(axis.get_ticklocs()), 1))
    places[:, which] = axis.get_ticklocs()
    centres = ax.transData.transform(places)[:, which] * POINTS_PER_INCH / ax.figure.dpi
    texts = [text.get_text() for text in axis.get_ticklabels()]
    last, n_left_out = -math.inf, 0
    for i in np.argsort(centres):
        if centres[i] - last < length:
            texts[i] = ""
            n_left_out += 1
        else:
            last = centres[i]
    axis.set_ticklabels(texts)
    if label is not None:
        note = f"{len(texts) - n_left_out} of {len(texts)} named"
        axis.set_label_text(f"{label} ({note})" if label else note)
