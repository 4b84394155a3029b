"""Recovery of latents up to their order, sign and scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LatentMatching:
    """Pairs of columns of two tables of latents.

    Attributes
    ----------
    first, second
        ``(n_pairs,)``: matched columns of the two tables; as many as the smaller table has.
    correlation
        ``(n_pairs,)``: Pearson correlations of the pairs, with their sign.
    n_first, n_second
        Numbers of columns of the two tables.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    correlation: NDArray[np.float64]
    n_first: int
    n_second: int


@dataclass(frozen=True)
class TargetScores:
    """Recovery of the targets of perturbations.

    Attributes
    ----------
    precision
        Share of the estimated targets that are true; NaN if none is estimated.
    recall
        Share of the true targets that are estimated; NaN if there is none.
    f1
        Harmonic mean of the two, 0 if none is found; NaN if there are neither true nor estimated
        targets.
    """

    precision: float
    recall: float
    f1: float


def match_latents(first: ArrayLike, second: ArrayLike) -> LatentMatching:
    """Match the columns of two tables one to one, by the largest sum of absolute correlations.

    Parameters
    ----------
    first, second
        ``(n_cells, n_first)`` and ``(n_cells, n_second)``, of the same cells. A column without
        variance correlates with none.

    Returns
    -------
    Pairs, in the order of the columns of ``first``.

    Raises
    ------
    ValueError
        If the tables are not of the same cells, or values are missing.

    Examples
    --------
    >>> latents = np.random.default_rng(0).normal(size=(50, 3))
    >>> match_latents(latents, -latents[:, [2, 0, 1]]).second.tolist()
    [1, 2, 0]
    """
    one, two = (np.asarray(table, dtype=np.float64) for table in (first, second))
    for name, table in (("first", one), ("second", two)):
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(
                f"`{name}` has the shape {table.shape}; pass a table with a row per cell and a "
                "column per latent."
            )
        if not np.isfinite(table).all():
            raise ValueError(f"`{name}` has missing or infinite values; leave these cells out.")
    if len(one) != len(two):
        raise ValueError(
            f"The two tables have {len(one):,} and {len(two):,} rows; pass the latents of the "
            "same cells."
        )
    correlation = _standardise(one).T @ _standardise(two)
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    return LatentMatching(rows, columns, correlation[rows, columns], one.shape[1], two.shape[1])


def _standardise(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre columns and scale them to length 1; those without variance become 0."""
    centred = table - table.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    # Deviations of a constant are rounding noise.
    constant = norms <= 1e-12 * np.linalg.norm(table, axis=0)
    scaled: NDArray[np.float64] = np.where(constant, 0, centred) / np.where(constant, 1, norms)
    return scaled


def mean_correlation_coefficient(true: ArrayLike, estimated: ArrayLike) -> float:
    """Average the absolute correlations of matched latents :cite:p:`Hyvarinen16`.

    Parameters
    ----------
    true
        ``(n_cells, n_true)``.
    estimated
        ``(n_cells, n_estimated)``.

    Returns
    -------
    Between 0 and 1. A true latent without a partner counts as 0; estimated latents beyond the
    number of true ones do not count.

    Raises
    ------
    ValueError
        As :func:`match_latents`.

    Examples
    --------
    >>> latents = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(mean_correlation_coefficient(latents, -2 * latents[:, [2, 0, 1]]), 6)
    1.0
    """
    matching = match_latents(true, estimated)
    return float(np.abs(matching.correlation).sum() / matching.n_first)


def target_scores(
    true_targets: ArrayLike, estimated_targets: ArrayLike, matching: LatentMatching
) -> TargetScores:
    """Compare true and estimated targets of perturbations, of matched latents.

    Parameters
    ----------
    true_targets
        ``(n_perturbations, n_true)``, boolean.
    estimated_targets
        ``(n_perturbations, n_estimated)``, boolean, of the same perturbations.
    matching
        ``match_latents(true, estimated)``. Targets of latents without a partner are all wrong: true
        ones are missed and estimated ones are false.

    Raises
    ------
    ValueError
        If a table is not boolean, or is not of the matched latents or of the same perturbations.

    Examples
    --------
    >>> latents = np.random.default_rng(0).normal(size=(50, 2))
    >>> true = np.array([[True, False], [False, True]])
    >>> target_scores(true, ~true, match_latents(latents, latents[:, ::-1])).f1
    1.0
    """
    one, two = np.asarray(true_targets), np.asarray(estimated_targets)
    expected = {
        "true_targets": (one, matching.n_first),
        "estimated_targets": (two, matching.n_second),
    }
    for name, (table, n_latent) in expected.items():
        if table.dtype != bool:
            raise ValueError(f"`{name}` is of type {table.dtype}; pass booleans: `effects > 1`.")
        if table.ndim != 2 or table.shape[1] != n_latent:
            raise ValueError(
                f"`{name}` has the shape {table.shape}; the matching is of {n_latent} latents, "
                "which are its columns."
            )
    if len(one) != len(two):
        raise ValueError(
            f"The targets are of {len(one)} and {len(two)} perturbations; pass those of the same "
            "ones: `estimated_targets.loc[true_targets.index]`."
        )
    n_found = int((one[:, matching.first] & two[:, matching.second]).sum())
    n_true, n_estimated = int(one.sum()), int(two.sum())
    return TargetScores(
        precision=_share(n_found, n_estimated),
        recall=_share(n_found, n_true),
        f1=_share(2 * n_found, n_true + n_estimated),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
