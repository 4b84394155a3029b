"""Prediction of labels by nearest neighbours in a latent space that was trained without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from scvi_sctab._constants import MIN_GENE_OVERLAP, UNLABELED_CATEGORY
from scvi_sctab.base import EncoderModel
from scvi_sctab.data import get_column, list_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


class NeighborsMixin(EncoderModel):
    """Zero-shot prediction in the latent space."""

    def predict_knn(
        self,
        adata: AnnData,
        reference: AnnData,
        labels_key: str,
        *,
        unlabeled_category: str = UNLABELED_CATEGORY,
        n_neighbors: int = 5,
        soft: bool = False,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> NDArray[np.object_] | pd.DataFrame:
        """Predict the most frequent label among the nearest labelled cells.

        :cite:t:`Richter24` evaluate an encoder that was trained without labels in this way.
        NOTE[DIFF] They drop the nearest neighbour as if it were the cell itself, which is not in
        the reference.

        Parameters
        ----------
        adata
            Cells to predict.
        reference
            Labelled cells, none of them in ``adata``.
        labels_key, unlabeled_category
            Column of ``reference.obs`` with labels, and its value for unlabelled cells.
        n_neighbors
            Number of neighbours, with equal votes.
        soft
            Whether to return the share of votes for each label.

        Returns
        -------
        A label per cell, ``(n_cells,)``; if ``soft``, a data frame ``(n_cells, n_labels)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        KeyError
            If there is no such column.
        ValueError
            If cells of ``adata`` are in the reference, fewer than ``n_neighbors`` cells have a
            label, or ``n_neighbors`` is less than 1; or as :meth:`get_latent_representation`.
        """
        if n_neighbors < 1:
            raise ValueError(f"{n_neighbors=}: at least one neighbour has to vote.")
        labels = get_column(reference.obs, labels_key, "labels_key", unlabeled_category)
        labelled = np.flatnonzero(labels != str(unlabeled_category))
        if len(labelled) < n_neighbors:
            raise ValueError(
                f"{n_neighbors} neighbours vote, but {len(labelled)} cells of the reference have "
                "a label."
            )
        known = self.get_latent_representation(reference, labelled.tolist())
        latent = self.get_latent_representation(adata)
        _require_disjoint(adata.obs_names, latent, reference.obs_names[labelled], known)
        voters = KNeighborsClassifier(n_neighbors).fit(known, labels.to_numpy()[labelled])
        if soft:
            shares = voters.predict_proba(latent)
            return pd.DataFrame(shares, index=adata.obs_names, columns=voters.classes_)
        return voters.predict(latent)


def _require_disjoint(
    names: pd.Index, latent: NDArray[np.float32], reference: pd.Index, known: NDArray[np.float32]
) -> None:
    """Refuse cells that are in the reference, by name and embedding, and would be neighbours."""
    # Different studies may share barcodes, but not embeddings.
    position = reference.get_indexer(names) if reference.is_unique else np.full(len(names), -1)
    shared = np.flatnonzero(position >= 0)
    same = shared[np.isclose(latent[shared], known[position[shared]], atol=1e-5).all(axis=1)]
    if len(same):
        raise ValueError(
            f"{len(same):,} cells are in the reference, too, and would vote for themselves: "
            f"{list_names(names[same])}. Take them out of one of the two."
        )
