"""Mean expression of each gene, by empirical Bayes, with or without bulk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

Floats = NDArray[np.float64]

_N_KNOTS = 7
_N_ROUNDS = 20
# Variance of the weights of the spline, which keeps a knot without genes finite.
_RIDGE = 1e-2
_LOG_SHAPES = (-4.0, 6.0)


@dataclass(frozen=True)
class GeneLevel:
    """Share of each gene in the molecules of the cells.

    Attributes
    ----------
    mean
        Posterior mean of the share, ``(n_genes,)``; the sum is 1.
    of_others
        Shares expected of genes that the cells lack, from their bulk alone, ``(n_others,)``, in
        the same unit.
    """

    mean: Floats
    of_others: Floats


def log_nb(counts: Floats, mean: Floats, shape: float | Floats) -> Floats:
    """Compute the log-likelihood of a negative binomial, without the terms of the counts alone.

    Parameters
    ----------
    counts, mean
        Counts and their expectations, of shapes that broadcast.
    shape
        Shape of the Gamma distribution whose mixture of Poissons it is.
    """
    return (
        gammaln(counts + shape)
        - gammaln(shape)
        + shape * np.log(shape / (shape + mean))
        + counts * np.log(mean / (shape + mean))
    )


def fit_level(
    totals: Floats, bulk_mean: Floats | None = None, others: Floats | None = None
) -> GeneLevel:
    """Estimate the share of each gene by a negative binomial regression of its total.

    The log share expected of a gene is a linear spline of its mean log expression in bulk, or a
    constant without bulk; the shares of genes around it are Gamma distributed. Spline and shape
    are of maximum likelihood, and the estimate is the posterior mean.

    Parameters
    ----------
    totals
        Molecules of each gene over all cells, ``(n_genes,)``.
    bulk_mean
        Mean log expression of each gene in bulk, ``(n_genes,)``, if there is bulk; NaN of genes
        that it lacks.
    others
        The same of genes that the cells lack, ``(n_others,)``.
    """
    others = np.zeros(0) if others is None else others
    known = np.zeros(len(totals), bool) if bulk_mean is None else ~np.isnan(bulk_mean)
    mean, expected = np.empty(len(totals)), np.zeros(len(others))
    if bulk_mean is not None and known.any():
        # The ends of the spline are constant, so that no gene is expected above all others.
        low, high = bulk_mean[known].min(), bulk_mean[known].max()
        x = np.concatenate([bulk_mean[known], np.clip(others, low, high)])
        mean[known], expected = _shrink(totals[known], _spline(x, int(known.sum())))
    if not known.all():
        mean[~known] = _shrink(totals[~known], np.ones((int((~known).sum()), 1)))[0]
    total = mean.sum()
    return GeneLevel(mean / total, expected / total)


def _spline(x: Floats, n_fitted: int) -> Floats:
    """Build the basis of a linear spline with knots at quantiles, ``(n, n_basis)``."""
    knots = np.unique(np.quantile(x[:n_fitted], np.linspace(0, 1, _N_KNOTS + 2)[1:-1]))
    return np.column_stack([np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in knots)])


def _shrink(totals: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """Return posterior means of the first genes, and expectations of the others."""
    n = len(totals)
    if not totals.any():
        # The likelihood has its maximum at 0, of which there is no logarithm.
        return np.full(n, 0.5 / n), np.full(len(basis) - n, 0.5 / n)
    coefficients = np.zeros(basis.shape[1])
    coefficients[0] = np.log(max(totals.mean(), 0.5 / n))
    shape = 1.0
    for _ in range(_N_ROUNDS):
        before = shape
        coefficients = _regress(totals, basis[:n], coefficients, shape)
        expected = np.exp(basis @ coefficients)
        shape = best_shape(totals, expected[:n])
        if abs(np.log(shape / before)) < 1e-4:
            break
    return (totals + shape) / (1 + shape / expected[:n]), expected[n:]


def _regress(totals: Floats, basis: Floats, coefficients: Floats, shape: float) -> Floats:
    """Fit the log expectation by iteratively reweighted least squares."""
    ridge = _RIDGE * np.eye(basis.shape[1])
    ridge[0, 0] = 0
    for _ in range(25):
        mean = np.exp(basis @ coefficients)
        weighted = basis.T * (mean / (1 + mean / shape))
        score = weighted @ (totals / mean - 1) - ridge @ coefficients
        step = np.linalg.solve(weighted @ basis + ridge, score)
        largest = np.abs(basis @ step).max()
        coefficients = coefficients + step * min(1.0, 2 / max(largest, 1e-9))
        if largest < 1e-6:
            break
    return coefficients


def best_shape(totals: Floats, expected: Floats) -> float:
    """Estimate the shape of a negative binomial by maximum likelihood.

    Parameters
    ----------
    totals, expected
        Counts and their positive expectations, ``(n,)``.
    """
    found = minimize_scalar(
        lambda log_shape: -log_nb(totals, expected, np.exp(log_shape)).sum(),
        bounds=_LOG_SHAPES,
        method="bounded",
    )
    return float(np.exp(found.x))
