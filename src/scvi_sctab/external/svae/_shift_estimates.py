"""Estimates of shifts and their inclusion from latents of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the mean number of cells; without it, perturbations that always occur together fail.
_RIDGE = 1e-6


def design_matrix(codes: NDArray[np.int64], n_perturbations: int) -> sparse.csr_matrix:
    """Build the matrix of perturbations of cells.

    Parameters
    ----------
    codes
        ``(n_cells, max_parts)``, filled up with -1.
    n_perturbations
        Number of perturbations.

    Returns
    -------
    ``(n_cells, n_perturbations)``, 1 where a cell has the perturbation.

    Examples
    --------
    >>> design_matrix(np.array([[0, -1], [0, 1]]), 2).toarray().tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    rows, columns = np.nonzero(codes >= 0)
    entries = (np.ones(len(rows)), (rows, codes[rows, columns]))
    return sparse.csr_matrix(entries, shape=(len(codes), n_perturbations))


def count_cells(codes: NDArray[np.int64], n_perturbations: int) -> NDArray[np.intp]:
    """Count the cells of each perturbation, alone or with others.

    Parameters
    ----------
    codes, n_perturbations
        As in :func:`design_matrix`.
    """
    return np.bincount(codes[codes >= 0], minlength=n_perturbations)


def least_squares_shifts(
    latents: NDArray[np.floating], codes: NDArray[np.int64], n_perturbations: int
) -> NDArray[np.float32]:
    """Estimate shifts by least squares; without combinations, these are the means.

    Parameters
    ----------
    latents
        ``(n_cells, n_latent)``, those of unperturbed cells around 0.
    codes
        Perturbations of the cells, ``(n_cells, max_parts)``, filled up with -1.
    n_perturbations
        Number of perturbations; the shift of one without cells is 0.

    Returns
    -------
    ``(n_perturbations, n_latent)``.

    Examples
    --------
    >>> latents = np.array([[1.0], [3.0], [7.0]])
    >>> least_squares_shifts(latents, np.array([[0, -1], [0, -1], [0, 1]]), 2).ravel().round(
    ...     3
    ... ).tolist()
    [2.0, 5.0]
    """
    design = design_matrix(codes, n_perturbations)
    ridge = _RIDGE * max(design.nnz / max(n_perturbations, 1), 1)
    normal = (design.T @ design + ridge * sparse.identity(n_perturbations)).tocsc()
    shifts: NDArray[np.float32] = (
        splu(normal).solve(np.asarray(design.T @ latents.astype(np.float64))).astype(np.float32)
    )
    return shifts


def inclusions(
    shifts: NDArray[np.floating], counts: NDArray[np.integer], sparsity: NDArray[np.floating]
) -> NDArray[np.float64]:
    r"""Compute the optimal inclusion of shifts, :math:`p = \max(0, 1 - 2 (K - 1) / (n u^2))`.

    Parameters
    ----------
    shifts
        Shifts :math:`u`, ``(n_perturbations, n_latent)``.
    counts
        Number of cells :math:`n` of each perturbation, ``(n_perturbations,)``.
    sparsity
        :math:`K` for each perturbation, ``(n_perturbations,)``.

    Returns
    -------
    ``(n_perturbations, n_latent)``.

    Examples
    --------
    >>> inclusions(np.array([[2.0, 0.1]]), np.array([100]), np.array([101.0])).tolist()
    [[0.5, 0.0]]
    """
    gain = counts[:, None] * np.square(shifts, dtype=np.float64) / 2
    loss = np.broadcast_to((sparsity - 1)[:, None], gain.shape)
    return 1 - np.divide(loss, gain, out=np.ones(gain.shape), where=gain > loss)
