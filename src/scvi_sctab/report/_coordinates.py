"""Two dimensions for the scatter, and the cells that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from scvi_sctab.report._points import pack_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_POINTS = 50_000
"""Largest number of cells of a scatter."""
# Names of cells are most of a page: characters of them, compressed and encoded.
_MAX_NAMES = 500_000
# With fewer cells, there are no neighbourhoods to lay out.
_MIN_CELLS_TSNE = 50
# Cells that t-SNE lays out, in seconds; UMAP takes longer to be compiled.
_N_LANDMARKS = 1200
_N_NEIGHBORS = 5


def choose_cells(names: Sequence[str], n_shown: int = MAX_POINTS) -> NDArray[np.intp]:
    """Choose cells at even distances, so few that their names fit into a page; all if they do.

    Parameters
    ----------
    names
        Names of the cells, ``(n_cells,)``.
    n_shown
        Largest number of cells to choose.

    Examples
    --------
    >>> choose_cells([f"cell{i}" for i in range(10)], 4).tolist()
    [0, 3, 6, 9]
    """
    while True:
        chosen = np.arange(len(names))
        if len(names) > n_shown:
            chosen = np.linspace(0, len(names) - 1, n_shown).round().astype(np.intp)
        size = len(pack_names(names[int(i)] for i in chosen))
        if size <= _MAX_NAMES:
            return chosen
        n_shown = int(len(chosen) * min(0.95 * _MAX_NAMES / size, 0.95))


def embed(
    latent: NDArray[np.floating], groups: Sequence[object] | None = None
) -> tuple[NDArray[np.float64], str]:
    """Lay out cells in two dimensions in seconds, however many there are.

    Parameters
    ----------
    latent
        ``(n_cells, n_latent)``.
    groups
        Group of each cell, such as its label, ``(n_cells,)``; small ones are not left out.

    Returns
    -------
    Coordinates ``(n_cells, 2)``, and the name of the method: t-SNE of up to 1,200 cells, with the
    others placed among their nearest neighbours of these; PCA of fewer than 50 cells.

    Examples
    --------
    >>> coordinates, method = embed(np.eye(3))
    >>> coordinates.shape, method
    ((3, 2), 'PCA of the latent space')
    """
    values = np.asarray(latent, dtype=np.float64)
    if len(values) < _MIN_CELLS_TSNE:
        return _principal(values), "PCA of the latent space"
    chosen = _landmarks(len(values), groups)
    landmarks = values[chosen]
    start = _principal(landmarks)
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(landmarks) - 1) / 3)
    layout = TSNE(init=start.astype(np.float32), perplexity=perplexity, random_state=0)
    placed = layout.fit_transform(landmarks.astype(np.float32)).astype(np.float64)
    if len(landmarks) == len(values):
        return placed, "t-SNE of the latent space"
    search = NearestNeighbors(n_neighbors=_N_NEIGHBORS).fit(landmarks)
    distance, near = search.kneighbors(values)
    # Neighbours at the distance of the nearest one count most.
    width = np.maximum(distance[:, [1]], 1e-12)
    weights = np.exp(-((distance / width) ** 2))
    weights /= weights.sum(axis=1, keepdims=True)
    others = (weights[:, :, None] * placed[near]).sum(axis=1)
    # Cells between the same landmarks would hide each other.
    gap = np.median(search.fit(placed).kneighbors(placed, 2)[0][:, 1])
    others += np.random.default_rng(0).normal(scale=gap / 2, size=others.shape)
    others[chosen] = placed
    return others, f"t-SNE of the latent space of {len(landmarks):,} cells, others placed by it"


def _landmarks(n_cells: int, groups: Sequence[object] | None) -> NDArray[np.intp]:
    """Draw cells, of each group about as many as the square root of its size."""
    codes = np.zeros(n_cells, int) if groups is None else pd.factorize(np.asarray(groups))[0]
    weight = 1 / np.sqrt(np.bincount(codes)[codes])
    # The largest u^(1/w) are a weighted sample without replacement (Efraimidis and Spirakis 2006).
    keys = np.log(np.random.default_rng(0).random(n_cells)) / weight
    return np.sort(np.argsort(-keys, kind="stable")[:_N_LANDMARKS])


def _principal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project cells on their first two principal components, ``(n_cells, 2)``."""
    centred = values - (values.mean(axis=0) if len(values) else 0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    layout = np.zeros((len(values), 2))  # a single cell has no two components
    n = min(2, len(size))
    layout[:, :n] = left[:, :n] * size[:n]
    return layout
