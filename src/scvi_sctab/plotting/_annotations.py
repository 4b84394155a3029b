"""Scatter of annotated cells: labels, with uncertain and novel cells apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba_array

from scvi_sctab.plotting._colors import MISSING, categories_of, panel_colors
from scvi_sctab.plotting._frames import require
from scvi_sctab.plotting._legend import axes_with_legend, legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_INCHES = 5.4, 4.5
_PALE = 0.25
_NOVEL, _AMBIGUOUS = "novel", "pale: ambiguous"


def plot_annotations(
    coordinates: NDArray[np.float64],
    annotation: pd.DataFrame,
    ax: Axes | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draw annotated cells: confident labels in colour, ambiguous ones pale, novel cells as crosses.

    Parameters
    ----------
    coordinates
        ``(n_cells, 2)``, e.g. a UMAP.
    annotation
        A row per cell with ``label``, and ``status`` if the model is calibrated, as of
        :meth:`scvi_sctab.SCTAB.annotate`.
    ax
        Axes to draw on; a new figure that fits the legend if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.
    colors
        Colour of each label, e.g. of :func:`label_colors`. If not given, as in other panels of the
        figure.

    Returns
    -------
    The axes. The legend names the labels that have cells.

    Raises
    ------
    ValueError
        If there is no cell, a column is missing, ``coordinates`` are not two per cell, or a label
        has no colour.
    """
    require(annotation, ("label",), "SCTAB.annotate")
    coordinates = np.asarray(coordinates, dtype=float)
    if coordinates.shape != (len(annotation), 2):
        raise ValueError(
            f"{coordinates.shape=} does not give two for each of {len(annotation)=}. Pass two columns "
            "of the same cells, e.g. coordinates=adata.obsm['X_umap'][:, :2]."
        )
    labels = categories_of(annotation["label"])
    names = [str(name) for name in labels.categories]
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(names))
    present = [names[code] for code in np.argsort(-counts, kind="stable") if counts[code]]
    status = annotation.get("status", pd.Series("confident", annotation.index)).astype(str)
    novel = status.isin(["novel"]).to_numpy()
    pale = status.isin(["ambiguous", "low_quality"]).to_numpy()
    shown = [*present, *([_AMBIGUOUS] if pale.any() else []), *([_NOVEL] if novel.any() else [])]
    if ax is None:
        ax = axes_with_legend(_INCHES, shown)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    colors_of = panel_colors(ax, present if colors else names, colors)
    rgba = to_rgba_array([*(colors_of.get(name, MISSING) for name in names), MISSING])[
        labels.codes
    ]
    rgba[pale, 3] = _PALE
    order = np.random.default_rng(0).permutation(np.flatnonzero(~novel))
    size = float(np.clip(30_000 / len(annotation), 1, 20))
    x, y = coordinates[order].T
    ax.scatter(x, y, c=rgba[order], s=size, linewidths=0)
    handles = [ax.scatter([], [], color=colors_of[name], s=30) for name in present]
    if pale.any():
        handles.append(ax.scatter([], [], color="0.5", alpha=_PALE, s=30))
    if novel.any():
        x, y = coordinates[novel].T
        ax.scatter(x, y, s=size + 8, marker="x", linewidths=0.9, color="black")
        handles.append(ax.scatter([], [], s=24, marker="x", linewidths=0.9, color="black"))
    legend_beside(ax, handles, shown)
    return ax
