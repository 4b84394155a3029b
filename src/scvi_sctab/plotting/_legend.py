"""Legends beside axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from scvi_sctab.plotting._axes import (
    MIN_SIZE,
    POINTS_PER_INCH,
    lay_out,
    new_axes,
    outline,
    room,
    settle,
)
from scvi_sctab.plotting._names import fit, widest, with_notes

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container

# Largest share of the axes' width for a legend.
_SHARE = 0.6
# Lengths, in units of the font size.
_ROW, _HANDLE, _HANDLE_GAP, _COLUMN_GAP = 1.5, 1.6, 0.5, 1.2
_GAPS = _HANDLE + _HANDLE_GAP + _COLUMN_GAP
_SIZES = (8, MIN_SIZE)
_MIN_CHARACTERS = 8
_MAX_COLUMNS = 3
# Height of title, ticks and their label, above and below the axes.
_LINES_INCHES = 0.6


def legend_inches(
    names: Sequence[str], height: float, notes: Sequence[str] = ()
) -> tuple[float, float]:
    """Compute width and height of a legend beside axes of this height, in inches."""
    size = _SIZES[0]
    rows = int(max(1, height * POINTS_PER_INCH / (_ROW * size), len(names) / _MAX_COLUMNS))
    column = widest(with_notes(names, notes), size) + _GAPS * size
    width = math.ceil(len(names) / rows) * column / POINTS_PER_INCH + 0.2
    return width, min(rows, len(names)) * _ROW * size / POINTS_PER_INCH


def axes_with_legend(
    inches: tuple[float, float], names: Sequence[str], notes: Sequence[str] = ()
) -> Axes:
    """Make axes in a new figure with room for a legend beside them."""
    width, height = legend_inches(names, inches[1] - _LINES_INCHES, notes)
    return new_axes(inches[0] + width, max(inches[1], height + _LINES_INCHES))


def legend_beside(
    ax: Axes,
    handles: Sequence[Artist | Container],
    names: Sequence[str],
    notes: Sequence[str] = (),
) -> None:
    """Write a legend to the right of the axes, in columns of their height.

    Names, but not the notes after them, are shortened to fit. If they still do not fit, the last
    line of the legend has the number of names that are left out.
    """
    if (previous := ax.get_legend()) is not None:
        previous.remove()
    _, height = lay_out(ax)
    width, _ = room(ax)
    left = (ax.bbox.x0 - outline(ax).x0) * POINTS_PER_INCH / ax.figure.dpi
    texts, size, n_columns = _fit(names, notes, _SHARE * (width - left), height)
    handles = list(handles[: len(texts)])
    if len(texts) < len(names):
        handles.append(Line2D([], [], linestyle=""))
        texts.append(f"+ {len(names) - len(texts):,} more")
    legend = ax.legend(
        handles,
        # The texts are set below, since matplotlib leaves out names that start with "_".
        ["." for _ in texts],
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        ncols=n_columns,
        fontsize=size,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        labelspacing=0.3,
        handlelength=_HANDLE,
        handletextpad=_HANDLE_GAP,
        columnspacing=_COLUMN_GAP,
    )
    for written, text in zip(legend.get_texts(), texts, strict=True):
        written.set(text=text, parse_math=False)
    settle(ax)


def _fit(
    names: Sequence[str], notes: Sequence[str], width: float, height: float
) -> tuple[list[str], float, int]:
    """Return texts that fit, their font size and the number of columns."""
    for size in _SIZES:
        rows = max(1, int(height / (_ROW * size)))
        n_columns, texts = math.ceil(len(names) / rows), with_notes(names, notes)
        if n_columns * (widest(texts, size) + _GAPS * size) <= width:
            return texts, size, n_columns
    narrow = widest(with_notes(names, notes, _MIN_CHARACTERS), size) + _GAPS * size
    n_columns = max(1, min(n_columns, int(width / narrow)))
    texts = fit(names, size, width / n_columns - _GAPS * size, notes)
    if len(names) > n_columns * rows:
        texts = texts[: n_columns * rows - 1]
    return texts, size, n_columns
