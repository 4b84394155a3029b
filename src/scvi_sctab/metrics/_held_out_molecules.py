"""Likelihood of held-out molecules under the rates of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import gammaln

from scvi_sctab.metrics._molecules import Counts, canonical_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

TERTILES = ("low", "mid", "high")


@dataclass(frozen=True)
class HeldOutScores:
    """Log-likelihood of held-out molecules.

    Attributes
    ----------
    log_likelihood
        Poisson log-likelihood in nats, ``(n_cells, n_strata)``, summed over the genes of a stratum.
    n_molecules
        Number of held-out molecules, ``(n_cells, n_strata)``.
    strata
        Names of the strata of genes, ``(n_strata,)``.
    """

    log_likelihood: NDArray[np.float64]
    n_molecules: NDArray[np.float64]
    strata: tuple[str, ...]

    @property
    def per_molecule(self) -> pd.Series:
        """Log-likelihood per molecule in nats, of ``"all"`` genes and of each stratum."""
        values = [a.sum() / b.sum() if b.sum() else np.nan for _, a, b in self._parts()]
        return pd.Series(values, index=["all", *self.strata], name="nats", dtype=float)

    def gain_over(self, baseline: HeldOutScores) -> pd.DataFrame:
        """Compare with a baseline on the same molecules.

        Parameters
        ----------
        baseline
            Scores of other rates.

        Returns
        -------
        A row for ``"all"`` genes and one per stratum: ``gain`` in nats per molecule, its standard
        error ``se`` over cells (of a ratio of sums; NaN with one cell) and ``n_molecules``.

        Raises
        ------
        ValueError
            If the molecules or the strata are not the same.
        """
        same = self.strata == baseline.strata and np.array_equal(
            self.n_molecules, baseline.n_molecules
        )
        if not same:
            raise ValueError(
                "The baseline was scored on other molecules or strata: score both models on the "
                "same held-out counts."
            )
        rows = []
        for (_, ours, n), (_, theirs, _) in zip(self._parts(), baseline._parts(), strict=True):
            rows.append((*_ratio(ours - theirs, n), int(n.sum())))
        index = pd.Index(["all", *self.strata], name="genes")
        return pd.DataFrame(rows, index, columns=["gain", "se", "n_molecules"])

    def _parts(self) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        """List name, log-likelihood and number of molecules of each row of a table, by cell."""
        whole = ("all", self.log_likelihood.sum(axis=1), self.n_molecules.sum(axis=1))
        strata = zip(self.strata, self.log_likelihood.T, self.n_molecules.T, strict=True)
        return [whole] if len(self.strata) == 0 else [whole, *strata]


def held_out_log_likelihood(
    counts: Counts,
    rates: NDArray[np.floating],
    *,
    size_factors: NDArray[np.floating] | None = None,
) -> float:
    """Compute the Poisson log-likelihood per held-out molecule.

    Compare models on the same molecules: only differences have a meaning. In thousandths
    (mnats per molecule) 1 is small and 100 is much.

    Parameters
    ----------
    counts
        Held-out counts, ``(n_cells, n_genes)``; dense or sparse, such as the second part of
        :func:`~scvi_sctab.metrics.molecular_split`.
    rates
        Expected counts, ``(n_cells, n_genes)``, up to the factor ``size_factors`` of each cell. A
        rate of 0 of a gene with a held-out molecule gives a log-likelihood of minus infinity.
    size_factors
        ``(n_cells,)``; the expected count is ``size_factors[i] * rates[i, j]``. If rates are shares
        of a cell's molecules, give the number of molecules that were *not* held out, times
        ``(1 - fraction) / fraction``: that of the held-out ones must not be used. If not given,
        rates are the expected held-out counts.

    Returns
    -------
    Nats per molecule, with the term of the factorials.

    Raises
    ------
    ValueError
        If the counts are not raw, shapes differ, a rate or size factor is negative or not finite,
        or there is no molecule.

    Examples
    --------
    >>> import numpy as np
    >>> counts, good, bad = np.array([[4, 1]]), np.array([[0.8, 0.2]]), np.array([[0.5, 0.5]])
    >>> gain = held_out_log_likelihood(counts, good, size_factors=[5])
    >>> gain -= held_out_log_likelihood(counts, bad, size_factors=[5])
    >>> round(gain, 3)
    0.193
    """
    scores = score_held_out(counts, rates, size_factors=size_factors)
    if not scores.n_molecules.any():
        raise ValueError("No molecule is held out: choose a smaller `fraction` for training.")
    return float(scores.per_molecule["all"])


def score_held_out(
    counts: Counts,
    rates: NDArray[np.floating],
    *,
    size_factors: NDArray[np.floating] | None = None,
    strata: Sequence[str] | NDArray[np.str_] | None = None,
) -> HeldOutScores:
    """Score rates by held-out molecules, by cell and by stratum of genes.

    Parameters
    ----------
    counts, rates, size_factors
        As in :func:`held_out_log_likelihood`.
    strata
        Stratum of each gene, ``(n_genes,)``, such as :func:`expression_tertiles`; one stratum if
        not given.

    Returns
    -------
    Scores; the names of strata are in the order low, mid, high, or sorted if there are others.

    Raises
    ------
    ValueError
        As :func:`held_out_log_likelihood`, but that there may be no molecule.
    """
    held_out = canonical_counts(counts)
    n_cells, n_genes = held_out.shape
    rates = np.asarray(rates)
    if rates.shape != held_out.shape:
        raise ValueError(f"`rates` has shape {rates.shape}, the counts have {held_out.shape}.")
    factors = np.ones(n_cells) if size_factors is None else np.asarray(size_factors, float).ravel()
    if factors.shape != (n_cells,):
        raise ValueError(
            f"{factors.size:,} size factors are not one for each of {n_cells:,} cells."
        )
    _check_rates(rates, "rates")
    _check_rates(factors, "size_factors")
    names, codes = _coded(strata, n_genes)
    n_strata = max(len(names), 1)
    rows = np.repeat(np.arange(n_cells), np.diff(held_out.indptr))
    bins = rows * n_strata + codes[held_out.indices]
    molecules: NDArray[np.float64] = held_out.data.astype(np.float64)
    # Only genes with molecules need a logarithm.
    expected = factors[rows] * rates[rows, held_out.indices]
    with np.errstate(divide="ignore"):
        terms = molecules * np.log(expected) - gammaln(molecules + 1)
    shape, size = (n_cells, n_strata), n_cells * n_strata
    in_stratum = np.eye(n_strata)[codes].astype(rates.dtype)
    totals = factors[:, None] * (rates @ in_stratum).astype(np.float64)
    return HeldOutScores(
        np.bincount(bins, terms, size).reshape(shape) - totals,
        np.bincount(bins, molecules, size).astype(np.float64).reshape(shape),
        names,
    )


def expression_tertiles(totals: NDArray[np.number]) -> NDArray[np.str_]:
    """Assign genes to thirds by expression: ``"low"``, ``"mid"`` and ``"high"``.

    Parameters
    ----------
    totals
        Molecules of each gene over all cells, ``(n_genes,)``. Use the same for all models.

    Returns
    -------
    ``(n_genes,)``; genes with equal totals are in the same third.
    """
    totals = np.asarray(totals, dtype=np.float64).ravel()
    limits = np.quantile(totals, [1 / 3, 2 / 3])
    return np.array(TERTILES)[np.searchsorted(limits, totals)]


def _coded(
    strata: Sequence[str] | NDArray[np.str_] | None, n_genes: int
) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Return names of strata, in order, and the code of each gene."""
    if strata is None:
        return (), np.zeros(n_genes, dtype=np.intp)
    names = np.asarray(strata, dtype=str)
    if names.shape != (n_genes,):
        raise ValueError(f"{names.size:,} strata are not one for each of {n_genes:,} genes.")
    found = np.unique(names).tolist()
    ordered = [n for n in TERTILES if n in found] + [n for n in found if n not in TERTILES]
    code_of = {name: code for code, name in enumerate(ordered)}
    return tuple(ordered), np.array([code_of[name] for name in names.tolist()], dtype=np.intp)


def _check_rates(values: NDArray[np.floating], name: str) -> None:
    # One pass without a temporary array of the size of the rates; NaN fails the comparison.
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        raise ValueError(f"`{name}` holds values that are negative or not finite.")


def _ratio(
    differences: NDArray[np.float64], n_molecules: NDArray[np.float64]
) -> tuple[float, float]:
    """Compute a ratio of sums over cells, and its standard error by linearisation."""
    total, n_cells = n_molecules.sum(), len(n_molecules)
    if not total:
        return np.nan, np.nan
    ratio = differences.sum() / total
    if n_cells < 2:
        return float(ratio), np.nan
    residuals = differences - ratio * n_molecules
    variance = (residuals**2).sum() * n_cells / (n_cells - 1)
    return float(ratio), float(np.sqrt(variance) / total)
