"""Whether the genes that an explanation names are those that the label hangs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import settings

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data import align_cells, list_names

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection

# Cells are dense here, once per ranking and number of genes.
_BATCH_SIZE = 256


class DeletionMixin:
    """Delete genes and see what becomes of the label, for one network or for several."""

    def deletion_test(
        self,
        rankings: Mapping[str, sparse.csr_matrix | pd.DataFrame],
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        n_genes: Sequence[int] = (5, 10, 20, 50, 100),
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Delete the genes that rankings put first, beside random ones.

        A ranking that finds the genes on which a label hangs makes its probability fall faster
        than genes drawn at random do :cite:p:`Samek17`. Only genes that a cell expresses are
        ranked and drawn. Deleted is their log-normalised expression inside the model, not their
        counts: fewer counts would make all other genes of the cell look higher.

        Parameters
        ----------
        rankings
            By name: scores ``(n_cells, n_genes)`` of the same cells, in the order of
            ``model.gene_names``, as :meth:`~scvi_sctab.SCTAB.get_attributions` and
            :meth:`~scvi_sctab.SCTAB.get_attention` give; a frame of such scores, aligned by the
            names of cells and genes; or a frame of
            :meth:`~scvi_sctab.SCTAB.get_markers` by predicted label, best with
            ``n_genes=len(model.gene_names)``.
        adata, indices, layer, min_gene_overlap
            As in :meth:`~scvi_sctab.SCTAB.predict`.
        n_genes
            How many genes to delete from each cell.
        batch_size
            Cells at a time.

        Returns
        -------
        A row per ranking, ``"random"`` last, and number of genes: ``ranking``, ``n_genes``,
        ``drop`` (by how much the probability of the predicted label, before calibration, falls,
        mean over cells),
        ``drop_sd`` (over cells) and ``changed`` (share of cells whose label becomes another).

        Raises
        ------
        ValueError
            If the model reads a latent space, scores do not fit the cells, or as in
            :meth:`~scvi_sctab.SCTAB.predict`.
        """
        self._require_trained()
        self._refuse_latent()
        cells = self._select(adata, indices, layer, min_gene_overlap)
        scores = [self._scores(name, ranking, cells) for name, ranking in rankings.items()]
        rng = np.random.default_rng(0 if settings.seed is None else settings.seed)
        start = 0

        def delete(tensors: dict[str, Tensor]) -> NDArray[np.float64]:
            nonlocal start
            x, conditions = self._dense_input(tensors)
            expression = x.cpu().numpy()
            rows = slice(start, start + len(expression))
            drawn = rng.random(expression.shape, dtype=np.float32)
            given = [score[rows].toarray() for score in scores]
            ranks = [_ranks(values, expression > 0) for values in [*given, drawn]]
            start = rows.stop
            before = self._expression_probabilities(x, conditions)
            label = before.argmax(dim=1, keepdim=True)
            results = np.empty((len(ranks), len(n_genes), 2, len(x)))
            for i, j in np.ndindex(results.shape[:2]):
                kept = torch.from_numpy(ranks[i] >= n_genes[j]).to(x.device)
                after = self._expression_probabilities(x * kept, conditions)
                drop = before.gather(1, label) - after.gather(1, label)
                changed = after.argmax(dim=1, keepdim=True) != label
                results[i, j] = torch.stack([drop, changed])[..., 0].cpu().numpy()
            return results

        parts = list(self._map_cells(delete, cells, batch_size or _BATCH_SIZE))
        empty = np.empty((len(scores) + 1, len(n_genes), 2, 0))
        drop, changed = np.moveaxis(np.concatenate([empty, *parts], axis=-1), 2, 0)
        return pd.DataFrame(
            {
                "ranking": np.repeat([*rankings, "random"], len(n_genes)),
                "n_genes": np.tile(n_genes, len(drop)),
                "drop": drop.mean(axis=-1).ravel(),
                "drop_sd": drop.std(axis=-1).ravel(),
                "changed": changed.mean(axis=-1).ravel(),
            }
        )

    def _scores(
        self,
        name: str,
        ranking: sparse.csr_matrix | pd.DataFrame,
        cells: CellSelection,
    ) -> sparse.csr_matrix:
        """Score genes per cell."""
        if isinstance(ranking, pd.DataFrame) and {"group", "gene"} <= {*ranking.columns}:
            ranking = self._scores_of_markers(ranking, self._predict(cells))
        elif isinstance(ranking, pd.DataFrame):
            ranking = self._scores_by_name(name, ranking, cells.names)
        expected = (len(cells), len(self.gene_names))
        if ranking.shape != expected:
            raise ValueError(
                f"The scores of {name!r} are {ranking.shape}, not {expected}: one for each of the "
                "cells and of the model's genes."
            )
        return sparse.csr_matrix(ranking)

    def _scores_by_name(
        self, name: str, scores: pd.DataFrame, cells: pd.Index
    ) -> NDArray[np.float64]:
        what = f"The scores of {name!r}"
        missing = pd.Index(self.gene_names).difference(scores.columns)
        if len(missing):
            raise ValueError(
                f"{what} lack {len(missing):,} of the model's genes: {list_names(missing)}. Give "
                "them a score, e.g. 0: `scores.reindex(columns=model.gene_names, fill_value=0)`."
            )
        return align_cells(scores, cells, what)[[*self.gene_names]].to_numpy()

    def _scores_of_markers(
        self, markers: pd.DataFrame, predicted: NDArray[np.str_]
    ) -> sparse.csr_matrix:
        groups, codes = np.unique(predicted, return_inverse=True)
        missing = sorted(set(groups.tolist()) - set(markers["group"]))
        if missing:
            raise ValueError(
                f"There are no markers of {missing}, which cells are predicted to be. Take those "
                "of the same cells: `get_markers(adata, indices=...)`."
            )
        table = np.zeros((len(groups), len(self.gene_names)), dtype=np.float32)
        for row, group in zip(table, groups, strict=True):
            genes = markers.loc[markers["group"] == group, "gene"]
            # Above the genes that are not listed, which have 0.
            row[self._positions(genes)] = np.arange(len(genes), 0, -1)
        member = sparse.csr_matrix(
            (np.ones(len(codes), np.float32), (np.arange(len(codes)), codes))
        )
        return member @ sparse.csr_matrix(table)

    def _positions(self, genes: pd.Series) -> NDArray[np.intp]:
        return pd.Index(self.gene_names).get_indexer(genes)


def _ranks(scores: NDArray[np.floating], expressed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rank the genes that each cell expresses, from 0 on; the others come after them."""
    order = np.argsort(np.where(expressed, -scores, np.inf), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return ranks
