"""Plot of the shifts of perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab.plotting._axes import name_columns, name_rows, names_inches, new_axes, settle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Inches: usual size of a row and of a column, limit of all together, and least size with a name.
_ROW, _COLUMN, _ALL, _LEAST = 0.18, 0.3, 12.0, 0.13
_AROUND_INCHES = 1.6


def plot_shifts(table: pd.DataFrame, ax: Axes | None = None, *, label: str = "") -> Axes:
    """Draw which latents perturbations shift.

    Perturbations are sorted by the latent with their largest value, so that those that shift the
    same one are together; latents without any are left out.

    Parameters
    ----------
    table
        A row per perturbation, a column per latent. Effects are drawn from blue to red, see
        :meth:`scvi_sctab.external.SpikeSlabVAE.get_intervention_effects`; probabilities and
        targets from white, see
        :meth:`scvi_sctab.external.SpikeSlabVAE.get_intervention_targets`.
    ax
        Axes to draw on; a new figure that fits the table if not given.
    label
        Label of the colour bar; ``"shift"`` or ``"probability"`` if not given.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If the table is empty, or a value is missing.
    """
    values = table.to_numpy(dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(
            "The table of shifts is empty or has missing values. Draw "
            "plot_shifts(model.get_intervention_effects()) of a trained model."
        )
    rows, columns = _order(values)
    values = values[np.ix_(rows, columns)]
    is_probability = bool(values.min() >= 0 and values.max() <= 1)
    limit = 1.0 if is_probability else float(np.abs(values).max())
    if ax is None:
        down, across = _inches(len(rows), _ROW), _inches(len(columns), _COLUMN)
        left, below = names_inches(table.index), names_inches(table.columns)
        ax = new_axes(left + across + _AROUND_INCHES, below + down + _AROUND_INCHES / 2)
    image = ax.imshow(
        values,
        cmap="Blues" if is_probability else "RdBu_r",
        vmin=0 if is_probability else -limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
    )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    text = label or ("probability" if is_probability else "shift")
    ax.figure.colorbar(image, ax=ax, label=text, shrink=0.5)
    name_rows(ax, table.index[rows], str(table.index.name or "perturbation"))
    name_columns(ax, table.columns[columns], str(table.columns.name or "latent"))
    settle(ax)
    return ax


def _order(values: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort rows by their largest column and its value; keep columns with values."""
    sizes = np.abs(values)
    kept = np.flatnonzero(sizes.max(axis=0) > 1e-3 * max(sizes.max(), 1e-12))
    if not len(kept):
        kept = np.arange(values.shape[1])
    largest = sizes[:, kept].argmax(axis=1)
    signed = values[np.arange(len(values)), kept[largest]]
    # Rows without values come last.
    group = np.where(sizes.max(axis=1) > 0, largest, len(kept))
    return np.lexsort([-signed, group]), kept


def _inches(n: int, size: float) -> float:
    return n * max(_LEAST, min(size, _ALL / n))
