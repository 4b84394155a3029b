"""Base class of all baselines: checks of the input and of the result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from scvi_sctab._constants import UNLABELED_CATEGORY
from scvi_sctab.data import (
    GeneAlignment,
    align_genes,
    check_genes,
    check_labels,
    check_reference,
    get_column,
    get_matrix,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Baseline(ABC):
    """Base class of a :class:`~scvi_sctab._types.CellTypePredictor`.

    A subclass implements ``_fit`` and ``_predict``.

    Parameters
    ----------
    seed
        Seed of the method.

    Attributes
    ----------
    name
        Name in tables.
    has_probabilities
        Whether it returns probabilities; otherwise 1 for the predicted label and 0 for the others.
    is_seeded
        Whether the result depends on the seed.
    """

    name: str
    has_probabilities: bool = True
    is_seeded: bool = True

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._labels: NDArray[np.str_] | None = None

    def fit(self, reference: AnnData, labels_key: str, donor_key: str | None = None) -> Self:
        """Train on the labelled cells of a reference.

        Parameters
        ----------
        reference
            Raw counts in ``X``, ``(n_cells, n_genes)``; it is not changed.
        labels_key
            Column of ``reference.obs`` with cell types. Cells whose label is missing or
            ``"unknown"`` are left out.
        donor_key
            Column with donors, for methods that use them.

        Returns
        -------
        Itself.

        Raises
        ------
        KeyError
            If a column does not exist.
        ValueError
            If ``X`` does not hold raw counts, cells are empty, genes are duplicated, or the labels
            cannot be learnt.
        """
        cells = _labelled_cells(reference, labels_key, donor_key)
        self._labels = None
        self._genes = cells.var_names.to_numpy(dtype=str)
        self._labels_key, self._donor_key = labels_key, donor_key
        labels = np.unique(cells.obs[labels_key].to_numpy(dtype=str))
        self._fit(cells, labels)
        self._labels = labels
        return self

    def predict_proba(self, query: AnnData) -> pd.DataFrame:
        """Predict the probability of each label for each cell of a query.

        Parameters
        ----------
        query
            Raw counts in ``X``, genes in any order, ``(n_cells, n_genes)``; it is not changed.

        Returns
        -------
        ``(n_cells, n_labels)`` in [0, 1], rows named by cell, columns by label, sorted. The label
        of a cell is the column with the largest value.

        Raises
        ------
        RuntimeError
            If it is not fitted, or the method returned values of a wrong shape or range.
        ValueError
            If ``query`` does not hold raw counts, or has too few of the reference's genes.
        """
        if self._labels is None:
            raise RuntimeError(f"{self.name} is not fitted: call `fit(reference, labels_key)`.")
        if not query.n_obs:
            raise ValueError("The query has no cells.")
        values = self._predict(query, align_genes(self._genes, query.var))
        shape = query.n_obs, len(self._labels)
        if values.shape != shape:
            raise RuntimeError(f"{self.name} returned {values.shape} values instead of {shape}.")
        if not ((values >= 0) & (values <= 1)).all():
            raise RuntimeError(f"{self.name} returned values that are not in [0, 1].")
        return pd.DataFrame(values, index=query.obs_names, columns=self._labels)

    @abstractmethod
    def _fit(self, reference: AnnData, labels: NDArray[np.str_]) -> None:
        """Train the method.

        ``reference`` is checked. The method may change it, but not its counts, whose memory may be
        that of the user. Its ``obs`` has the columns ``_labels_key``, in which every cell has one
        of ``labels``, and ``_donor_key`` unless that is ``None``; its genes are ``_genes``.
        """

    @abstractmethod
    def _predict(self, query: AnnData, alignment: GeneAlignment) -> NDArray[np.floating]:
        """Return ``(n_cells, n_labels)``; ``alignment`` maps the query's genes to ``_genes``.

        ``query`` is the user's: its counts are not checked, and it must not be changed.
        """


def _labelled_cells(reference: AnnData, labels_key: str, donor_key: str | None) -> AnnData:
    """Check a reference, and copy its labelled cells with counts, labels and donors only."""
    obs = reference.obs.copy()
    if labels_key in obs:
        labels = obs[labels_key].astype(object)
        obs[labels_key] = labels.where(labels.notna(), UNLABELED_CATEGORY)
    check_labels(obs, labels_key, UNLABELED_CATEGORY, donor_key=None)
    labelled = (obs[labels_key] != UNLABELED_CATEGORY).to_numpy()
    obs = obs[labelled]
    columns = {labels_key: obs[labels_key].astype("category")}
    if donor_key is not None:
        columns[donor_key] = get_column(obs, donor_key, "donor_key").astype("category")
    counts = get_matrix(reference if labelled.all() else reference[labelled], None)
    var = pd.DataFrame(index=check_genes(reference.var_names))
    cells = AnnData(counts, obs=pd.DataFrame(columns, index=obs.index), var=var)
    check_reference(cells, None, labels_key, UNLABELED_CATEGORY, {})
    return cells
