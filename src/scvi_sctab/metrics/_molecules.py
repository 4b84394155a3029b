"""Molecules that are held out of counts, to judge a model that denoises them.

If counts are Poisson, each molecule may be given to one of two halves at random: the halves are
independent given the expression of the cell :cite:p:`Batson19`. A model that is fitted to one half
is scored by the likelihood of the other, which no model can raise by learning the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts: TypeAlias = "NDArray[np.number] | sp.csr_matrix | sp.csc_matrix | sp.csr_array"


def molecular_split(
    counts: Counts, fraction: float = 0.5, *, seed: int = 0
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Split the molecules of cells at random into two parts, as for molecular cross-validation.

    Do not split counts that were corrected, scaled or smoothed, or reads without molecular
    identifiers: their parts are not independent.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``; dense or sparse.
    fraction
        Probability that a molecule is in the first part, in (0, 1).
    seed
        Seed of the split.

    Returns
    -------
    Two matrices, ``(n_cells, n_genes)``, whose sum is ``counts``. For a size factor ``s`` of a cell
    in the first part, that in the second is ``s * (1 - fraction) / fraction``.

    Raises
    ------
    ValueError
        If the counts are not raw, or ``fraction`` is not in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.array([[3, 0], [0, 9]])
    >>> train, test = molecular_split(counts)
    >>> bool((train + test == counts).all())
    True
    """
    if not 0 < fraction < 1:
        raise ValueError(f"{fraction=} is not in (0, 1): each part needs molecules.")
    whole = canonical_counts(counts)
    first = _thinned(whole, fraction, np.random.default_rng(seed))
    return first, _pruned(whole - first)


def thin_counts(
    counts: Counts, share: float | NDArray[np.floating], *, seed: int = 0
) -> sp.csr_matrix:
    """Keep each molecule with a probability, as if a library had been sequenced less deeply.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``; dense or sparse.
    share
        Expected share of molecules to keep, in [0, 1]; one number, or one per cell, ``(n_cells,)``.
    seed
        Seed of the molecules.

    Returns
    -------
    Thinned counts, ``(n_cells, n_genes)``.

    Raises
    ------
    ValueError
        If the counts are not raw, or a share is not in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> int(thin_counts(np.full((100, 100), 10), 0.25).sum()) // 1000
    25
    """
    whole = canonical_counts(counts)
    shares = np.asarray(share, dtype=np.float64)
    if shares.shape not in ((), (whole.shape[0],)):
        raise ValueError(
            f"`share` has shape {shares.shape}; give one number, or one for each of the "
            f"{whole.shape[0]:,} cells."
        )
    wrong = shares[~((shares >= 0) & (shares <= 1))]
    if wrong.size:
        raise ValueError(f"share={wrong.flat[0]} is not in [0, 1].")
    per_count = np.repeat(np.broadcast_to(shares, whole.shape[0]), np.diff(whole.indptr))
    return _thinned(whole, per_count, np.random.default_rng(seed))


def simulate_dropout(
    counts: Counts, share: float = 0.4, *, seed: int = 0
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Set a share of the non-zero counts to 0, as scDTL and other imputation methods do.

    The hidden entries are all non-zero and no true zero is among them, so that an error on them
    rewards whatever predicts large values; it depends mostly on the library size of cells and on
    the mean of genes. To judge a model, use :func:`molecular_split`.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``; dense or sparse.
    share
        Share of the non-zero entries to hide, in [0, 1].
    seed
        Seed of the entries.

    Returns
    -------
    The counts that are left, and those that were hidden, ``(n_cells, n_genes)`` each; their sum is
    ``counts``, and no entry is in both.

    Raises
    ------
    ValueError
        If the counts are not raw, or ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"{share=} is not in [0, 1].")
    whole = canonical_counts(counts)
    is_hidden = np.zeros(whole.nnz, dtype=bool)
    order = np.random.default_rng(seed).permutation(whole.nnz)
    is_hidden[order[: round(share * whole.nnz)]] = True
    kept, hidden = whole.copy(), whole.copy()
    kept.data[is_hidden] = 0
    hidden.data[~is_hidden] = 0
    return _pruned(kept), _pruned(hidden)


def canonical_counts(counts: Counts) -> sp.csr_matrix:
    """Check raw counts, and copy them to CSR with sorted genes and without explicit zeros.

    Random draws then do not depend on how the counts are stored.

    Parameters
    ----------
    counts
        Raw counts, ``(n_cells, n_genes)``; dense or sparse.

    Raises
    ------
    ValueError
        If they are not two-dimensional, or a value is negative, fractional or not finite.
    """
    if np.ndim(counts) != 2 and not sp.issparse(counts):
        raise ValueError(f"Counts have {np.ndim(counts)} dimensions; give cells times genes.")
    whole = sp.csr_matrix(counts, copy=True)
    whole.sum_duplicates()
    whole = _pruned(whole)
    with np.errstate(invalid="ignore"):
        is_raw = np.isfinite(whole.data) & (whole.data >= 0) & (whole.data == np.rint(whole.data))
    if not is_raw.all():
        entry = int(np.flatnonzero(~is_raw)[0])
        row = int(np.searchsorted(whole.indptr, entry, side="right")) - 1
        raise ValueError(
            f"{whole.data[entry]} of cell {row}, gene {whole.indices[entry]}, is not a raw count, "
            "a whole number of molecules of at least 0. Give counts from before normalisation, "
            "e.g. `adata.layers['counts']`."
        )
    return whole


def _thinned(
    whole: sp.csr_matrix, share: float | NDArray[np.float64], generator: np.random.Generator
) -> sp.csr_matrix:
    thinned = whole.copy()
    thinned.data = generator.binomial(whole.data.astype(np.int64), share).astype(whole.dtype)
    return _pruned(thinned)


def _pruned(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Remove explicit zeros, and sort the genes of each cell."""
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts
