"""Compiled passes of the factor model over counts and genes; their callers give them their arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.sparse import kernel

Floats = NDArray[np.float64]
Integers = NDArray[np.integer[Any]]


@kernel
def share_counts(
    indptr: Integers,
    columns: Integers,
    values: NDArray[np.floating[Any]],
    weights: Floats,
    loadings: Floats,
    of_cells: Floats,
    of_genes: Floats,
) -> None:
    """Add the expected counts of each factor to those of cells and of genes.

    ``weights`` and ``of_cells`` are ``(n_cells, k)``, ``loadings`` and ``of_genes`` are
    ``(n_genes, k)``.
    """
    n_factors = weights.shape[1]
    part = np.empty(n_factors)
    for i in range(len(indptr) - 1):
        for j in range(indptr[i], indptr[i + 1]):
            g = columns[j]
            total = 0.0
            for k in range(n_factors):
                part[k] = weights[i, k] * loadings[g, k]
                total += part[k]
            ratio = values[j] / total
            for k in range(n_factors):
                of_cells[i, k] += ratio * part[k]
                of_genes[g, k] += ratio * part[k]


@kernel
def log_gamma_from_6(x: float) -> float:
    """Compute the logarithm of the gamma function of a number of at least 6, by its series."""
    inverse = 1 / x
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    return (x - 0.5) * np.log(x) - x + 0.9189385332046727 + series


@kernel
def log_gamma(x: float) -> float:
    """Compute the logarithm of the gamma function of a positive number, to 1e-8."""
    if x < 6:
        product = 1.0
        while x < 6:
            product *= x
            x += 1
        return log_gamma_from_6(x) - np.log(product)
    return log_gamma_from_6(x)


@kernel
def assign_shapes(
    counts: Floats,
    exposure: Floats,
    expected: Floats,
    strata: Integers,
    shapes: Floats,
    log_shares: Floats,
    shares: Floats,
    memberships: Floats,
) -> None:
    """Write the posterior probability of each shape of the Gamma prior of the genes of a factor.

    For each gene, ``counts`` are Poisson with the mean ``exposure * loading``, and the loading has
    one of the ``shapes`` and the mean ``expected``. ``log_shares`` is ``(n_strata, n_shapes)``, and
    ``shares`` is ``(n_genes, n_shapes)``; they are added to ``memberships``, by stratum.
    """
    n_shapes = len(shapes)
    constant = np.empty(n_shapes)
    for c in range(n_shapes):
        constant[c] = shapes[c] * np.log(shapes[c]) - log_gamma(shapes[c])
    for g in range(len(counts)):
        n, mean, stratum = counts[g], exposure[g] * expected[g], strata[g]
        highest = -np.inf
        for c in range(n_shapes):
            total = n + shapes[c]
            shares[g, c] = (
                log_shares[stratum, c]
                + constant[c]
                + log_gamma(total)
                - total * np.log(shapes[c] + mean)
            )
            highest = max(highest, shares[g, c])
        norm = 0.0
        for c in range(n_shapes):
            shares[g, c] = np.exp(shares[g, c] - highest)
            norm += shares[g, c]
        for c in range(n_shapes):
            shares[g, c] /= norm
            memberships[stratum, c] += shares[g, c]


@kernel
def shrink_genes(
    counts: Floats,
    exposure: Floats,
    expected: Floats,
    shapes: Floats,
    shares: Floats,
    posterior: Floats,
    score: Floats,
    precision: Floats,
) -> None:
    """Write the posterior means of the loadings of a factor.

    Arguments are those of :func:`assign_shapes`. ``score`` and ``precision`` are the derivative of
    the expected log-likelihood by the log of ``expected``, and its negative expected curvature.
    """
    for g in range(len(counts)):
        n, mean = counts[g], exposure[g] * expected[g]
        shrunk, damping = 0.0, 0.0
        for c in range(len(shapes)):
            weight = shares[g, c] / (mean + shapes[c])
            shrunk += weight * (n + shapes[c])
            damping += weight * shapes[c]
        posterior[g] = shrunk * expected[g]
        score[g] = (n - mean) * damping
        precision[g] = mean * damping
