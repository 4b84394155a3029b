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


def count_controls(codes: NDArray[np.int64]) -> int:
    """Count the unperturbed cells whose mean is the origin of shifts; one cell alone is not.

    Parameters
    ----------
    codes
        As in :func:`design_matrix`.
    """
    n = int((codes < 0).all(axis=1).sum())
    return n if n > 1 else 0


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


def standard_errors(n_cells: NDArray[np.integer] | float, n_controls: int) -> NDArray[np.float64]:
    """Compute the standard errors of shifts, whose latents have variance 1.

    A shift is the distance of two means, of perturbed and of unperturbed cells.

    Parameters
    ----------
    n_cells
        Number of cells of each perturbation.
    n_controls
        Number of unperturbed cells; 0 is a baseline that all perturbations share, whose error is
        negligible.

    Examples
    --------
    >>> float(standard_errors(100, 0)), float(standard_errors(100, 100).round(4))
    (0.1, 0.1414)
    """
    of_control = 1 / n_controls if n_controls else 0.0
    errors: NDArray[np.float64] = np.sqrt(1 / np.maximum(n_cells, 1) + of_control)
    return errors


def sparsity_of(shift: float, n_cells: float, beta: float) -> float:
    r"""Compute K for which a shift has an inclusion of one half.

    With :math:`n` cells whose latents have variance 1, and the weight :math:`\beta` of their KL
    divergence, the objective for an inclusion :math:`p` of the shift :math:`u` is
    :math:`-\beta p n u^2 / 2 - (K - 1) \log(1 - p)`, and its minimum at
    :math:`p = 1 - 2 (K - 1) / (\beta n u^2)`.

    Parameters
    ----------
    shift
        Shift, in standard deviations.
    n_cells
        Number of cells of a perturbation.
    beta
        Weight of the KL divergence.

    Examples
    --------
    >>> sparsity_of(2.0, 100, 1.0)
    101.0
    """
    return 1 + beta * n_cells * shift**2 / 4


def half_included_shift(sparsity: float, n_cells: float, beta: float) -> float:
    """Compute the shift that has an inclusion of one half, the inverse of :func:`sparsity_of`.

    Parameters
    ----------
    sparsity
        K.
    n_cells, beta
        As in :func:`sparsity_of`.

    Examples
    --------
    >>> half_included_shift(101.0, 100, 1.0)
    2.0
    """
    if sparsity == 1:
        return 0.0
    return 2 * ((sparsity - 1) / (beta * n_cells)) ** 0.5 if beta else float("inf")


def inclusions(shifts: NDArray[np.floating], half: NDArray[np.floating]) -> NDArray[np.float64]:
    r"""Compute the optimal inclusion of shifts, :math:`p = \max(0, 1 - h^2 / (2 u^2))`.

    This is the optimum of :func:`sparsity_of` in terms of the shift with an inclusion of one half.

    Parameters
    ----------
    shifts
        Shifts :math:`u`, ``(n_perturbations, n_latent)``.
    half
        Shift :math:`h` of each perturbation whose inclusion is one half, ``(n_perturbations,)``.

    Returns
    -------
    ``(n_perturbations, n_latent)``.

    Examples
    --------
    >>> inclusions(np.array([[2.0, 0.1]]), np.array([2.0])).tolist()
    [[0.5, 0.0]]
    """
    gain = 2 * np.square(shifts, dtype=np.float64)
    loss = np.broadcast_to(np.square(half)[:, None], gain.shape)
    return 1 - np.divide(loss, gain, out=np.ones(gain.shape), where=gain > loss)
