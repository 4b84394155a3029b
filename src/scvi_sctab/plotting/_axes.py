"""Layout of axes with long tick labels."""

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
    from matplotlib.transforms import BboxBase
    from numpy.typing import ArrayLike

POINTS_PER_INCH = 72
MIN_SIZE = 7
# Height of a line relative to its font size, with a gap to the next line.
LINE = 1.3
_SIZES = (9, 8, MIN_SIZE)
_MAX_INCHES = 18.0
_MAX_TIGHTENED = 10
# Largest share of the axes' width or height for the names beside or below them.
_NAMES_SHARE = 0.45


def new_axes(width: float, height: float) -> Axes:
    """Make axes in a new figure of a limited size, in inches."""
    size = min(width, _MAX_INCHES), min(height, _MAX_INCHES)
    return plt.subplots(figsize=size, layout="constrained")[1]


def settle(ax: Axes) -> None:
    """Lay out the figure of the axes, if no layout engine would do so when it is drawn."""
    figure = ax.figure.canvas.figure
    engine = figure.get_layout_engine()
    # `tight_layout` leaves a placeholder engine, and so does switching off another engine.
    left_by_tight = isinstance(engine, PlaceHolderLayoutEngine) and engine.colorbar_gridspec
    if (engine is None or left_by_tight) and ax.get_subplotspec() is not None:
        with warnings.catch_warnings():
            # Axes placed by hand are not moved.
            warnings.filterwarnings("ignore", message=".*not compatible with tight_layout")
            # With a fixed aspect the size of the axes depends on the layout: iterate.
            for _ in range(1 if ax.get_aspect() == "auto" else _MAX_TIGHTENED):
                before = ax.get_position(original=True)
                figure.tight_layout()
                if np.allclose(before, ax.get_position(original=True), atol=0.001):
                    break
    elif engine is not None:
        engine.execute(figure)


def lay_out(ax: Axes, bar: Axes | None = None) -> tuple[float, float]:
    """Lay out the figure; return the width and height in points that the axes have at least.

    Panels that are drawn later may need as much room for texts as this one with its colour bar.
    """
    settle(ax)
    points = POINTS_PER_INCH / ax.figure.dpi
    width, height = ax.bbox.width * points, ax.bbox.height * points
    place = ax.get_subplotspec()
    if place is None:
        return width, height
    # A colour bar may have divided the subplot of its axes.
    place = place.get_topmost_subplotspec()
    around, figure = outline(ax), ax.figure.bbox
    beside = around.width - ax.bbox.width + (0 if bar is None else 1.2 * outline(bar).width)
    above = around.height - ax.bbox.height
    grid = place.get_gridspec()
    column = _share(grid.get_width_ratios(), place.colspan) * figure.width - beside
    row = _share(grid.get_height_ratios(), place.rowspan) * figure.height - above
    return min(width, max(column * points, 1)), min(height, max(row * points, 1))


def outline(ax: Axes) -> BboxBase:
    """Return the box around axes and their texts; of axes that are not shown, their own."""
    return ax.get_tightbbox() or ax.bbox


def _share(ratios: ArrayLike, span: range) -> float:
    sizes = np.asarray(ratios, dtype=float)
    return float(sum(sizes[span]) / sum(sizes))


def room(ax: Axes) -> tuple[float, float]:
    """Return the width and height in points that axes would have without texts of other panels."""
    width, height = lay_out(ax)
    place = ax.get_subplotspec()
    if place is None:
        return width, height
    # Of a subfigure it asks the same as of a figure.
    box = place.get_position(ax.figure)  # type: ignore[arg-type]
    box = box.transformed(ax.figure.transSubfigure)
    points = POINTS_PER_INCH / ax.figure.dpi
    return max(width, box.width * points), max(height, box.height * points)


def names_inches(names: Sequence[object], notes: Sequence[str] = ()) -> float:
    """Compute the width of names beside axes, in inches."""
    return widest(with_notes(names, notes), _SIZES[0]) / POINTS_PER_INCH + 0.2


def name_rows(
    ax: Axes, names: Sequence[object], label: str = "", notes: Sequence[str] = ()
) -> None:
    """Write a name, and a note that is never shortened, at each of the rows 0, 1, ...

    If rows are lower than a line of text, only as many names as fit are written, and the label of
    the axis has their number.
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
    """Write a name at each of the columns 0, 1, ...: horizontal if they fit, else vertical."""
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
    """Write as many texts at values of the horizontal axis as fit."""
    size = _SIZES[0]
    ax.set_xticks(values, texts, fontsize=size, parse_math=False)
    lay_out(ax)
    _leave_out(ax, ax.xaxis, widest(texts, size) + size / 2)


def _write(axis: Axis, texts: Sequence[str], size: float) -> None:
    axis.set_ticks(range(len(texts)), texts, fontsize=size, parse_math=False)


def _span(axis: Axis) -> float:
    """Count the rows or columns that the axes show."""
    low, high = axis.get_view_interval()
    return abs(high - low)


def _leave_out(ax: Axes, axis: Axis, length: float, label: str | None = None) -> None:
    """Remove the texts of ticks that are nearer than ``length`` points to one that is kept."""
    which = 0 if axis is ax.xaxis else 1
    # Any valid position on the other axis, which may be logarithmic.
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
