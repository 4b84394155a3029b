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
    prior
        Share that is expected of a gene from its bulk alone, ``(n_genes,)``.
    mean
        Posterior mean of the share, ``(n_genes,)``; the sum is 1.
    shape
        Shape of the Gamma distribution of shares around ``prior``.
    """

    prior: Floats
    mean: Floats
    shape: float


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


def fit_level(totals: Floats, bulk_mean: Floats | None = None) -> GeneLevel:
    """Estimate the share of each gene by a negative binomial regression of its total.

    The log share expected of a gene is a linear spline of its mean log expression in bulk, or a
    constant without bulk; the shares of genes around it are Gamma distributed. Spline and shape
    are of maximum likelihood, and the estimate is the posterior mean.

    Parameters
    ----------
    totals
        Molecules of each gene over all cells, ``(n_genes,)``.
    bulk_mean
        Mean log expression of each gene in bulk, ``(n_genes,)``, if there is bulk.
    """
    n_molecules = totals.sum()
    basis = np.ones((len(totals), 1)) if bulk_mean is None else _spline(bulk_mean)
    expected = np.full(len(totals), totals.mean())
    shape = 1.0
    for _ in range(_N_ROUNDS):
        before = shape
        expected = _regress(totals, basis, expected, shape)
        shape = _best_shape(totals, expected)
        if abs(np.log(shape / before)) < 1e-4:
            break
    mean = (totals + shape) / (1 + shape / expected)
    return GeneLevel(expected / n_molecules, mean / mean.sum(), shape)


def _spline(x: Floats) -> Floats:
    """Build the basis of a linear spline with knots at quantiles, ``(n, n_basis)``."""
    knots = np.unique(np.quantile(x, np.linspace(0, 1, _N_KNOTS + 2)[1:-1]))
    return np.column_stack([np.ones_like(x), x, *(np.maximum(x - knot, 0) for knot in knots)])


def _regress(totals: Floats, basis: Floats, expected: Floats, shape: float) -> Floats:
    """Fit the log expectation by iteratively reweighted least squares."""
    ridge = _RIDGE * np.eye(basis.shape[1])
    ridge[0, 0] = 0
    eta = np.log(expected)
    for _ in range(25):
        mean = np.exp(eta)
        weight = mean / (1 + mean / shape)
        working = eta + (totals - mean) / mean
        weighted = basis.T * weight
        coefficients = np.linalg.solve(weighted @ basis + ridge, weighted @ working)
        step = basis @ coefficients - eta
        eta = eta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    return np.exp(eta)


def _best_shape(totals: Floats, expected: Floats) -> float:
    found = minimize_scalar(
        lambda log_shape: -log_nb(totals, expected, np.exp(log_shape)).sum(),
        bounds=_LOG_SHAPES,
        method="bounded",
    )
    return float(np.exp(found.x))
