"""Choice of a factor model, and of the use of bulk, by held-out molecules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scvi_sctab._config import FACTORS, IMPUTER, FactorConfig
from scvi_sctab.external.scdtl._factor import Factors, GenePrior, fit_factors, infer_weights
from scvi_sctab.external.scdtl._level import fit_level
from scvi_sctab.external.scdtl._starts import bulk_scores, cluster_weights, expression_scores
from scvi_sctab.metrics import HeldOutScores, score_held_out

if TYPE_CHECKING:
    from scipy import sparse

Floats = NDArray[np.float64]
BulkUse = Literal["none", "level", "full", "shuffled"]
SharesOf = Callable[[slice], Floats]

# Cells whose rates are dense at a time.
_N_SCORED = 512


@dataclass(frozen=True)
class BulkOfGenes:
    """Bulk at the genes of the cells.

    Attributes
    ----------
    mean
        Mean log expression, ``(n_genes,)``; NaN of genes that bulk lacks.
    contrasts
        Contrasts between samples, ``(n_genes, n_contrasts)``; 0 of genes that bulk lacks.
    """

    mean: Floats
    contrasts: Floats

    def shuffled(self, seed: int) -> BulkOfGenes:
        """Exchange the contrasts of genes at random; their levels stay."""
        known = np.flatnonzero(~np.isnan(self.mean))
        contrasts = self.contrasts.copy()
        contrasts[known] = contrasts[np.random.default_rng(seed).permutation(known)]
        return replace(self, contrasts=contrasts)


@dataclass(frozen=True)
class Training:
    """Cells to fit factors to.

    Attributes
    ----------
    counts
        ``(n_cells, n_genes)``.
    batches, n_batches
        Code of the batch of each cell, -1 if unknown, and the number of batches.
    seed
        Seed of starts and of shuffled bulk.
    """

    counts: sparse.csr_matrix
    batches: NDArray[np.int64]
    n_batches: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """Factor model that was fitted to a part of the molecules.

    Attributes
    ----------
    n_factors
        Number of factors.
    start
        What the start clusters: ``"expression"`` or ``"bulk"``.
    factors
        The fitted factors.
    scores
        Scores of the other molecules.
    """

    n_factors: int
    start: Literal["expression", "bulk"]
    factors: Factors
    scores: HeldOutScores

    @property
    def log_likelihood(self) -> float:
        """Log-likelihood per held-out molecule, in nats."""
        return float(self.scores.per_molecule["all"])


def gene_prior(totals: Floats, bulk: BulkOfGenes | None, use: BulkUse, seed: int = 0) -> GenePrior:
    """Build the prior of genes for one use of bulk.

    Parameters
    ----------
    totals
        Molecules of each gene over all cells, ``(n_genes,)``.
    bulk
        Bulk at these genes, if there is any.
    use
        What of bulk is used: nothing, the level of genes, level and contrasts, or level and the
        contrasts of other genes.
    seed
        Seed of the exchange of genes.
    """
    if bulk is None or use == "none":
        return GenePrior(fit_level(totals).mean, np.zeros((len(totals), 0)))
    level = fit_level(totals, bulk.mean).mean
    if use == "level":
        return GenePrior(level, np.zeros((len(totals), 0)))
    return GenePrior(level, (bulk.shuffled(seed) if use == "shuffled" else bulk).contrasts)


def fit_from(
    cells: Training, prior: GenePrior, trial: Trial, config: FactorConfig = FACTORS
) -> Factors:
    """Fit factors with the number and the start of a trial.

    Parameters
    ----------
    cells
        Cells with all their molecules.
    prior
        Prior of genes.
    trial
        The trial.
    config
        Hyperparameters.
    """
    return _fit(cells, prior, trial.n_factors, trial.start, config)


def _fit(
    cells: Training,
    prior: GenePrior,
    n_factors: int,
    start: Literal["expression", "bulk"],
    config: FactorConfig,
) -> Factors:
    if start == "bulk":
        scores = np.asarray(bulk_scores(cells.counts, prior))
    else:
        scores = expression_scores(cells.counts)
    for batch in np.unique(cells.batches[cells.batches >= 0]):
        # Clusters are not to be batches.
        scores[cells.batches == batch] -= scores[cells.batches == batch].mean(axis=0)
    weights = cluster_weights(scores, n_factors, cells.seed)
    return fit_factors(
        cells.counts,
        prior,
        weights,
        batches=cells.batches,
        n_batches=cells.n_batches,
        config=config,
    )


def best_trial(
    cells: Training,
    held_out: sparse.csr_matrix,
    ratio: float,
    prior: GenePrior,
    strata: NDArray[np.str_],
    config: FactorConfig = FACTORS,
) -> Trial:
    """Fit factor models of different sizes and starts; return the best by held-out molecules.

    Parameters
    ----------
    cells
        Cells without the molecules that are held out.
    held_out
        These molecules, ``(n_cells, n_genes)``.
    ratio
        Expected number of held-out molecules per molecule that is not.
    prior
        Prior of genes.
    strata
        Stratum of each gene, for the scores.
    config
        Hyperparameters.
    """
    is_few = cells.counts.shape[0] < config.few_cells
    config = replace(config, n_iterations=config.n_trial_iterations)
    starts: list[Literal["expression", "bulk"]] = ["expression"]
    if prior.features.shape[1]:
        starts.append("bulk")
    trials = []
    for n_factors in config.n_factors_of_few if is_few else config.n_factors:
        for start in starts:
            factors = _fit(cells, prior, n_factors, start, config)
            scores = score_factors(cells, factors, held_out, ratio, strata)
            trials.append(Trial(n_factors, start, factors, scores))
    return max(trials, key=lambda trial: trial.log_likelihood)


def score_factors(
    cells: Training,
    factors: Factors,
    held_out: sparse.csr_matrix,
    ratio: float,
    strata: NDArray[np.str_],
) -> HeldOutScores:
    """Score held-out molecules of cells by their rates under factors.

    Parameters
    ----------
    cells, held_out, ratio, strata
        As in :func:`best_trial`.
    factors
        Fitted factors.
    """
    weights = infer_weights(cells.counts, factors, batches=cells.batches)

    def shares(rows: slice) -> Floats:
        return factor_shares(factors, weights[rows], cells.batches[rows])

    return score_shares(cells.counts, held_out, ratio, shares, strata)


def factor_shares(factors: Factors, weights: Floats, batches: NDArray[np.int64]) -> Floats:
    """Compute the share of each gene in the molecules of cells, ``(n_cells, n_genes)``.

    Parameters
    ----------
    factors
        Fitted factors.
    weights
        Weights of factors in cells, ``(n_cells, n_factors)``.
    batches
        Code of the batch of each cell; without the effect of a batch if -1.
    """
    shares = weights @ factors.loadings.T
    if len(factors.shifts) and (batches >= 0).any():
        known = batches >= 0
        shares[known] *= factors.shifts[batches[known]]
        shares /= shares.sum(axis=1, keepdims=True)
    return shares


def score_shares(
    counts: sparse.csr_matrix,
    held_out: sparse.csr_matrix,
    ratio: float,
    shares: SharesOf,
    strata: NDArray[np.str_],
) -> HeldOutScores:
    """Score held-out molecules by the shares of genes, for some cells at a time.

    Parameters
    ----------
    counts
        Molecules that are not held out, ``(n_cells, n_genes)``.
    held_out, ratio, strata
        As in :func:`best_trial`.
    shares
        Function that returns the shares of genes in a slice of cells.
    """
    library = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    parts: list[HeldOutScores] = []
    for rows in _blocks(held_out.shape[0]):
        factors = ratio * library[rows]
        parts.append(
            score_held_out(held_out[rows], shares(rows), size_factors=factors, strata=strata)
        )
    return HeldOutScores(
        np.concatenate([part.log_likelihood for part in parts]),
        np.concatenate([part.n_molecules for part in parts]),
        parts[0].strata,
    )


def best_own_shape(
    counts: sparse.csr_matrix,
    held_out: sparse.csr_matrix,
    shares: SharesOf,
    shapes: Sequence[float] = IMPUTER.own_count_shapes,
) -> float:
    """Choose how much a cell's own counts change its shares, by held-out molecules.

    Parameters
    ----------
    counts, held_out, shares
        As in :func:`score_shares`.
    shapes
        Shapes to choose from, see :func:`own_posterior`.
    """
    scores = np.zeros(len(shapes))
    for rows in _blocks(counts.shape[0]):
        prior, target = shares(rows), held_out[rows].tocoo()
        for i, shape in enumerate(shapes):
            posterior = own_posterior(counts[rows], prior, shape)
            scores[i] += target.data @ np.log(posterior[target.row, target.col])
    return float(shapes[int(scores.argmax())])


def own_posterior(
    counts: sparse.csr_matrix,
    shares: Floats,
    shape: float,
    measured: NDArray[np.bool_] | None = None,
) -> Floats:
    """Combine the shares that a model predicts with the counts of the cell.

    The rate of a gene in a cell is Gamma distributed around its prediction, and the count is
    Poisson.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    shares
        Predicted shares, ``(n_cells, n_genes)``.
    shape
        Shape of the Gamma distribution; if it is large, counts change little.
    measured
        Flags of the genes that were measured, ``(n_genes,)``; the others keep their prediction.
        All if not given.

    Returns
    -------
    Posterior mean of the shares, ``(n_cells, n_genes)``; rows sum to 1.
    """
    exposure = whole_library(counts, shares, measured)
    if measured is not None:
        exposure = exposure * measured
    posterior = shares * (counts.toarray() + shape) / (exposure * shares + shape)
    return posterior / posterior.sum(axis=1, keepdims=True)


def whole_library(
    counts: sparse.csr_matrix, shares: Floats, measured: NDArray[np.bool_] | None = None
) -> Floats:
    """Compute the molecules of cells in all genes, ``(n_cells, 1)``.

    Parameters
    ----------
    counts, shares, measured
        As in :func:`own_posterior`. Molecules of genes that were not measured are those expected.
    """
    library = np.asarray(counts.sum(axis=1), dtype=float)
    if measured is None:
        return library
    share: Floats = shares[:, measured].sum(axis=1, keepdims=True)
    return library / np.maximum(share, np.finfo(float).tiny)


def _blocks(n_cells: int) -> Iterator[slice]:
    for start in range(0, n_cells, _N_SCORED):
        yield slice(start, min(start + _N_SCORED, n_cells))
