"""Diagnosis of matrices with fractions: normalised, log-transformed or estimated counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

# Largest distance from a whole number that is taken for rounding noise.
NOISE = 1e-3
# log1p of 10,000: the largest value of a cell normalised to 10,000 and log-transformed.
_LARGEST_LOG_NORMALIZED = np.log1p(1e4)
# Largest binary logarithm of counts per million, and of microarray intensities.
_LARGEST_LOG = np.log2(1e6)
_LOG_BASES = (np.e, 2.0, 10.0)
# Number of cells that are examined, and smallest number of fractions in an informative cell.
_N_CELLS = 200
_MIN_FRACTIONS = 3
# Share of whole numbers, in the median cell, from which a matrix has counts beside fractions.
_MIN_WHOLE = 0.05


@dataclass(frozen=True)
class Appearance:
    """Appearance of a matrix that does not hold raw counts.

    Attributes
    ----------
    text
        Description in words.
    cure
        ``"round"`` the values, ``"ask"`` whether to round them, ``"fill"`` missing values, or
        ``"replace"`` the matrix.
    """

    text: str
    cure: Literal["round", "ask", "fill", "replace"]

    @property
    def is_rounded(self) -> bool:
        """True if the cure rounds values."""
        return self.cure in ("round", "ask")


def are_nearly_whole(values: NDArray[Any]) -> bool:
    """Return whether values are counts except for rounding noise.

    Parameters
    ----------
    values
        Finite values of a matrix, with or without its zeros.
    """
    whole = np.rint(values)
    # A matrix of tiny values only holds proportions.
    return bool(whole.min() >= 0 and whole.max() >= 1 and np.abs(values - whole).max() <= NOISE)


def look_of_fractions(block: sparse.csr_matrix) -> Appearance:
    """Distinguish normalised and log-transformed counts from estimated ones.

    Normalised cells have equal totals, or values that are multiples of one count; log-transformed
    ones have this after the inverse transformation. Otherwise large values are estimated or
    corrected counts; small values are so, too, if there are whole numbers among them, or if many
    are slightly below 1.

    Parameters
    ----------
    block
        ``(n_cells, n_genes)``, CSR, finite values of at least 0 with fractions among them.
    """
    cells = _cells_with_fractions(block)
    values = np.concatenate(cells)
    largest = values.max()
    if (total := _common_total(cells)) is not None:
        return Appearance(f"looks normalised (each cell adds up to {total:,.6g})", "replace")
    if largest <= _LARGEST_LOG and any(_are_logs(cells, base) for base in _LOG_BASES):
        return _logs(largest)
    is_whole = np.median([(~_are_fractions(cell)).mean() for cell in cells]) >= _MIN_WHOLE
    if not is_whole and _are_multiples(cells, cells):
        text = "looks normalised (values are multiples of the smallest one in each cell)"
        return Appearance(text, "replace")
    # The most frequent count is 1, and few corrections subtract more than half of it.
    below_one, below_half = float(np.mean(values < 1)), float(np.mean(values <= 1 / 2))
    is_reduced = below_one - below_half > max(0.3, 4 * below_half)
    if largest <= _LARGEST_LOG and not is_whole and not is_reduced:
        return _logs(largest)
    text = "looks like estimated or corrected counts (fractions, and totals that differ from cell "
    return Appearance(text + "to cell, as from SoupX, DecontX, CellBender, RSEM or salmon)", "ask")


def _logs(largest: float) -> Appearance:
    if largest <= _LARGEST_LOG_NORMALIZED:
        return Appearance("looks log-normalised (fractions, none above log1p(10,000))", "replace")
    return Appearance("looks log-transformed (fractions, none above log2(1,000,000))", "replace")


def _cells_with_fractions(block: sparse.csr_matrix) -> list[NDArray[np.float64]]:
    """Collect the values above 0 of the first cells with fractions."""
    cells: list[NDArray[np.float64]] = []
    for start, stop in zip(block.indptr[:-1], block.indptr[1:], strict=True):
        values = block.data[start:stop].astype(np.float64)
        # Rounding noise of zeros is left out.
        values = values[values > min(1e-7 * values.max(initial=0), NOISE)]
        if _are_fractions(values).any():
            cells.append(values)
        if len(cells) == _N_CELLS:
            break
    return cells


def _are_fractions(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values above 0 are not counts with rounding noise."""
    return (np.abs(values - np.rint(values)) > NOISE) | (values < 1 / 2)


def _common_total(cells: Sequence[NDArray[np.float64]]) -> float | None:
    """Find the total of nine of ten cells; ``None`` if totals differ or cells are too few."""
    totals = np.array([cell.sum() for cell in cells])
    median = float(np.median(totals))
    same = np.abs(totals - median) <= 1e-3 * median
    return median if len(cells) >= _MIN_FRACTIONS and same.mean() >= 0.9 else None


def _are_logs(cells: Sequence[NDArray[np.float64]], base: float) -> bool:
    """Return whether cells are normalised after the inverse of log(1 + x)."""
    undone = [base**cell - 1 for cell in cells]
    return _common_total(undone) is not None or _are_multiples(undone, cells)


def _are_multiples(
    cells: Sequence[NDArray[np.float64]], stored: Sequence[NDArray[np.float64]]
) -> bool:
    """Return whether the fractions of most cells are multiples of one count.

    The smallest value of a cell may be that of one to three counts.
    """
    votes = []
    for cell, values in zip(cells, stored, strict=True):
        ratios = cell[_are_fractions(values)] / cell.min()
        if (ratios > 1.5).sum() < _MIN_FRACTIONS:
            continue
        # Tolerance: the error of single precision, after the exponential.
        errors = [np.abs(n * ratios - np.rint(n * ratios)) for n in (1, 2, 3)]
        votes.append(max(np.mean(error <= 0.01 + 1e-5 * ratios) for error in errors) > 0.95)
    return bool(votes) and float(np.mean(votes)) > 1 / 2
