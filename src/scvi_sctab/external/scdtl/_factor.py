"""Poisson factor model of counts with a prior on gene loadings from bulk, fitted by EM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import digamma

from scvi_sctab._config import FACTORS, FactorConfig
from scvi_sctab.external.scdtl._kernels import assign_shapes, share_counts, shrink_genes
from scvi_sctab.external.scdtl._level import best_shape

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class GenePrior:
    """Prior knowledge on the expression of genes.

    Attributes
    ----------
    level
        Share of each gene in the molecules of the cells, ``(n_genes,)``; the sum is 1.
    features
        Contrasts of each gene between bulk samples, ``(n_genes, n_features)``; without columns,
        there is no bulk.
    """

    level: Floats
    features: Floats

    def shares(self, coefficients: Floats) -> Floats:
        """Compute the shares of genes that bulk predicts for factors.

        Parameters
        ----------
        coefficients
            Weights of the contrasts, ``(n_features, n_factors)``.

        Returns
        -------
        ``level * exp(features @ coefficients)``, ``(n_genes, n_factors)``; columns sum to 1.
        """
        log_shares = self.features @ coefficients
        shares = self.level[:, None] * np.exp(log_shares - log_shares.max(axis=0))
        return shares / shares.sum(axis=0)


@dataclass(frozen=True)
class Factors:
    """Factors of gene expression.

    Attributes
    ----------
    loadings
        Share of each gene in the molecules of a factor, ``(n_genes, n_factors)``; columns sum to 1.
    coefficients
        Weights of the contrasts of bulk in the prior of each factor, ``(n_features, n_factors)``.
    concentration
        Parameters of the Dirichlet distribution of the weights of cells, ``(n_factors,)``.
    shifts
        Factor of each gene in each batch, ``(n_batches, n_genes)``, with prior mean 1; without
        rows, there are no batches.
    """

    loadings: Floats
    coefficients: Floats
    concentration: Floats
    shifts: Floats


@dataclass(frozen=True)
class _Cells:
    """Counts of cells, and what does not change while factors are fitted."""

    counts: sparse.csr_matrix
    library: Floats
    batches: Codes
    totals: Floats

    @classmethod
    def of(cls, counts: sparse.csr_matrix, batches: Codes | None, n_batches: int) -> _Cells:
        batches = np.full(counts.shape[0], -1) if batches is None else batches
        member = _indicators(batches, n_batches)
        return cls(
            sparse.csr_matrix(counts, dtype=np.float64),
            np.asarray(counts.sum(axis=1), dtype=float).ravel(),
            batches,
            (member @ counts).toarray().astype(float),
        )

    def share(self, weights: Floats, loadings: Floats) -> tuple[Floats, Floats]:
        """Compute the expected counts of each factor in cells and in genes."""
        of_cells, of_genes = np.zeros_like(weights), np.zeros_like(loadings)
        x = self.counts
        share_counts(x.indptr, x.indices, x.data, weights, loadings, of_cells, of_genes)
        return of_cells, of_genes


def _indicators(batches: Codes, n_batches: int) -> sparse.csr_matrix:
    """Build the matrix ``(n_batches, n_cells)`` whose rows select the cells of a batch."""
    known = np.flatnonzero(batches >= 0)
    entries = np.ones(len(known)), (batches[known], known)
    return sparse.csr_matrix(entries, shape=(n_batches, len(batches)))


def fit_factors(
    counts: sparse.csr_matrix,
    prior: GenePrior,
    weights: Floats,
    *,
    batches: Codes | None = None,
    n_batches: int = 0,
    config: FactorConfig = FACTORS,
) -> Factors:
    """Fit factors to counts by expectation maximisation.

    The count of gene ``g`` in cell ``i`` is Poisson with the mean ``l_i * sum_k w_ik * f_gk``; the
    loading ``f_gk`` has a Gamma prior with the mean ``level_g * exp(features_g @ a_k)``. Its shape
    is one of ``config.shapes``, with frequencies that depend on the level of the gene. The
    coefficients ``a_k`` are those of a negative binomial ridge regression of the expected counts
    of the factor, whose penalty is estimated, too.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    prior
        Level of each gene, and its contrasts in bulk.
    weights
        Weights of factors in cells to start from, ``(n_cells, n_factors)``, positive.
    batches, n_batches
        Code of the batch of each cell, -1 if unknown, and the number of batches.
    config
        Hyperparameters.
    """
    cells = _Cells.of(counts, batches, n_batches)
    n_genes, n_factors = len(prior.level), weights.shape[1]
    factors = Factors(
        np.tile(prior.level[:, None], (1, n_factors)),
        np.zeros((prior.features.shape[1], n_factors)),
        np.full(n_factors, config.concentration),
        np.ones((n_batches, n_genes)),
    )
    of_genes = cells.counts.T @ weights
    state = _Shrinkage.start(prior, n_factors, config)
    for i in range(config.n_iterations):
        exposure = _exposure(cells, factors, weights)
        loadings, coefficients, state = state.update(of_genes, exposure, factors.coefficients, i)
        factors = replace(factors, loadings=loadings, coefficients=coefficients)
        factors = replace(factors, shifts=_fit_shifts(cells, factors, weights))
        of_cells, of_genes = cells.share(weights, loadings)
        if i >= config.n_warmup:
            concentration = _fit_concentration(of_cells, factors.concentration)
            factors = replace(factors, concentration=concentration)
        weights = _posterior_weights(cells, of_cells, factors)
    return factors


def infer_weights(
    counts: sparse.csr_matrix,
    factors: Factors,
    *,
    batches: Codes | None = None,
    measured: NDArray[np.bool_] | None = None,
    n_iterations: int = FACTORS.n_inference,
) -> Floats:
    """Compute the weights of factors in cells.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``. A cell without counts has the prior mean.
    factors
        Fitted factors.
    batches
        Code of the batch of each cell, -1 if unknown.
    measured
        Flags of the genes that were measured, ``(n_genes,)``; all if not given.
    n_iterations
        Number of steps of expectation maximisation.

    Returns
    -------
    ``(n_cells, n_factors)``, positive.
    """
    cells = _Cells.of(counts, batches, len(factors.shifts))
    weights = np.tile(factors.concentration / factors.concentration.sum(), (counts.shape[0], 1))
    for _ in range(n_iterations):
        of_cells = cells.share(weights, factors.loadings)[0]
        if measured is None:
            weights = _posterior_weights(cells, of_cells, factors)
        else:
            weights = _weights_of_some(cells, of_cells, factors, weights, measured)
    return weights


def _weights_of_some(
    cells: _Cells,
    of_cells: Floats,
    factors: Factors,
    weights: Floats,
    measured: NDArray[np.bool_],
) -> Floats:
    """Update the weights, where genes that were not measured have the counts expected of them."""
    detected = np.vstack([factors.shifts, np.ones(len(measured))]) * measured
    seen = (detected @ factors.loadings)[cells.batches]
    share = np.maximum((weights * seen).sum(axis=1, keepdims=True), np.finfo(float).tiny)
    library = cells.library[:, None] / share
    weights = of_cells + factors.concentration
    weights = weights / (factors.concentration.sum() + library * seen)
    return weights / weights.sum(axis=1, keepdims=True)


def _posterior_weights(cells: _Cells, of_cells: Floats, factors: Factors) -> Floats:
    """Update the weights; a factor whose genes a batch sees well needs less of it."""
    weights = of_cells + factors.concentration
    if len(factors.shifts):
        seen = np.vstack([factors.shifts @ factors.loadings, np.ones(weights.shape[1])])
        weights = weights / seen[cells.batches]
    return weights / weights.sum(axis=1, keepdims=True)


def _exposure(cells: _Cells, factors: Factors, weights: Floats) -> Floats:
    """Count molecules of each factor, times the factor of a gene, ``(n_genes or 1, n_factors)``."""
    molecules = cells.library[:, None] * weights
    if not len(factors.shifts):
        return molecules.sum(axis=0, keepdims=True)
    by_batch = _indicators(cells.batches, len(factors.shifts)) @ molecules
    return factors.shifts.T @ by_batch + molecules[cells.batches < 0].sum(axis=0)


def _fit_shifts(cells: _Cells, factors: Factors, weights: Floats) -> Floats:
    """Compute posterior means of the factors of genes in batches, by empirical Bayes."""
    if not len(factors.shifts):
        return factors.shifts
    molecules = cells.library[:, None] * weights
    by_batch = _indicators(cells.batches, len(factors.shifts)) @ molecules
    expected = by_batch @ factors.loadings.T
    has_cells = by_batch.any(axis=1)
    shape = best_shape(cells.totals[has_cells].ravel(), expected[has_cells].ravel())
    return (cells.totals + shape) / (expected + shape)


def _fit_concentration(of_cells: Floats, concentration: Floats) -> Floats:
    """Take a step of Minka's fixed point for the Dirichlet-multinomial distribution."""
    total = concentration.sum()
    gain = (digamma(of_cells + concentration) - digamma(concentration)).sum(axis=0)
    norm = (digamma(of_cells.sum(axis=1) + total) - digamma(total)).sum()
    return np.clip(concentration * gain / max(norm, 1e-12), 1e-3, 1e3)


@dataclass(frozen=True)
class _Shrinkage:
    """Mixture of Gamma priors of loadings, and the penalty of the coefficients of bulk."""

    prior: GenePrior
    config: FactorConfig
    strata: Codes
    mixture: Floats
    penalty: float
    # Posterior probability of each shape, (n_factors, n_genes, n_shapes).
    memberships: Floats

    @classmethod
    def start(cls, prior: GenePrior, n_factors: int, config: FactorConfig) -> _Shrinkage:
        # Genes of equal level are in the same stratum, whatever their order.
        limits = np.quantile(prior.level, np.linspace(0, 1, config.n_strata + 1)[1:-1])
        n_shapes = len(config.shapes)
        return cls(
            prior,
            config,
            np.searchsorted(limits, prior.level),
            np.full((config.n_strata, n_shapes), 1 / n_shapes),
            config.penalty,
            np.empty((n_factors, len(prior.level), n_shapes)),
        )

    def update(
        self, of_genes: Floats, exposure: Floats, coefficients: Floats, i: int
    ) -> tuple[Floats, Floats, _Shrinkage]:
        """Update loadings, coefficients, and the prior itself."""
        shares = self.prior.shares(coefficients)
        shapes = np.array(self.config.shapes)
        # They change slowly, and take most of the time.
        mixture = self.mixture
        by_gene = [*map(np.ascontiguousarray, (of_genes.T, shares.T))]
        by_gene.append(np.ascontiguousarray(np.broadcast_to(exposure, shares.shape).T))
        if i < 2 or i % self.config.n_between_assignments == 0:
            mixture = self._assign(shapes, *by_gene)
        loadings, coefficients = np.empty_like(shares), coefficients.copy()
        spread = 0.0
        posterior, score, precision = np.empty((3, len(shares)))
        for k, (counts, expected, seen) in enumerate(zip(*by_gene, strict=True)):
            given = counts, seen, expected, shapes, self.memberships[k]
            shrink_genes(*given, posterior, score, precision)
            loadings[:, k] = posterior
            step, trace = self._newton_step(score, precision, coefficients[:, k])
            coefficients[:, k] += step
            spread += trace
        penalty = self.penalty
        if coefficients.size and i >= self.config.n_warmup and self.config.learn_penalty:
            penalty = coefficients.size / ((coefficients**2).sum() + spread)
        loadings /= loadings.sum(axis=0)
        return loadings, coefficients, replace(self, mixture=mixture, penalty=penalty)

    def _assign(
        self, shapes: Floats, of_genes: Floats, shares: Floats, exposure: Floats
    ) -> Floats:
        """Update the posterior of the shapes in place, and return their frequencies."""
        log_mixture, total = np.log(self.mixture), np.ones_like(self.mixture)
        for k in range(len(shares)):
            given = of_genes[k], exposure[k], shares[k], self.strata, shapes, log_mixture
            assign_shapes(*given, self.memberships[k], total)
        return total / total.sum(axis=1, keepdims=True)

    def _newton_step(
        self, score: Floats, precision: Floats, coefficients: Floats
    ) -> tuple[Floats, float]:
        """Compute a Newton step of the regression, and the posterior variance of the result."""
        features = self.prior.features
        if not features.shape[1]:
            return coefficients, 0.0
        centred = features - precision @ features / precision.sum()
        curvature = (centred.T * precision) @ centred
        curvature += self.penalty * np.eye(len(curvature))
        inverse = np.linalg.inv(curvature)
        step = inverse @ (centred.T @ score - self.penalty * coefficients)
        # No gene changes by more than this in a step, in the log.
        largest = np.abs(features @ step).max()
        return step * min(1.0, 3 / max(largest, 1e-9)), float(np.trace(inverse))
