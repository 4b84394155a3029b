"""Labels of cells in the light of those around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data import align_cells, get_column
from scvi_sctab.metrics import normalized_entropy

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

# Far below any probability that matters, far above where logarithms end.
_MIN_PROBABILITY = 1e-12
# The largest of those tried that lowers macro F1 nowhere by 0.001, on the bundled donors and two
# pairs of the Kang donors.
_WEIGHT = 0.2


class Surroundings(NamedTuple):
    """What the cells around each cell say, itself among them.

    Attributes
    ----------
    mean
        Mean probabilities, ``(n_cells, n_labels)``.
    frequency
        Share of them whose own label is each of the labels, ``(n_cells, n_labels)``.
    size
        How many they are, ``(n_cells, 1)``.
    """

    mean: NDArray[np.float64]
    frequency: NDArray[np.float64]
    size: NDArray[np.intp]


def surroundings_of_groups(
    probabilities: NDArray[np.floating], codes: NDArray[np.integer]
) -> Surroundings:
    """Average over the cells of each cell's group.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    codes
        Group of each cell, from 0 on, ``(n_cells,)``.

    Examples
    --------
    >>> around = surroundings_of_groups(np.array([[1.0, 0.0], [0.4, 0.6]]), np.array([0, 0]))
    >>> around.mean[0].tolist(), around.frequency[0].tolist()
    ([0.7, 0.3], [0.5, 0.5])
    """
    sizes = np.bincount(codes)[:, None]

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, codes, values)
        return (sums / np.maximum(sizes, 1))[codes]

    return Surroundings(mean(probabilities), mean(_own_labels(probabilities)), sizes[codes])


def surroundings_of_neighbors(
    probabilities: NDArray[np.floating], neighbors: NDArray[np.integer]
) -> Surroundings:
    """Average over the neighbours of each cell.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    neighbors
        Positions of each cell's neighbours, itself among them, ``(n_cells, n_neighbors)``; -1
        where there are no more.

    Examples
    --------
    >>> own = np.array([[1.0, 0.0], [0.4, 0.6]])
    >>> surroundings_of_neighbors(own, np.array([[0, 1], [1, -1]])).mean.tolist()
    [[0.7, 0.3], [0.4, 0.6]]
    """
    there = neighbors >= 0
    size = there.sum(axis=1)[:, None]

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.zeros(values.shape)
        for column, exists in zip(neighbors.T, there.T, strict=True):
            sums[exists] += values[column[exists]]
        return sums / size

    return Surroundings(mean(probabilities), mean(_own_labels(probabilities)), size)


def nearest_neighbors(
    latent: NDArray[np.floating], batches: NDArray[np.integer], n_neighbors: int
) -> NDArray[np.intp]:
    """Find the nearest cells of the same batch.

    Parameters
    ----------
    latent
        ``(n_cells, n_latent)``.
    batches
        Batch of each cell, ``(n_cells,)``.
    n_neighbors
        How many to find, the cell itself included.

    Returns
    -------
    Positions, the cell itself first, ``(n_cells, n_neighbors)``; -1 where a batch has no more.

    Examples
    --------
    >>> nearest_neighbors(np.array([[0.0], [0.2], [0.1]]), np.array([0, 0, 1]), 2).tolist()
    [[0, 1], [1, 0], [2, -1]]
    """
    found = np.full((len(latent), n_neighbors), -1, dtype=np.intp)
    found[:, 0] = np.arange(len(latent))
    for batch in np.unique(batches):
        cells = np.flatnonzero(batches == batch)
        n_others = min(n_neighbors, len(cells)) - 1
        if n_others:
            search = NearestNeighbors(n_neighbors=n_others).fit(latent[cells])
            # Without a query a cell is not its own neighbour, even if it has a double.
            found[cells, 1 : n_others + 1] = cells[search.kneighbors(return_distance=False)]
    return found


def vote(
    probabilities: NDArray[np.floating],
    around: Surroundings,
    base: NDArray[np.floating],
    weight: float = _WEIGHT,
) -> NDArray[np.float64]:
    r"""Weigh what each cell says of itself with what the others around it say.

    A product of experts. With :math:`p_i` the cell's own probabilities, :math:`b` those of all
    cells, and :math:`m_i` the mean around the cell with :math:`b` in place of its own say,

    .. math:: p'_{ik} \propto p_{ik} \left(\frac{m_{ik}}{b_k}\right)^w.

    With :math:`w=1` and surroundings that depend on the type alone this is Bayes' theorem; as they
    look at the same genes, :math:`w` is less. Dividing by :math:`b` is what keeps rare types: the
    others speak for a type that is more frequent among them than elsewhere, not for a frequent
    one. Where they are like all cells, or there are none, nothing changes.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    around
        What the cells around each cell say.
    base
        Mean probabilities of all cells, ``(n_labels,)``, or of each cell's batch,
        ``(n_cells, n_labels)``.
    weight
        :math:`w`; 0 leaves cells alone.

    Returns
    -------
    Probabilities, ``(n_cells, n_labels)``.

    Examples
    --------
    >>> own = np.array([[0.9, 0.1], [0.55, 0.45], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    >>> around = surroundings_of_groups(own, np.array([0, 0, 0, 0, 1, 1]))
    >>> vote(own, around, own.mean(axis=0), weight=0.5).argmax(axis=1).tolist()
    [0, 1, 1, 1, 0, 0]
    """
    others = around.mean + (base - probabilities) / around.size
    logs = _safe_log(probabilities) + weight * (_safe_log(others) - _safe_log(base))
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


class RefinementMixin:
    """Votes among cells, by probabilities that weigh labels alike."""

    def refine(
        self,
        adata: AnnData | None = None,
        clusters: str | Sequence[object] | None = None,
        *,
        batch_key: str | None = None,
        across_batches: bool = False,
        indices: Sequence[int] | None = None,
        n_neighbors: int = 15,
        weight: float = _WEIGHT,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        r"""Predict cell types by a vote within clusters, or among cells that are alike.

        Each cell keeps its say: its own probabilities are multiplied by :math:`(m / b)^w`, where
        :math:`m` are the mean ones of the others around it and :math:`b` those of all cells. A
        sure cell is hardly ever overruled, and nothing speaks for a type because it is frequent:
        rare types survive, which a majority vote :cite:p:`DominguezConde22` wipes out.

        Parameters
        ----------
        adata
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        clusters
            Column of ``adata.obs``, or a cluster per cell of ``adata``; a series is aligned by the
            names of cells. Without any, each cell votes with those next to it in
            :meth:`~scvi_sctab.SCTAB.get_latent_representation`.
        batch_key
            Column of ``adata.obs``; cells of different batches do not vote together. The one of
            :meth:`~scvi_sctab.SCTAB.setup_anndata` if not given and ``adata`` has it.
        across_batches
            Whether cells of different batches vote together after all.
        indices
            Cells to refine, which vote among themselves; all if not given.
        n_neighbors
            Cells that vote together without ``clusters``, the cell itself included.
        weight
            :math:`w`; 0 leaves cells alone.
        layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.

        Returns
        -------
        A row per cell:

        - ``label``: the refined label, categorical over all labels.
        - ``probability``: its refined probability.
        - ``raw_label``: the cell's own label.
        - ``changed``: whether the two differ.
        - ``cluster_frequency``: share of the cells around it whose own label is the refined one.
        - ``cluster_entropy``: entropy of the mean probabilities around it, in [0, 1].

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If ``clusters`` do not fit the cells, ``n_neighbors`` or ``weight`` are out of range,
            or as in :meth:`~scvi_sctab.SCTAB.predict`.
        """
        if n_neighbors < 1:
            raise ValueError(f"{n_neighbors=} leaves nobody to vote; it counts the cell itself.")
        if not 0 <= weight < np.inf:
            raise ValueError(f"{weight=} must be 0, which leaves cells alone, or more.")
        self._require_trained()
        selection = self._select(adata, indices, layer, min_gene_overlap)
        adata, cells = selection.adata, selection.positions
        soft = self._weighed_alike(selection)
        key = None if across_batches else batch_key or self._known_batch_key(adata)
        batches = _batch_codes(adata, key, cells)
        own = soft.to_numpy(dtype=np.float64)
        base = surroundings_of_groups(own, batches).mean
        if clusters is None:
            latent = self._latent(selection)
            around = surroundings_of_neighbors(
                own, nearest_neighbors(latent, batches, n_neighbors)
            )
        else:
            groups = _cluster_codes(adata, clusters, cells)
            joint = np.unique(np.column_stack([groups, batches]), axis=0, return_inverse=True)[1]
            around = surroundings_of_groups(own, joint.ravel())
        refined = self._with_frequencies(vote(own, around, base, weight))
        return _as_table(self._with_frequencies(own), refined, around, soft)

    def _known_batch_key(self, adata: AnnData) -> str | None:
        """Name the column of batches that the model was set up with, if these cells have it."""
        key = self.registry["setup_args"].get("batch_key")
        return key if key in adata.obs else None


def _batch_codes(
    adata: AnnData, batch_key: str | None, cells: NDArray[np.intp]
) -> NDArray[np.intp]:
    if batch_key is None:
        return np.zeros(len(cells), dtype=np.intp)
    return pd.factorize(get_column(adata.obs, batch_key, "batch_key").to_numpy()[cells])[0]


def _cluster_codes(
    adata: AnnData, clusters: str | Sequence[object], cells: NDArray[np.intp]
) -> NDArray[np.intp]:
    if isinstance(clusters, str):
        column = get_column(adata.obs, clusters, "clusters").iloc[cells]
        return pd.factorize(column.to_numpy())[0]
    if isinstance(clusters, pd.Series) and not isinstance(clusters.index, pd.RangeIndex):
        values = align_cells(clusters, adata.obs_names[cells], "clusters").to_numpy()
    else:
        values = np.asarray(clusters)
        if values.shape != (adata.n_obs,):
            raise ValueError(
                f"clusters are {values.shape}, not one for each of the {adata.n_obs:,} cells of "
                "`adata`, which `indices` choose from."
            )
        values = values[cells]
    if pd.isna(values).any():
        raise ValueError("clusters have missing values (NaN). Give them a cluster of their own.")
    return pd.factorize(values)[0]


def _as_table(
    own: NDArray[np.floating],
    refined: NDArray[np.floating],
    around: Surroundings,
    soft: pd.DataFrame,
) -> pd.DataFrame:
    before, after = own.argmax(axis=1), refined.argmax(axis=1)
    rows = np.arange(len(own))
    return pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(after, categories=soft.columns),
            "probability": refined[rows, after],
            "raw_label": pd.Categorical.from_codes(before, categories=soft.columns),
            "changed": before != after,
            "cluster_frequency": around.frequency[rows, after],
            "cluster_entropy": normalized_entropy(torch.from_numpy(around.mean)).numpy(),
        },
        index=soft.index,
    )


def _own_labels(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Whether each label is the cell's own, 0 or 1."""
    return np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]


def _safe_log(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY))
