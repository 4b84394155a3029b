"""Fit of the imputer: comparison of uses of bulk, and the final factors; arrays in and out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.external.scdtl._factor import Factors, GenePrior, infer_weights
from scvi_sctab.external.scdtl._level import fit_level
from scvi_sctab.external.scdtl._trials import (
    BulkOfGenes,
    BulkUse,
    SharesOf,
    Training,
    Trial,
    best_trial,
    factor_shares,
    fit_from,
    gene_prior,
    score_shares,
)
from scvi_sctab.metrics import HeldOutScores, expression_tertiles, molecular_split

if TYPE_CHECKING:
    from scipy import sparse

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImputerTask:
    """Cells of a model, their molecules in two parts, and bulk at their genes.

    Attributes
    ----------
    cells
        All molecules.
    part
        Molecules to fit models to that are compared.
    held_out
        The other molecules, ``(n_cells, n_genes)``; without those of cells that have none in
        ``part``.
    ratio
        Expected number of held-out molecules per molecule of ``part``.
    strata
        Third of each gene by expression.
    bulk
        Bulk at the genes, if there is any.
    """

    cells: Training
    part: Training
    held_out: sparse.csr_matrix
    ratio: float
    strata: NDArray[np.str_]
    bulk: BulkOfGenes | None

    @classmethod
    def build(
        cls,
        counts: sparse.csr_matrix,
        batches: NDArray[np.int64],
        n_batches: int,
        bulk: BulkOfGenes | None,
        holdout_fraction: float,
        seed: int,
    ) -> ImputerTask:
        """Hold out a share of the molecules.

        Parameters
        ----------
        counts
            ``(n_cells, n_genes)``.
        batches, n_batches, seed
            As in :class:`Training`.
        bulk
            Bulk at the genes, if there is any.
        holdout_fraction
            Share of molecules to hold out.

        Raises
        ------
        ValueError
            If no cell has molecules in both parts.
        """
        shown, held_out = molecular_split(counts, 1 - holdout_fraction, seed=seed)
        # A cell that shows no molecule has an expected count of 0: its score would be -inf.
        is_hidden = np.asarray(shown.sum(axis=1)).ravel() == 0
        held_out.data[np.repeat(is_hidden, np.diff(held_out.indptr))] = 0
        held_out.eliminate_zeros()
        if not held_out.nnz:
            raise ValueError(
                f"{holdout_fraction=} leaves no cell with molecules both to learn from and held "
                "out: give one nearer to 0.5."
            )
        return cls(
            Training(counts, batches, n_batches, seed),
            Training(shown, batches, n_batches, seed),
            held_out,
            holdout_fraction / (1 - holdout_fraction),
            expression_tertiles(gene_totals(counts)),
            bulk,
        )

    def prior(self, use: BulkUse, *, of_part: bool = False) -> GenePrior:
        """Build the prior of genes from all molecules, or from those of ``part``."""
        cells = self.part if of_part else self.cells
        return gene_prior(gene_totals(cells.counts), self.bulk, use, cells.seed)

    def compare(self, uses: Sequence[BulkUse]) -> dict[str, Trial]:
        """Find the best factor model of each use of bulk."""
        return {
            use: best_trial(
                self.part, self.held_out, self.ratio, self.prior(use, of_part=True), self.strata
            )
            for use in uses
        }

    def score_gene_mean(self) -> HeldOutScores:
        """Score the mean of each gene, the same in all cells."""
        level = self.prior("none", of_part=True).level

        def shares(rows: slice) -> Floats:
            return np.tile(level, (rows.stop - rows.start, 1))

        return score_shares(self.part.counts, self.held_out, self.ratio, shares, self.strata)


@dataclass(frozen=True)
class FittedImputer:
    """Result of the training of an imputer, apart from the weights of the network.

    Attributes
    ----------
    use
        Use of bulk.
    method
        ``"factor"`` or ``"autoencoder"``.
    own_shape
        Weight of the model against the counts of a cell, see :func:`own_posterior`.
    rotation
        Rotation of the contrasts of bulk that the autoencoder works in, ``(n_contrasts,
        n_contrasts)``; without rows, contrasts are not used.
    level
        Share of each gene, ``(n_genes,)``.
    level_of_others
        Share that is expected of genes in bulk only, ``(n_others,)``.
    loadings, coefficients, concentration, shifts
        Those of :class:`Factors`; empty with an autoencoder.
    library_scale
        Molecules per unit of the size factor.
    """

    use: str
    method: str
    own_shape: float
    rotation: Floats
    level: Floats
    level_of_others: Floats
    loadings: Floats
    coefficients: Floats
    concentration: Floats
    shifts: Floats
    library_scale: float = 1.0

    @property
    def factors(self) -> Factors:
        """Factors of the factor model."""
        return Factors(self.loadings, self.coefficients, self.concentration, self.shifts)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name, without copies."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_final(task: ImputerTask, use: BulkUse, trial: Trial) -> tuple[GenePrior, Factors]:
    """Fit the factors of the best trial to all molecules.

    Parameters
    ----------
    task
        The cells.
    use
        Use of bulk.
    trial
        The best trial of this use.
    """
    prior = task.prior(use)
    return prior, fit_from(task.cells, prior, trial)


def trial_shares(task: ImputerTask, trial: Trial) -> SharesOf:
    """Return a function of a slice of cells with the shares that a trial predicts.

    Parameters
    ----------
    task, trial
        As in :func:`fit_final`.
    """
    cells = task.part
    weights = infer_weights(cells.counts, trial.factors, batches=cells.batches)

    def shares(rows: slice) -> Floats:
        return factor_shares(trial.factors, weights[rows], cells.batches[rows])

    return shares


def level_of_others(task: ImputerTask, others: Floats, use: str) -> Floats:
    """Compute the shares expected of genes that the cells lack, ``(n_others,)``.

    Parameters
    ----------
    task
        The cells.
    others
        Mean log expression of these genes in bulk.
    use
        Use of bulk; without it, there are none.
    """
    if use == "none" or task.bulk is None:
        return np.zeros(0)
    return fit_level(gene_totals(task.cells.counts), task.bulk.mean, others).of_others


def shares_of_others(
    prior: GenePrior, level: Floats, contrasts: Floats, coefficients: Floats
) -> Floats:
    """Predict the shares of genes in bulk only, by factors.

    Parameters
    ----------
    prior
        Prior of the genes of the cells.
    level, contrasts
        Level ``(n_others,)`` and contrasts ``(n_others, n_contrasts)`` of the other genes.
    coefficients
        Weights of contrasts in factors, ``(n_contrasts, n_factors)``.

    Returns
    -------
    ``(n_others, n_factors)``, in the unit of the shares of the genes of the cells.
    """
    norm = prior.level @ np.exp(prior.features @ coefficients)
    return level[:, None] * np.exp(contrasts @ coefficients) / norm


def gene_totals(counts: sparse.csr_matrix) -> Floats:
    """Count the molecules of each gene, ``(n_genes,)``."""
    return np.asarray(counts.sum(axis=0), dtype=float).ravel()
