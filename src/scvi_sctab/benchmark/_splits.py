"""Splits into reference and query by whole donors, nested subsamples, and few labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab._constants import MIN_CELLS_PER_LABEL, UNLABELED_CATEGORY
from scvi_sctab.benchmark._tasks import Split, Task

if TYPE_CHECKING:
    from anndata import AnnData

Positions = NDArray[np.intp]


def assign_donors(donors: Sequence[str], n_splits: int, seed: int = 0) -> NDArray[np.int64]:
    """Assign every donor to one of several parts of about the same number of cells.

    In random order, each donor is assigned to the part with the fewest cells so far.

    Parameters
    ----------
    donors
        Donor of each cell, ``(n_cells,)``.
    n_splits
        Number of parts.
    seed
        Seed of the order.

    Returns
    -------
    Part of each cell, ``(n_cells,)``, from 0 on.

    Raises
    ------
    ValueError
        If there are fewer donors than parts, or fewer than two parts.

    Examples
    --------
    >>> parts = assign_donors(["a", "a", "b", "c", "d"], 2)
    >>> parts[0] == parts[1], sorted(set(parts.tolist()))
    (np.True_, [0, 1])
    """
    names, codes, sizes = _donors(donors)
    if not 2 <= n_splits <= len(names):
        raise ValueError(f"{n_splits=} is not from 2 to {len(names)}, the number of donors.")
    n_cells, part = np.zeros(n_splits, dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for donor in np.random.default_rng(seed).permutation(len(names)):
        part[donor] = n_cells.argmin()
        n_cells[part[donor]] += sizes[donor]
    return part[codes]


def donor_tasks(
    adata: AnnData,
    labels_key: str,
    donor_key: str,
    n_splits: int = 5,
    seed: int = 0,
    *,
    batch_key: str | None = None,
) -> list[Task]:
    """Split by whole donors, so that each donor is in the query of exactly one task.

    Parameters
    ----------
    adata
        Raw counts in ``X``, ``(n_cells, n_genes)``.
    labels_key, donor_key
        Columns with labels and with donors.
    n_splits, seed
        As in :func:`assign_donors`.
    batch_key
        Column with batches, for methods that use them.

    Returns
    -------
    Tasks of views, of one family, named ``"donors 1"`` and so on.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        As in :func:`assign_donors`.
    """
    donors = column(adata, donor_key, "donor_key")
    truth = labels_of(adata, labels_key)
    parts = assign_donors(donors.tolist(), n_splits, seed)
    keys: dict[str, Any] = {
        "labels_key": labels_key,
        "donor_key": donor_key,
        "batch_key": batch_key,
    }
    return [
        Task(f"donors {part + 1}", partial(_split, adata, truth, parts == part), "donors", **keys)
        for part in range(n_splits)
    ]


def _split(adata: AnnData, truth: NDArray[np.str_], query: NDArray[np.bool_], seed: int) -> Split:
    """Load a task; the split does not depend on the seed of the method."""
    return Split(adata[~query], adata[query], truth[query])


def partial_labels(
    labels: Sequence[str], n_per_label: int, seed: int = 0, among: NDArray[np.bool_] | None = None
) -> NDArray[np.str_]:
    """Keep some labels of each type, for tasks with few of them.

    Parameters
    ----------
    labels
        Labels, ``(n_cells,)``.
    n_per_label
        Number of cells of each label that keep it, drawn without replacement; all if there are
        fewer.
    seed
        Seed of the draw.
    among
        Mask of the cells that may keep their label, ``(n_cells,)``, such as those of one donor; all
        if not given.

    Returns
    -------
    Labels, ``"unknown"`` for all other cells, ``(n_cells,)``.

    Examples
    --------
    >>> partial_labels(["B", "B", "NK"], 1, among=np.array([False, True, True])).tolist()
    ['unknown', 'B', 'NK']
    """
    values = np.asarray(labels, dtype=str)
    allowed = np.ones(len(values), dtype=bool) if among is None else among
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(values), dtype=bool)
    for label in np.setdiff1d(values, ["", UNLABELED_CATEGORY]):
        cells = np.flatnonzero((values == label) & allowed)
        kept[rng.choice(cells, min(n_per_label, len(cells)), replace=False)] = True
    return np.where(kept, values, UNLABELED_CATEGORY)


def subsample_donors(donors: Sequence[str], fraction: float, seed: int = 0) -> Positions:
    """Keep the cells of a share of the donors; a smaller share is part of a larger one.

    As in the scaling experiments of scTab :cite:p:`Fischer24`: the first donors of a shuffled list.

    Parameters
    ----------
    donors
        Donor of each cell, ``(n_cells,)``.
    fraction
        Share of donors to keep, in (0, 1], rounded up.
    seed
        Seed of the order.

    Returns
    -------
    Positions of cells, increasing.

    Examples
    --------
    >>> subsample_donors(["a", "b", "b", "a"], 0.5).tolist()
    [0, 3]
    """
    names, codes, _ = _donors(donors)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.flatnonzero(np.isin(codes, order[: _size(fraction, len(names))]))


def subsample_cells(n_cells: int, fraction: float, seed: int = 0) -> Positions:
    """Keep a share of the cells; a smaller share is part of a larger one.

    Parameters
    ----------
    n_cells
        Number of cells.
    fraction
        Share to keep, in (0, 1], rounded up.
    seed
        Seed of the order.

    Returns
    -------
    Positions of cells, increasing.

    Examples
    --------
    >>> len(subsample_cells(10, 0.3))
    3
    """
    order = np.random.default_rng(seed).permutation(n_cells)
    return np.sort(order[: _size(fraction, n_cells)])


def labels_of(adata: AnnData, labels_key: str) -> NDArray[np.str_]:
    """Return the labels, ``""`` where there is none."""
    unlabeled = (None, UNLABELED_CATEGORY)
    values = column(adata, labels_key, "labels_key")
    return np.array(["" if value in unlabeled else str(value) for value in values], dtype=str)


def learnable(labels: NDArray[np.str_]) -> frozenset[str]:
    """Find the labels with enough cells for any method to learn them."""
    names, n_cells = np.unique(labels[labels != ""], return_counts=True)
    return frozenset(names[n_cells >= MIN_CELLS_PER_LABEL].tolist())


def column(adata: AnnData, key: str, argument: str) -> NDArray[np.object_]:
    """Return the values of a column of ``obs``, missing ones as ``None``."""
    if key not in adata.obs:
        raise KeyError(f"{argument}={key!r} is not a column of `obs`, which has {[*adata.obs]}.")
    values = adata.obs[key].astype(object)
    return np.asarray(values.where(values.notna(), None), dtype=object)


def _donors(
    donors: Sequence[str],
) -> tuple[NDArray[np.str_], NDArray[np.intp], NDArray[np.int64]]:
    """Return sorted names (independent of the order of cells), code per cell, cells per donor."""
    values = np.asarray(donors, dtype=object)
    missing = sum(value is None or value != value for value in values)
    if missing:
        raise ValueError(f"{missing:,} of {len(values):,} cells have no donor; give them one.")
    return np.unique(values.astype(str), return_inverse=True, return_counts=True)


def _size(fraction: float, n: int) -> int:
    if not 0 < fraction <= 1:
        raise ValueError(f"{fraction=} is not in (0, 1].")
    # Rounded, since 0.07 * 100 is a little more than 7 in floating point.
    return ceil(round(fraction * n, 9))
