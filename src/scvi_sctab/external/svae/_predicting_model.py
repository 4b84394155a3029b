"""Likelihoods of cells and predictions of expression, for a model of shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab._config import SHIFT_PREDICTION
from scvi_sctab._constants import MIN_GENE_OVERLAP
from scvi_sctab.base import document_cells
from scvi_sctab.external.svae._checks import check_latent, check_level, check_whole
from scvi_sctab.external.svae._likelihood import lower_bounds, marginal_log_likelihoods
from scvi_sctab.external.svae._prediction import (
    decode_means,
    find_batch,
    find_genes,
    latent_genes,
    resolve_combination,
    sample_expression,
    sample_shifts,
    summarize_difference,
    summarize_prediction,
)
from scvi_sctab.external.svae._screen import ScreenModel

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab.data import CellSelection


class PredictingModel(ScreenModel):
    """Model of a screen that scores cells and predicts perturbations."""

    n_cells_: NDArray[np.integer]
    # Number of perturbations that were trained on, the first ones; 0 is all.
    n_trained_: int = 0
    # Number of unperturbed cells; 0 if their mean is not the origin of shifts.
    n_controls_: int = 0

    @property
    def _n_cells_per_trained(self) -> float:
        """Median number of cells of the perturbations that were trained on."""
        return float(np.median(self.n_cells_[: self.n_trained_ or None]))

    @document_cells
    def get_elbo(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> float:
        """Estimate the evidence lower bound, mean over cells; the larger, the better.

        NOTE[DIFF] The host returns the negative bound. Masks are averaged over, and their penalty
        is left out.

        Parameters
        ----------
        adata
            Cells with perturbations, batch and covariates; those of the model if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.

        Returns
        -------
        Nats per cell.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the model does not know a perturbation or batch, counts are not raw, or the gene
            overlap is too small.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        bounds = self._per_cell(lambda x: lower_bounds(self.module, x), cells, batch_size)
        return float(bounds.mean())

    @document_cells
    def get_marginal_ll(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        n_samples: int = SHIFT_PREDICTION.n_importance_samples,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> float:
        """Estimate the marginal log-likelihood by importance weighting, mean over cells.

        Parameters
        ----------
        adata
            Cells with perturbations, batch and covariates; those of the model if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        n_samples
            Number of samples of latents; the more, the closer to the likelihood, from below.

        Returns
        -------
        Nats per cell.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_elbo`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        return float(self._marginal_lls(cells, n_samples, batch_size).mean())

    @document_cells
    def get_perturbation_ll(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        n_samples: int = SHIFT_PREDICTION.n_importance_samples,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Estimate the marginal log-likelihood of each perturbation and combination.

        Parameters
        ----------
        adata
            Cells with perturbations, batch and covariates; those of the model if not given.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        n_samples
            See :meth:`get_marginal_ll`.

        Returns
        -------
        A row per combination of perturbations, joined by the separator: ``marginal_ll``, the mean
        over cells, and ``n_cells``.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`get_elbo`.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        values = self._marginal_lls(cells, n_samples, batch_size)
        guides = self._guides.read(cells.adata[cells.positions])
        names = [self._guides.join(parts) for parts in guides]
        groups = pd.Series(values).groupby(pd.Index(names, name="perturbation"))
        return groups.agg(marginal_ll="mean", n_cells="size")

    def _marginal_lls(
        self, cells: CellSelection, n_samples: int, batch_size: int | None
    ) -> NDArray[np.float64]:
        check_whole("n_samples", n_samples, 1)
        return self._per_cell(
            lambda x: marginal_log_likelihoods(self.module, x, n_samples), cells, batch_size
        )

    @document_cells
    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        gene_list: Sequence[str] | None = None,
        transform_batch: str | None = None,
        library_size: float = 1,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Decode posterior means of latents.

        Parameters
        ----------
        adata
            Cells with batch and covariates; those of the model if not given. Perturbations are not
            needed.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        gene_list
            Genes to return; all if not given.
        transform_batch
            Batch of all cells, in place of their own.
        library_size
            Sum of the expression of a cell over all genes.

        Returns
        -------
        ``(n_cells, n_genes)``, rows named by cell, columns by gene.

        Raises
        ------
        KeyError
            If there is no such gene.
        RuntimeError, ValueError
            As :meth:`get_elbo`, or if there is no such batch.
        """
        cells = self._select(adata, indices, layer, min_gene_overlap)
        genes = pd.Index(self.gene_names)
        columns = find_genes(genes, gene_list)
        batch = find_batch(self.conditions, self._setup("batch_key"), transform_batch)

        def decode(tensors: dict[str, Tensor]) -> NDArray[np.float32]:
            scale = decode_means(self.module, tensors, batch)[:, columns]
            return (scale * library_size).cpu().numpy()

        parts = self._map_decoded(decode, cells, batch_size)
        values = np.concatenate([np.zeros((0, len(columns)), np.float32), *parts])
        return pd.DataFrame(values, cells.names, genes[columns])

    @document_cells
    def predict_perturbation(
        self,
        perturbation: str | Sequence[str],
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        n_samples: int = SHIFT_PREDICTION.n_samples,
        level: float = SHIFT_PREDICTION.level,
        library_size: float = SHIFT_PREDICTION.library_size,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Predict mean expression after a perturbation, or a combination that need not occur.

        The latents of unperturbed cells are shifted by the sum of the shifts and decoded.

        Parameters
        ----------
        perturbation
            A name, a combination such as ``"A+B"``, or a list of names.
        adata
            Unperturbed cells with batch and covariates; the controls of the model if not given.
            Where the screen has none, latents are drawn from the prior.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        n_samples
            Number of samples of shifts and latents.
        level
            Probability of the interval. It covers the uncertainty of shifts, not that of encoder
            and decoder, nor the variation between cells.
        library_size
            Sum of expression over all genes.

        Returns
        -------
        A row per gene: ``mean``, ``lower`` and ``upper``, the mean expression of perturbed cells
        and its interval; ``baseline``, that of unperturbed cells; and ``log2_fold_change``.

        Raises
        ------
        UnknownPerturbationError
            If the model does not know the perturbation, or a part of the combination.
        RuntimeError, ValueError
            As :meth:`get_elbo`, or if ``adata`` has perturbed cells.
        """
        check_level(level)
        samples = self._sample_expression(
            [[], perturbation],
            self._controls(adata, indices, layer, min_gene_overlap),
            n_samples,
            batch_size,
        )
        return summarize_prediction(samples * library_size, [*self.gene_names], level)

    @document_cells
    def differential_expression(
        self,
        perturbation_1: str | Sequence[str],
        perturbation_2: str | Sequence[str] = (),
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        *,
        n_samples: int = SHIFT_PREDICTION.n_samples,
        level: float = SHIFT_PREDICTION.level,
        delta: float = SHIFT_PREDICTION.delta,
        library_size: float = SHIFT_PREDICTION.library_size,
        layer: str | None = None,
        min_gene_overlap: float = MIN_GENE_OVERLAP,
    ) -> pd.DataFrame:
        """Compare the predicted expression of two perturbations of the same cells.

        NOTE[DIFF] The host compares other cells per group; here the cells are the same, so that
        they cannot differ but by the perturbation.

        Parameters
        ----------
        perturbation_1, perturbation_2
            Perturbations or combinations, as in :meth:`predict_perturbation`; none is the control.
        adata
            Unperturbed cells, as in :meth:`predict_perturbation`.
        indices, batch_size, layer, min_gene_overlap
            As in :meth:`get_latent_representation`.
        n_samples, level, library_size
            See :meth:`predict_perturbation`.
        delta
            Absolute log2 fold change from which a gene counts as changed.

        Returns
        -------
        A row per gene, sorted by absolute fold change: ``mean_1``, ``mean_2``,
        ``log2_fold_change`` of 1 over 2, its interval ``lower`` to ``upper``, and the
        ``probability`` of a change.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`predict_perturbation`.
        """
        check_level(level)
        samples = self._sample_expression(
            [perturbation_1, perturbation_2],
            self._controls(adata, indices, layer, min_gene_overlap),
            n_samples,
            batch_size,
        )
        return summarize_difference(samples * library_size, [*self.gene_names], level, delta)

    def _controls(
        self,
        adata: AnnData | None,
        indices: Sequence[int] | None,
        layer: str | None,
        min_gene_overlap: float,
    ) -> CellSelection | None:
        """Select unperturbed cells; ``None`` if the screen has none."""
        if adata is None and indices is None:
            guides = [] if self.adata is None else self._guides.read(self.adata)
            indices = [cell for cell, names in enumerate(guides) if not names]
            if not indices and self.control is not None:
                raise ValueError(
                    f"The model has no cells of {self.control!r} of its own: pass unperturbed "
                    "cells, `adata=`."
                )
            if not indices:
                return None
        cells = self._select(adata, indices, layer, min_gene_overlap)
        self._refuse_perturbed(cells)
        return cells

    def _refuse_perturbed(self, cells: CellSelection) -> None:
        """Raise an error if cells that are to be shifted are perturbed already."""
        guides = self._guides
        if not guides.is_in(cells.adata):
            return
        n = sum(bool(names) for names in guides.read(cells.adata[cells.positions]))
        if n:
            raise ValueError(
                f"{n:,} of {len(cells):,} cells are perturbed by {guides.place}, and would be "
                "shifted a second time. Pass unperturbed cells, or leave the column out."
            )

    def _sample_expression(
        self,
        combinations: Sequence[str | Sequence[str]],
        cells: CellSelection | None,
        n_samples: int,
        batch_size: int | None,
    ) -> NDArray[np.float64]:
        """Sample mean expression, ``(n_combinations, n_samples, n_genes)``."""
        self._require_trained()
        check_whole("n_samples", n_samples, 1)
        known = self.perturbations
        codes = [resolve_combination(names, known, self._guides) for names in combinations]
        if any(codes) and self.module.prior == "none":
            raise ValueError("A model with prior='none' has no shifts to predict with.")
        if cells is not None and not len(cells):
            raise ValueError("There are no unperturbed cells to predict for.")
        shifts = sample_shifts(self, codes, n_samples)
        return sample_expression(self, shifts, cells, batch_size)

    def get_latent_genes(self, latent: int, *, step: float | None = None) -> pd.DataFrame:
        """Rank the genes that a latent moves, by decoding both of its sides.

        The other latents are those of unperturbed cells, and batches and covariates are averages.

        Parameters
        ----------
        latent
            Position of the latent.
        step
            Distance from 0 on both sides; the median shift of this latent if not given.

        Returns
        -------
        A row per gene, sorted by absolute fold change: ``log2_fold_change`` of ``plus`` over
        ``minus``, the shares of the gene in counts on both sides.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such latent, or ``step`` is not positive.
        """
        self._require_trained()
        check_latent(latent, self.module.n_latent, step)
        return latent_genes(self, latent, step)
