"""Proteins as a model tells them, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.data import get_proteins
from scvi_sctab.pretrain._protein_field import require_shared
from scvi_sctab.pretrain._scores import score_columns

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection


class ProteinPredictionMixin:
    """Predict proteins and compare them to what was measured."""

    def _log_proteins(self, adata: AnnData) -> pd.DataFrame:
        """Log counts of the model's proteins, NaN where missing."""
        setup = self.registry["setup_args"]
        keys = setup["protein_expression_obsm_key"], setup["protein_names_uns_key"]
        proteins = get_proteins(adata, *keys)
        require_shared(proteins.columns, self.protein_names, keys[0])
        return np.log1p(proteins.reindex(columns=self.protein_names))

    def predict_protein(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Predict proteins of cells; a batch that the model does not know shifts nothing.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        ``log(1 + count)``, ``(n_cells, n_proteins)``, rows named by cell, columns by protein.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_latent_representation`.
        """
        self._require_trained()
        return self._predict_selected(
            self._select(adata, indices, layer, min_gene_overlap), batch_size
        )

    def _predict_selected(self, cells: CellSelection, batch_size: int | None) -> pd.DataFrame:
        names = pd.Index(self.protein_names)
        proteins = self._stack(self._predict, len(names), cells, batch_size)
        return pd.DataFrame(proteins, cells.names, names)

    def _predict(self, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
        return self.module.predict(tensors).cpu().numpy()

    def get_protein_scores(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare predicted to measured proteins.

        Parameters
        ----------
        adata
            Cells with proteins, where those of the model are and matched by name; those of the
            model if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        A row per protein: ``pearson`` and ``mse`` of log counts over cells, and ``n``, in how
        many cells it was measured.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            As :meth:`predict_protein` and :meth:`setup_anndata`, or if none of the model's
            proteins is there.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return score_columns(*self._compared(cells, batch_size))

    def get_cell_scores(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare predicted to measured proteins within each cell.

        The correlation is high for any prediction that knows which proteins are abundant.

        Parameters
        ----------
        adata, indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_protein_scores`.

        Returns
        -------
        A row per cell, with the columns of :meth:`get_protein_scores`.

        Raises
        ------
        RuntimeError, KeyError, ValueError
            As :meth:`get_protein_scores`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        predicted, measured = self._compared(cells, batch_size)
        return score_columns(predicted.T, measured.T)

    def _compared(
        self, cells: CellSelection, batch_size: int | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        return (
            self._predict_selected(cells, batch_size),
            self._log_proteins(cells.adata).iloc[cells.positions],
        )
